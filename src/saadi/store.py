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

from saadi.config import RunConfig
from saadi.configfile import dump_config
from saadi.errors import BadInput, Diverged
from saadi.files import UNFINISHED, digest, versions
from saadi.manifests import (
    MANIFEST,
    REDO,
    check_folder,
    hash_outputs,
    inputs_of,
    is_whole,
    read_manifest,
    read_redo,
    retire_results,
    sweep,
    verify,
)
from saadi.records import write_atomic
from saadi.runtime import peak_memory
from saadi.team import ALONE, Team
from saadi.training import Progress
from saadi.workers import Crew

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
        self._redo, self._asked, self._may_redo = set(redo), set(redo), bool(redo)
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
            self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            why = f"cannot be written: {error.strerror}"
            raise BadInput(f"{self.folder}: {why}; choose another folder with --out") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            advice = "wait for it or choose another --out"
            raise BadInput(f"{self.folder}: another saadi is running in this folder; {advice}") from None
        except OSError as error:
            os.close(self._lock)
            why = f"its file system keeps no locks ({error.strerror})"
            raise BadInput(f"{self.folder}: {why}; choose another place with --out") from None
        self._fresh = not (self.folder / "config.yaml").exists()
        try:
            check_folder(self.folder, self.config, sorted(self._asked))
            self._recall_redo()
            write_atomic(self.folder / "config.yaml", dump_config(self.config))
        except BaseException:
            if self._fresh:  # not a run, and not to become one
                (self.folder / ".lock").unlink()
                self._unmake()
            os.close(self._lock)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.crew.leave()
            if self.team.leads and self._fresh and isinstance(error, BadInput) and not inputs_of(self.folder):
                self._clear()  # no stage was done: the mended config must not meet this one's remains
            if self.team.leads and kind is None:
                (self.folder / REDO).unlink(missing_ok=True)
        finally:
            if self.team.leads:
                os.close(self._lock)

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self._unmake()

    def _unmake(self) -> None:
        for path in self._made:
            if not any(path.iterdir()):
                path.rmdir()

    def _recall_redo(self) -> None:
        """A redo that was stopped goes on, with `--redo` or without: what it has begun anew is not begun again."""
        known, left = read_redo(self.folder)
        spoilt = {name for name in self._asked & known if not is_whole(name, self.path(name))}  # since it was made anew
        self._redo = left | spoilt | (self._asked - known)
        self._asked |= known
        self._may_redo = bool(self._asked)
        if self._asked:
            self._note_redo()

    def _note_redo(self) -> None:
        facts = {"asked": sorted(self._asked), "left": sorted(self._redo)}
        write_atomic(self.folder / REDO, json.dumps(facts))

    def path(self, stage: str) -> Path:
        """The folder of a stage."""
        return self.folder / stage

    def is_done(self, name: str, *, settings: Any = None, inputs: Sequence[str] = ()) -> bool:
        """Whether `stage` would find nothing left to do; it may still find the files changed."""
        return self.team.agreed(self.team.leads and self._is_done(name, settings, inputs))

    def _is_done(self, name: str, settings: Any, inputs: Sequence[str]) -> bool:
        path, key = self.path(name) / MANIFEST, self._key(settings, inputs)
        return name not in self._redo and path.exists() and bool(read_manifest(path, name)["key"] == key)

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
        except Diverged as error:
            if name in self._asked:  # what it has leads nowhere: to ask for it again is to begin it again
                self._redo.add(name)
                self._note_redo()
            raise BadInput(f"{error}, and give --redo {name}") from None
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
        self._digests[name] = digest(read_manifest(folder / MANIFEST, name)["outputs"])
        return folder

    def _spent(self, name: str, folder: Path, key: Mapping[str, Any]) -> float | None:
        """The seconds already spent on a stage that is to be done; None where it is done."""
        manifest_path = folder / MANIFEST
        asked = name in self._redo
        if manifest_path.exists() and not asked:
            manifest = read_manifest(manifest_path, name)
            if manifest["key"] == key:
                verify(name, folder, manifest["outputs"])
                sweep(folder)
                self._digests[name] = digest(manifest["outputs"])
                return None
            if not self._may_redo:
                raise BadInput(f"{folder}: was made from other inputs; --redo {name} makes it anew, with what follows")
        spent = self._unfinished(folder, key)
        if spent is None and not self._may_redo and not manifest_path.exists() and (heirs := self._made_from(name)):
            raise BadInput(
                f"{manifest_path}: is missing, though {heirs[0]} was made from this stage; "
                f"--redo {name} makes it anew, with what follows"
            )
        if spent is not None and not asked:
            return spent
        self._forget(name)
        if asked:
            self._redo.discard(name)
            self._note_redo()
        return 0.0

    def _finish(self, name: str, folder: Path, key: Mapping[str, Any], spent: float) -> None:
        """Write a stage's manifest."""
        outputs = hash_outputs(folder)
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
        sweep(folder)
        self._digests[name] = digest(outputs)
        self.finished(name, folder)

    @staticmethod
    def _unfinished(folder: Path, key: Mapping[str, Any]) -> float | None:
        """The seconds spent on an unfinished stage of this key; None where there is none."""
        try:
            state = json.loads((folder / UNFINISHED).read_text(encoding="utf-8"))
            return float(state["seconds"]) if state["key"] == key else None
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _forget(self, name: str) -> None:
        """Remove a stage and, before it, all that was made from it: a kill leaves none without its source."""
        retire_results(self.folder)
        for other in self._made_from(name):
            if (self.path(other) / MANIFEST).exists():
                self._forget(other)
        folder = self.path(name)
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)

    def _made_from(self, name: str) -> list[str]:
        """The finished stages that a stage is an input of."""
        return [other for other, inputs in inputs_of(self.folder).items() if name in inputs]
