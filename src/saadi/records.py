"""What flows through the stages: small frozen records, kept on disk as JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from saadi.errors import BadInput

Task = Literal["classification", "segmentation", "presence"]
"""What the downstream model says of an image: its one class, the class of each pixel, or which classes it shows."""

IGNORE = 255
"""In masks: nothing is known of this pixel. It teaches nothing and is not judged."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a task, in the order of their ids. `background`: names[0] is what belongs to no class."""

    names: tuple[str, ...]
    background: bool = False

    @property
    def asked(self) -> tuple[str, ...]:
        """The classes that a sample may be asked to show: all but the background."""
        return self.names[1:] if self.background else self.names

    @property
    def asked_ids(self) -> list[int]:
        """Their ids."""
        return list(range(int(self.background), len(self.names)))

    def id(self, name: str) -> int:
        return self.names.index(name)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Frame:
    """One real image. `file` and `mask` are relative to the data folder; `group` is the patient or video, never split
    across. `labels`: the classes it shows, in the order of their ids; of classification exactly one."""

    file: str
    labels: tuple[str, ...]
    group: str
    split: Split
    mask: str | None = None

    @property
    def label(self) -> str:
        """The class of an image that has one. Raises `ValueError` for an image that shows none or several."""
        (label,) = self.labels
        return label


@dataclass(frozen=True)
class Condition:
    """What a sample is asked to show: `labels`, the one it is drawn for first.

    For inpainting also where: row `frame` of the training images is painted on, with the object of row `donor`'s mask,
    which is `frame` itself where its own object is painted anew. The layout is drawn from the `id`. For text to image
    that does not start from noise alone: from row `start` of the training images.
    """

    id: str
    labels: tuple[str, ...]
    frame: int | None = None
    donor: int | None = None
    start: int | None = None

    @property
    def place(self) -> tuple[int, int]:
        """The rows of frame and donor. Raises `ValueError` for a condition of text to image."""
        if self.frame is None or self.donor is None:
            raise ValueError(f"condition {self.id} has no frame to paint on")
        return self.frame, self.donor

    @classmethod
    def of(cls, label: str) -> Condition:
        """One class, and nothing else: text to image."""
        return cls(label, (label,))

    @property
    def label(self) -> str:
        """The class it is drawn for."""
        return self.labels[0]


@dataclass(frozen=True)
class Sample:
    """One synthetic image. `file` is relative to the run's folder; `round` 0 is the unaligned base.

    `mask`: the file of the id map it was asked to show, for inpainting.
    """

    id: str
    condition: Condition
    round: int
    seed: int
    file: str
    mask: str | None = None

    @property
    def label(self) -> str:
        """The class it was drawn for."""
        return self.condition.label


@dataclass(frozen=True)
class Score:
    """A critic's judgement of a sample. Higher `value` is better; `right`: the critic sees the intended label first.

    `parts`: what the value was made of, by name (probabilities, distances), for the page and for other criteria.
    """

    sample: str
    criterion: str
    value: float
    right: bool
    parts: dict[str, float]


@dataclass(frozen=True)
class Pair:
    """A preference within one condition: sample ids, and by how much the winner's score exceeds the loser's."""

    winner: str
    loser: str
    label: str
    margin: float


Record = TypeVar("Record", Frame, Condition, Sample, Score, Pair)
OfClass = TypeVar("OfClass", Frame, Sample, Pair)
"""A record that carries a label."""


def write_atomic(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the whole new one, never half."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises `BadInput` where there is something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON ({error}); delete it and run the same command again") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path}: expected a JSON object; delete it and run the same command again")
    return values


def write_records(path: Path, records: Iterable[Any]) -> None:
    """Write records as JSON Lines, atomically."""
    write_atomic(path, "".join(json.dumps(asdict(record)) + "\n" for record in records))


def to_record(values: dict[str, Any], kind: type[Record]) -> Record:
    """A record from what `dataclasses.asdict` and JSON made of it. Raises `TypeError` where the fields are others."""
    fitting: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    if isinstance(values.get("condition"), dict):
        fitting["condition"] = to_record(values["condition"], Condition)
    return kind(**fitting)


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """Read records of one kind from JSON Lines; lists come back as the tuples they were."""
    with path.open(encoding="utf-8") as lines:
        return [to_record(json.loads(line), kind) for line in lines]


def spread(count: int, most: int = 6) -> list[int]:
    """Up to `most` places spread evenly over a list of what is shown: nobody picks by eye, many patients are seen."""
    steps = min(count, most)
    return [round(k * (count - 1) / max(1, steps - 1)) for k in range(steps)]


def by_condition(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples grouped by what they were asked to show, in order of appearance."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.condition.id, []).append(sample)
    return groups


def by_label(records: Sequence[OfClass]) -> dict[str, list[OfClass]]:
    """Records grouped by their label, in order of appearance."""
    groups: dict[str, list[OfClass]] = {}
    for record in records:
        groups.setdefault(record.label, []).append(record)
    return groups
