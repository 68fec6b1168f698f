"""Kill a tiny run at many points of all its stages, resume it, and see that nothing of that can be told from its end.

    python benchmarks/survival.py --points 25 --out runs/survival [--crew 2] [--threads 2]

An undisturbed run is watched by an audit hook: each file that it opens to write, and each that it renames into place,
is a point in time that comes again when the run is resumed. A second run is killed at such points (before the file is
opened or in place) and in the midst of what takes longest between two of them; after each kill the same command goes
on. Writes a table and `kills.json`. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from remains import differs, made, torn

from saadi import workers
from saadi.__main__ import main

TINY = Path(__file__).parent.parent / "tests" / "tiny.yaml"
PATIENCE = 1800.0
CODES = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 3, "SIGINT": 3}
"""Exit codes by signal: one that cannot be caught, and two that end a run politely."""
ASIDE = (".lock", ".parts")
"""What a run writes that is no part of it: who holds it, and where workers lay what is then moved."""


@dataclass(frozen=True)
class Point:
    """A moment of a run: when it is about to open or lay `file`, relative to its folder, or some seconds after that.

    After that, but before the next write, or the moments to come might be over once the run is resumed.
    """

    file: str
    delay: float
    signal: str


def writes(folder: Path, happened: Callable[[str], None]) -> None:
    """From now on tell of each file in `folder` which this process is about to open to write, or to lay into place."""
    root = str(folder.resolve()) + os.sep

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename":
            path = arguments[1]
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and (name := os.path.abspath(path)).startswith(root):  # noqa: PTH100
            happened(name.removeprefix(root))

    sys.addaudithook(hook)


def _command(arguments: list[str], errors: Path, crew: int, arm: Callable[[], None] | None) -> None:
    """The command in a process of its own, its standard error in a file."""
    with errors.open("wb") as sink:
        os.dup2(sink.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    workers.crew_size = lambda config: crew
    sys.argv = ["saadi", *arguments]
    if arm is not None:
        arm()
    main()


def start(
    arguments: Sequence[object], errors: Path, crew: int = 0, arm: Callable[[], None] | None = None
) -> BaseProcess:
    """Begin `saadi ARGUMENTS`, `arm`ed first. The fork server imports everything once: a process is there at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saadi.pipeline", "saadi.report"])
    process = context.Process(target=_command, args=([*map(str, arguments)], errors, crew, arm))
    process.start()
    return process


@dataclass(frozen=True)
class Watch:
    """Writes down when each file was first written, as JSON Lines, by its name."""

    folder: Path
    log: Path

    def __call__(self) -> None:
        seen: set[str] = set()
        sink = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

        def happened(file: str) -> None:
            if file not in seen:
                seen.add(file)
                os.write(sink, (json.dumps([time.monotonic(), file]) + "\n").encode())

        writes(self.folder, happened)


@dataclass(frozen=True)
class Kill:
    """Ends its own process at a point, once."""

    folder: Path
    point: Point

    def __call__(self) -> None:
        number, waiting, ended = signal.Signals[self.point.signal], threading.Event(), threading.Lock()

        def end() -> None:
            if ended.acquire(blocking=False):  # once: a second signal would end a run that says goodbye
                os.kill(os.getpid(), number)

        def happened(file: str) -> None:
            if waiting.is_set():
                if not file.startswith(ASIDE):
                    end()
            elif file == self.point.file:
                waiting.set()
                timer = threading.Timer(self.point.delay, end)
                timer.daemon = True
                (timer.start if self.point.delay else end)()

        writes(self.folder, happened)


def room(file: str) -> str:
    """The stage a file belongs to; the many trainings are one."""
    found = re.match(r"(round-\d+/\w+|winners/adapter|evaluation/sets/[^/]+|evaluation/\w+|\w+)/", file)
    return found[1] if found else "the run's own files"


def choose(log: Path, count: int, seed: int = 0) -> list[Point]:
    """Points over all rooms of a watched run: in each one at the border of a write and one in its longest silence."""
    events: list[tuple[float, str]] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    events = [event for event in events if not event[1].startswith(ASIDE)]
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(events)] + [0.0]
    rows: dict[str, list[int]] = {}
    for row, (_, file) in enumerate(events):
        rows.setdefault(room(file), []).append(row)
    rng, found = random.Random(seed), dict[int, float]()
    for own in rows.values():
        longest = max(own, key=gaps.__getitem__)
        found[longest] = gaps[longest] / 2
        others = [row for row in own if row != longest]
        if others:
            found[rng.choice(others)] = 0.0
    picked = sorted(found)
    if len(picked) > count:
        picked = [picked[round(k * (len(picked) - 1) / (count - 1))] for k in range(count)]
    names = list(CODES)
    return [Point(events[row][1], found[row], names[k % 3]) for k, row in enumerate(picked)]


