"""Let the disk fill up in each stage of a tiny run, make it read-only, and change its files behind its back.

    python benchmarks/full_disk.py --out runs/survival

In a mount namespace of its own, with the run on a small tmpfs: each stage finds half the room it needs, then enough.
The space that a run asks for before it begins is said to be there, as if another program had taken it since. Uses the
undisturbed run of `survival.py`, or makes it. Writes a table and `full_disk.json`. Exit code 1 where anything is not as
it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from remains import differs, torn
from survival import PATIENCE, TINY, Kill, Point, room, start, watched

from saadi.files import UNFINISHED
from saadi.manifests import MANIFEST, manifest_paths

PAGE = 4096
PLENTY = "1g"
KINDS = ("changed", "missing", "damaged")
"""What happens to a stage's largest file; or to its manifest, that it is damaged."""
INSIDE = "SAADI_FULL_DISK"
"""Set where this is in its own mount namespace already."""


class Usage(NamedTuple):
    """As `shutil.disk_usage` has it."""

    total: int
    used: int
    free: int


@dataclass(frozen=True)
class Believing:
    """The disk is said to be empty; and perhaps something more is armed."""

    more: Callable[[], None] | None = None

    def __call__(self) -> None:
        shutil.disk_usage = lambda path: Usage(10**12, 0, 10**12)  # type: ignore[assignment, return-value]
        if self.more is not None:
            self.more()


def remount(place: Path, options: str) -> None:
    """Change the size of a tmpfs, or whether it may be written."""
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def used(place: Path) -> int:
    """Bytes taken on a file system."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def needs(folder: Path, rooms: Sequence[str]) -> dict[str, int]:
    """Bytes on a disk of whole pages that each room of a finished run takes."""
    sizes = dict.fromkeys(rooms, 0)
    for path in folder.rglob("*"):
        if path.is_file() and (name := room(str(path.relative_to(folder)))) in sizes:
            sizes[name] += -(-path.stat().st_size // PAGE) * PAGE
    return sizes


def ask(arguments: Sequence[object], errors: Path, arm: Callable[[], None] | None = None) -> tuple[int, list[str]]:
    """The exit code of a command and what it said, without its progress."""
    process = start(arguments, errors, arm=arm)
    process.join(PATIENCE)
    assert process.exitcode is not None
    lines = errors.read_text(encoding="utf-8").splitlines()
    return process.exitcode, [line for line in lines if not line.endswith(" ...")]


def refused(code: int, said: Sequence[str], *words: str) -> bool:
    """Whether a command ended as bad input does: code 2 and one line, with some words in it."""
    return code == 2 and len(said) == 1 and said[0].startswith("saadi: ") and all(word in said[0] for word in words)


def _row(rows: list[dict[str, Any]], kind: str, stage: str, code: int, said: list[str], good: bool) -> None:
    rows.append({"kind": kind, "stage": stage, "code": code, "said": said[-5:], "good": good})
    fine = "" if good else "NOT AS IT SHOULD BE "
    print(f"{kind:<18} {stage:<26} {code:>3}  {fine}{' / '.join(said)[-150:]}", flush=True)


def fill(place: Path, undisturbed: Path, log: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Fill the disk in each room of a run, then let it go on; returns what differs at the end."""
    firsts: dict[str, str] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        file = json.loads(line)[1]
        firsts.setdefault(room(file), file)
    rooms = [name for name in firsts if (undisturbed / name).is_dir()]
    sizes, folder, errors = needs(undisturbed, rooms), place / "run", place.with_name("errors")
    command = ["run", TINY, "--out", folder, "--final"]
    for name, following in zip(rooms, [*rooms[1:], None], strict=True):
        free = max(PAGE, sizes[name] // 2 // PAGE * PAGE)
        remount(place, f"size={used(place) + free}")
        code, said = ask(command, errors, Believing())
        where = {room(str(path.relative_to(folder))) for path in folder.rglob(UNFINISHED)}
        good = refused(code, said, "the disk is full", "the same command resumes") and not torn(folder)
        _row(rows, "full", name, code, said, good and where <= {name})
        remount(place, f"size={PLENTY}")
        if following is not None:  # up to the next room, and no further
            code, said = ask(command, errors, Believing(Kill(folder, Point(firsts[following], 0.0, "SIGTERM"))))
            if code != 3:
                _row(rows, "resumed", name, code, said, False)
            if following == rooms[len(rooms) // 2]:
                read_only(place, command, errors, rows, finished=False)
    code, said = ask(command, errors, Believing())
    _row(rows, "room again", "to the end", code, said, code == 0)
    read_only(place, command, errors, rows, finished=True)
    return differs(folder, undisturbed)


def read_only(place: Path, command: list[Any], errors: Path, rows: list[dict[str, Any]], *, finished: bool) -> None:
    """What commands say of a folder that may not be written."""
    remount(place, "ro")
    stage = "a finished run" if finished else "an unfinished run"
    code, said = ask(command, errors)
    _row(rows, "read-only: run", stage, code, said, refused(code, said, str(place / "run"), "--out"))
    if not finished:
        remount(place, "rw")
        return
    code, said = ask(["status", place / "run"], errors)
    _row(rows, "read-only: status", stage, code, said, code == 0)
    code, said = ask(["report", place / "run"], errors)
    _row(rows, "read-only: report", stage, code, said, refused(code, said, "report.html"))
    remount(place, "rw")


def tamper(place: Path, rows: list[dict[str, Any]]) -> None:
    """Change or delete what each stage of a finished run wrote: it is named, with the stage to redo, and left."""
    folder, errors = place / "run", place.with_name("errors")
    command = ["run", TINY, "--out", folder, "--final"]
    stages: dict[str, str] = {}
    for name, _ in manifest_paths(folder):
        stages.setdefault(room(f"{name}/{MANIFEST}"), name)  # of the trainings the first
    for number, name in enumerate(stages.values()):
        kind = KINDS[number % len(KINDS)]
        path = folder / name / MANIFEST
        if kind != "damaged":
            outputs = [one for one in (folder / name).rglob("*") if one.is_file() and one != path]
            path = max(outputs, key=lambda one: one.stat().st_size)
        kept = path.read_bytes()
        if kind == "changed":
            path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))  # one bit, at equal length
        elif kind == "missing":
            path.unlink()
        else:
            path.write_bytes(kept[: len(kept) // 2])
        before = {one: one.stat().st_mtime_ns for one in folder.rglob(MANIFEST)}
        code, said = ask(command, errors)
        after = {one: one.stat().st_mtime_ns for one in folder.rglob(MANIFEST)}
        _row(rows, kind, name, code, said, refused(code, said, str(path), kind, f"--redo {name}") and after == before)
        path.write_bytes(kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/survival"))
    options = parser.parse_args()
    if INSIDE not in os.environ:  # a mount of our own, which is gone with us
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv])
    undisturbed, log = watched(options.out)
    place = options.out.resolve() / "small"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={PAGE}", "tmpfs", place], check=True)
    rows: list[dict[str, Any]] = []
    different = fill(place, undisturbed, log, rows)
    tamper(place, rows)
    bad = sum(not row["good"] for row in rows)
    facts = {"rows": rows, "bad": bad, "differs": different}
    (options.out / "full_disk.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} trials, {bad} not as they should be; after the full disks {len(different)} outputs differ")
    return int(bool(bad or different))


if __name__ == "__main__":
    sys.exit(main())
