"""A run's folder: one lock, stages with manifests, and nothing overwritten silently."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml

from saadi.config import RunConfig
from saadi.configfile import differences, dump_config
from saadi.errors import BadInput
from saadi.files import SCRATCH, digest, file_digest, versions
from saadi.records import write_atomic
from saadi.runtime import peak_memory
from saadi.team import ALONE, Team
from saadi.training import Progress
from saadi.workers import Crew

MANIFEST = "manifest.json"
UNFINISHED = ".unfinished"
"""In the folder of a stage that is not done: what it is being made from, and the seconds spent on it so far."""

Begin = Callable[[str], Progress]
"""Called with a stage's name when it starts; gives where to report progress to."""


def silent(_: str) -> Progress:
    """Progress that nobody watches."""
    return lambda done, total: None


class Run:
    """An open run folder. Use as a context manager: it holds the folder's lock, or a process of its team does.

    Raises `BadInput` when another process holds the lock, when the folder belongs to a run of another configuration, or
    when a finished stage's files were changed behind its back.
    """

    def __init__(
        self, folder: Path, config: RunConfig, *, begin: Begin = silent, redo: Sequence[str] = (), team: Team = ALONE
    ) -> None:
        self.folder, self.config, self.team, self.begin = folder, config, team, begin if team.leads else silent
        self._redo, self._may_redo = set(redo), bool(redo)
        self._digests: dict[str, str] = {}
        self.finished: Callable[[str, Path], None] = lambda name, folder: None
        """Called when a stage was made, not when it was found done."""

    def __enter__(self) -> Run:
        if self.team.leads:
            self._open()
        self.team.wait()
        self.crew = Crew(self.folder, self.config, self.team)
        return self

    def _open(self) -> None:
        try:
            self._made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise BadInput(
                f"{self.folder}: cannot be written: {error.strerror}; choose another folder with --out"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise BadInput(
                f"{self.folder}: another saadi is running in this folder; wait for it or choose another --out"
            ) from None
        self._fresh = not (self.folder / "config.yaml").exists()
        try:
            self._check_config()
        except BaseException:
            if self._fresh:  # not a run, and not to become one
                (self.folder / ".lock").unlink()
                if self._made:
                    self.folder.rmdir()
            os.close(self._lock)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.crew.leave()
        if not self.team.leads:
            return
        try:
            if self._fresh and isinstance(error, BadInput) and not self.manifests():
                self._clear()  # no stage was done: the mended config must not meet this one's remains
        finally:
            os.close(self._lock)

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if self._made:
            self.folder.rmdir()

    def _check_config(self) -> None:
        path, new = self.folder / "config.yaml", self.config.model_dump(mode="json")
        stages = {str(file.parent.relative_to(self.folder)) for file in self._marks()}
        if unknown := sorted(self._redo - stages):
            there = ", ".join(sorted(stages)) or "none yet"
            raise BadInput(f"--redo {unknown[0]}: no such stage in {self.folder}; there are: {there}")
        if path.exists():
            old = yaml.safe_load(path.read_text(encoding="utf-8"))
            changed = differences(old, new) if isinstance(old, dict) else ["all of it"]
            if changed and not self._may_redo:
                raise BadInput(
                    f"{self.folder}: was begun with another configuration: {'; '.join(changed[:3])}; "
                    "use a new --out, or --redo STAGE to make that stage and what follows anew"
                )
        elif any(entry.name != ".lock" for entry in self.folder.iterdir()):
            raise BadInput(f"{self.folder}: is not empty and not a run of saadi; choose another --out")
        write_atomic(path, dump_config(self.config))

    def path(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.folder / stage

    def is_done(self, name: str, *, settings: Any = None, inputs: Sequence[str] = ()) -> bool:
        """Whether `stage` would find nothing left to do; it may still find the files changed."""
        return self.team.agreed(self.team.leads and self._is_done(name, settings, inputs))

    def _is_done(self, name: str, settings: Any, inputs: Sequence[str]) -> bool:
        path = self.path(name) / MANIFEST
        if name in self._redo or not path.exists():
            return False
        return bool(json.loads(path.read_text(encoding="utf-8"))["key"] == self._key(settings, inputs))

    def _key(self, settings: Any, inputs: Sequence[str]) -> dict[str, Any]:
        return {"settings": digest(settings), "inputs": {other: self._digests[other] for other in inputs}}

    def stage(
        self,
        name: str,
        make: Callable[[Path, Progress], None],
        *,
        settings: Any = None,
        inputs: Sequence[str] = (),
        progress: Progress | None = None,
        together: bool = False,
    ) -> Path:
        """Do a stage unless it is done: `make(folder, progress)` fills its folder, then the manifest is written, last.

        The team's leader does it, or, `together`, all do: then only the leader may write what is not a job of the crew.

        A stage is done when its manifest names the same `settings` and the same outputs of its `inputs` (stage names).
        An unfinished stage keeps its files, so that `make` can resume from them, as long as its key stays the same.
        `progress` is the stage's own unless given.
        """
        folder, key = self.path(name), self._key(settings, inputs)
        if not self.team.leads:
            return self._follow(name, folder, make, together=together)
        spent = self._spent(name, folder, key)
        if not self.team.agreed(spent is not None):
            return folder
        assert spent is not None
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / UNFINISHED, json.dumps({"key": key, "seconds": spent}))
        begun = time.monotonic()
        self.team.wait()
        try:
            make(folder, progress or self.begin(name))
            self.team.wait()
        finally:
            spent += time.monotonic() - begun
            write_atomic(folder / UNFINISHED, json.dumps({"key": key, "seconds": spent}))
        self._finish(name, folder, key, spent)
        self.team.wait()
        return folder

    def _follow(self, name: str, folder: Path, make: Callable[[Path, Progress], None], *, together: bool) -> Path:
        """A stage as the leader's followers have it."""
        if self.team.agreed(False):
            self.team.wait()
            if together:
                make(folder, silent(name))
            self.team.wait()
            self.team.wait()
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self._digests[name] = digest(manifest["outputs"])
        return folder

    def _spent(self, name: str, folder: Path, key: Mapping[str, Any]) -> float | None:
        """The seconds already spent on a stage that is to be done; None where it is done."""
        manifest_path = folder / MANIFEST
        asked = name in self._redo
        self._redo.discard(name)
        if manifest_path.exists() and not asked:
            manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
            if manifest["key"] == key:
                self._verify(name, folder, manifest["outputs"])
                self._digests[name] = digest(manifest["outputs"])
                return None
            if not self._may_redo:
                raise BadInput(f"{folder}: was made from other inputs; --redo {name} makes it anew, with what follows")
        spent = self._unfinished(folder, key)
        if spent is None or asked:
            self._forget(name)
            spent = 0.0
        return spent

    def _finish(self, name: str, folder: Path, key: Mapping[str, Any], spent: float) -> None:
        """Write a stage's manifest."""
        # Left by a kill in the midst of writing, by us and by safetensors.
        for half in (*folder.rglob("*.partial"), *folder.rglob(".tmp*")):
            half.unlink()
        shutil.rmtree(folder / SCRATCH, ignore_errors=True)
        outputs = {
            str(path.relative_to(folder)): file_digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != UNFINISHED
        }
        (folder / UNFINISHED).unlink()
        manifest = {
            "key": key,
            "outputs": outputs,
            "seed": self.config.seed,
            "seconds": round(spent, 2),
            "peak_memory": peak_memory() + self.crew.peak_memory,
            "threads": torch.get_num_threads(),
            "processes": self.team.size,
            "versions": versions(),
        }
        write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))
        self._digests[name] = digest(outputs)
        self.finished(name, folder)

    @staticmethod
    def _unfinished(folder: Path, key: Mapping[str, Any]) -> float | None:
        """The seconds spent on an unfinished stage of this key; None where there is none."""
        try:
            state = json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return float(state["seconds"]) if state["key"] == key else None

    def _forget(self, name: str) -> None:
        """Remove a stage and all that was made from it, so that a kill in the midst leaves nothing that contradicts."""
        retire_results(self.folder)
        folder = self.path(name)
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        for other, manifest in self.manifests().items():
            if name in manifest["key"]["inputs"] and (self.path(other) / MANIFEST).exists():
                self._forget(other)

    def _marks(self) -> list[Path]:
        """The files that mark a folder as a stage, finished or not."""
        return [*self.folder.rglob(MANIFEST), *self.folder.rglob(UNFINISHED)]

    def _verify(self, name: str, folder: Path, outputs: Mapping[str, str]) -> None:
        for file, expected in outputs.items():
            path = folder / file
            if not path.is_file():
                raise BadInput(f"{path}: is missing, though stage {name} was finished; --redo {name} makes it anew")
            if file_digest(path) != expected:
                raise BadInput(f"{path}: was changed after stage {name} wrote it; --redo {name} makes it anew")

    def manifests(self) -> dict[str, dict[str, Any]]:
        """The manifests of all finished stages, by name, in the order they were finished."""
        return read_manifests(self.folder)


def retire_results(folder: Path) -> None:
    """Take away a run's results and page, which are true of the stages they were made from only.

    What was read on `test` is never lost: final results, and the predictions behind them, are kept under other names.
    """
    for told in ("report.html", "model-card.md"):
        (folder / told).unlink(missing_ok=True)
    results, predictions = folder / "results.json", folder / "evaluation" / "predictions-test.npz"
    if not results.is_file():
        return
    if not json.loads(results.read_text(encoding="utf-8")).get("final"):
        results.unlink()
        return
    number = len(list(folder.glob("results-final-*.json"))) + 1
    if predictions.is_file():
        predictions.replace(predictions.with_name(f"predictions-final-{number}.npz"))
    results.replace(folder / f"results-final-{number}.json")  # last: a kill before it is made good


def read_manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifests under a run's folder, by stage name, oldest first."""
    paths = sorted(folder.rglob(MANIFEST), key=lambda path: path.stat().st_mtime_ns)
    return {str(path.parent.relative_to(folder)): json.loads(path.read_text(encoding="utf-8")) for path in paths}
