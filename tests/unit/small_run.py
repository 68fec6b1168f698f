"""A run of three stages, each made from the one before, which writes a line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from saadi.config import RunConfig
from saadi.errors import Interrupted
from saadi.store import Run
from saadi.training import Progress

CONFIG = RunConfig()
Make = Callable[[Path, Progress], None]


def writes(text: str, calls: list[str] | None = None) -> Make:
    """Writes `text` as a stage's one file, and notes it in `calls`."""

    def make(folder: Path, progress: Progress) -> None:
        if calls is not None:
            calls.append(text)
        (folder / "out.txt").write_text(text, encoding="utf-8")

    return make


def chain(folder: Path, calls: list[str], *redo: str, settings: int = 0, fail: str = "") -> None:
    """Three stages, each made from the one before; `fail` is interrupted after it wrote."""
    with Run(folder, CONFIG, redo=redo) as run:
        for name, inputs in (("a", []), ("b", ["a"]), ("c/d", ["b"])):

            def make(at: Path, progress: Progress, name: str = name) -> None:
                writes(name, calls)(at, progress)
                if name == fail:
                    raise Interrupted

            run.stage(name, make, settings=settings if name == "b" else None, inputs=inputs)