def processes_of(folder: Path) -> list[int]:
    """Processes that were told of a folder on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "saadi.workers" in words and str(folder) in words:
            found.append(int(path.parent.name))
    return found


def _orphans(folder: Path, patience: float = 300.0) -> list[int]:
    """Workers that are still there some time after their parent is gone: one that is being loaded looks up later."""
    until = time.monotonic() + patience
    while (left := processes_of(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def kill_and_resume(
    arguments: Sequence[object], folder: Path, points: Sequence[Point], crew: int = 0
) -> Iterator[dict[str, Any]]:
    """Kill a run in `folder` at each point and resume it until the next; a row of facts for each. Ends unfinished."""
    errors = folder.with_name(folder.name + "-errors")
    for point in points:
        process = start(arguments, errors, crew, Kill(folder, point))
        process.join(PATIENCE)
        row = {**asdict(point), "code": process.exitcode, "orphans": _orphans(folder), "torn": torn(folder)}
        told = errors.read_text(encoding="utf-8").splitlines()
        polite = point.signal == "SIGKILL" or told[-1:] == ["saadi: interrupted; the same command resumes"]
        row["good"] = row["code"] == CODES[point.signal] and polite and not row["orphans"] and not row["torn"]
        if not row["good"]:
            row["told"] = told[-5:]
        yield row


def finish(arguments: Sequence[object], folder: Path, crew: int = 0, arm: Callable[[], None] | None = None) -> None:
    """Let a run come to its end. Raises `RuntimeError` with what it said where it does not."""
    errors = folder.with_name(folder.name + "-errors")
    process = start(arguments, errors, crew, arm)
    process.join(PATIENCE)
    if process.exitcode:
        raise RuntimeError(errors.read_text(encoding="utf-8"))


def command(folder: Path, threads: int = 1) -> list[object]:
    """What runs the tiny settings in `folder`."""
    return ["run", TINY, "--out", folder, "--final", "--set", f"threads={threads}"]


def watched(out: Path, crew: int = 0, threads: int = 1) -> tuple[Path, Path]:
    """An undisturbed run in `out` and the log of its writes; what is there already is kept."""
    folder, log = out.resolve() / "undisturbed", out.resolve() / "writes.jsonl"
    if not (folder / "model-card.md").is_file():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        finish(command(folder, threads), folder, crew, Watch(folder, log))
    return folder, log


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--crew", type=int, default=0, help="worker processes; 0: all in the run's own")
    parser.add_argument("--threads", type=int, default=1, help="of the run's own process")
    parser.add_argument("--out", type=Path, default=Path("runs/survival"))
    options = parser.parse_args()
    undisturbed, log = watched(options.out, options.crew, options.threads)
    killed = options.out.resolve() / "killed"
    shutil.rmtree(killed, ignore_errors=True)
    rows = []
    arguments = command(killed, options.threads)
    print(f"{'':>2} {'signal':<8} {'code':>4} {'orphans':>7} {'torn':>4}  moment")
    for row in kill_and_resume(arguments, killed, choose(log, options.points), options.crew):
        rows.append(row)
        when = f"{row['delay']:.2f} s after" if row["delay"] else "before"
        fine = "" if row["good"] else f"  NOT AS IT SHOULD BE: {row['told']}"
        counts = f"{row['code']!s:>4} {len(row['orphans']):>7} {len(row['torn']):>4}"
        print(f"{len(rows):>2} {row['signal']:<8} {counts}  {when} {row['file']}{fine}", flush=True)
    finish(arguments, killed, options.crew)
    different = differs(killed, undisturbed)
    bad = sum(not row["good"] for row in rows)
    work = {"crew": options.crew, "threads": options.threads}
    facts = {**work, "kills": rows, "bad": bad, "compared": len(made(undisturbed)), "differs": different}
    (options.out / "kills.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows)} kills, {bad} not as they should be; of {facts['compared']} outputs {len(different)} differ")
    return int(bool(bad or different))


if __name__ == "__main__":
    sys.exit(_main())
