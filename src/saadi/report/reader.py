"""A run's folder, read for the page: as much as there is, and nothing else of the disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from saadi.errors import BadInput
from saadi.records import Frame, Pair, Record, Sample, Score, read_json, to_record
from saadi.report.wording import last_round

Pixels = NDArray[np.uint8]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Round:
    """One round of judging, pairing and aligning, as far as it has got."""

    number: int
    samples: tuple[Sample, ...]
    scores: Mapping[str, Score]
    pairs: tuple[Pair, ...]
    summary: Mapping[str, Mapping[str, int]]
    log: tuple[Row, ...]
    stop: Row


@dataclass(frozen=True)
class Run:
    """What a page can be made of. Empty means that the stage has not been reached.

    `images` [N, S, S, 3] uint8; `masks` [N, S, S], of segmentation alone. `names`: all classes by their ids; `classes`:
    those that are asked for. `led`: whether the critic leads what is drawn of an aligned model; `pick`: what is used of
    it, empty if all is. `edits`: whether images start from training images.
    """

    folder: Path
    config: str
    task: str
    led: bool
    pick: str
    edits: bool
    planned: int
    results: Row
    names: tuple[str, ...]
    classes: tuple[str, ...]
    frames: tuple[Frame, ...]
    images: Pixels
    masks: Pixels | None
    rounds: tuple[Round, ...]
    sets: Mapping[str, tuple[Sample, ...]]
    base_log: tuple[Row, ...]
    neighbours: Mapping[str, Sequence[Row]]

    @property
    def counts(self) -> dict[str, int]:
        """Training images that show a class."""
        return {c: sum(c in f.labels and f.split == "train" for f in self.frames) for c in self.classes}

    def real(self, index: object) -> Pixels | None:
        """A real image [S, S, 3] by its row; None if there is no such row."""
        if not isinstance(index, int) or not 0 <= index < len(self.images):
            return None
        return np.asarray(self.images[index])

    def mask(self, index: int) -> Pixels | None:
        """The ids [S, S] of a real image by its row."""
        return None if self.masks is None or not 0 <= index < len(self.masks) else np.asarray(self.masks[index])

    def judged(self, arm: str, sample: Sample) -> Pixels | None:
        """The ids [S, S] that the judge sees in a sample of an arm's set, of those that are shown."""
        return self.picture(f"evaluation/images/seen/{arm}/{sample.id}.png", "L")

    def picture(self, file: object, mode: str = "RGB") -> Pixels | None:
        """An image of the run's folder [h, w, 3], or [h, w] in `mode` L; None if missing, unreadable or outside it."""
        path = (self.folder / str(file)).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            return None
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert(mode))
        except (OSError, ValueError, Image.DecompressionBombError):
            return None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _rows(path: Path) -> tuple[dict[str, Any], ...]:
    """JSON Lines. The last line of a log that is being written may be half a line, and is then left out."""
    lines = [line for line in _text(path).split("\n") if line.strip()]
    rows = []
    for k, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if k < len(lines) - 1:
                raise BadInput(f"{path}: line {k + 1} is not valid JSON; run that stage anew") from None
    return tuple(rows)


def _records(path: Path, kind: type[Record]) -> tuple[Record, ...]:
    try:
        return tuple(to_record(row, kind) for row in _rows(path))
    except TypeError as error:
        raise BadInput(f"{path}: not a list of {kind.__name__} records ({error}); run that stage anew") from None


def _round(folder: Path, number: int) -> Round:
    at = folder / f"round-{number}"
    return Round(
        number=number,
        samples=_records(at / "samples/samples.jsonl", Sample),
        scores={score.sample: score for score in _records(at / "scores/scores.jsonl", Score)},
        pairs=_records(at / "pairs/pairs.jsonl", Pair),
        summary=read_json(at / "pairs/summary.json"),
        log=_rows(at / "adapter/log.jsonl"),
        stop=read_json(at / "adapter/summary.json"),
    )


def _sets(folder: Path) -> dict[str, tuple[Sample, ...]]:
    """The arms' sets by name, and `unpicked`, as `evaluation.sets.unpicked` takes it, where the critic picked."""
    sets = {at.parent.name: _records(at, Sample) for at in sorted(folder.glob("*/samples.jsonl"))}
    if last := last_round(sets):
        drawn = _records(folder / last / "drawn.jsonl", Sample)
        if len(drawn) > len(sets[last]):
            sets["unpicked"] = drawn[: len(sets[last])]
    return sets


def _images(path: Path, channels: tuple[int, ...] = (3,)) -> Pixels:
    if not path.is_file():
        return np.zeros((0, 1, 1, *channels), np.uint8)
    try:
        images: Pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise BadInput(f"{path}: not an array of images ({error}); run the data stage anew") from None
    if images.ndim != 3 + len(channels) or images.shape[3:] != channels or images.dtype != np.uint8:
        wanted, found = f"[N, S, S{''.join(f', {c}' for c in channels)}]", f"{images.dtype} {images.shape}"
        raise BadInput(f"{path}: expected uint8 {wanted}, found {found}; run the data stage anew")
    return images


def read_run(folder: Path) -> Run:
    """Read a run's folder. Later stages may be missing. Raises `BadInput` where there is no run or a file is broken."""
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder}: not a run's folder (it has no config.yaml); give the folder that `saadi run` wrote")
    config = _text(folder / "config.yaml")
    try:
        values = yaml.safe_load(config)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise BadInput(f"{folder / 'config.yaml'}: not valid YAML; the same `saadi run` tells what to do") from None
    values = values if isinstance(values, dict) else {}
    planned, results = values.get("rounds"), read_json(folder / "results.json")
    sampling, evaluation = (
        one if isinstance(one := values.get(name), dict) else {} for name in ("sampling", "evaluation")
    )
    found = (re.fullmatch(r"round-(\d+)", path.name) for path in folder.iterdir())
    space = read_json(folder / "data/space.json")
    rounds = tuple(_round(folder, k) for k in sorted(int(match[1]) for match in found if match))
    return Run(
        folder=folder,
        config=config,
        task=str(values.get("task", "classification")),
        led=bool(sampling.get("lead")),
        pick="" if evaluation.get("drawn") in (None, 1) else str(evaluation.get("pick", "")),
        edits=sampling.get("strength", 1) != 1,
        planned=planned if isinstance(planned, int) and not results else len(rounds),
        results=results,
        names=tuple(space.get("names", ())),
        classes=tuple(space.get("names", ()))[bool(space.get("background")) :],
        frames=_records(folder / "data/frames.jsonl", Frame),
        images=_images(folder / "data/images.npy"),
        masks=_images(folder / "data/masks.npy", ()) if (folder / "data/masks.npy").is_file() else None,
        rounds=rounds,
        sets=_sets(folder / "evaluation/sets"),
        base_log=_rows(folder / "base/log.jsonl"),
        neighbours=read_json(folder / "evaluation/images/neighbours.json"),
    )
