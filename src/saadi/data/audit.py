"""What is wrong with a data set, all of it, before long work starts (`saadi check CONFIG`).

Errors make a run refuse the data, or its numbers worthless (an image in train and test); a person judges warnings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saadi.config import DataConfig
from saadi.data.images import file_digest, open_rgb, summarise
from saadi.data.load import WORKERS, data_folder, duplicates, scan_source, training_problems
from saadi.data.phantom import LEAST, phantom_frames
from saadi.data.table import label_space
from saadi.errors import BadInput
from saadi.records import SPLITS, Frame

THUMB = 16
NEAR = 0.97
"""Images whose grey thumbnails correlate by this or more are near-duplicates. On two real sets, copies made smaller and
compressed anew correlated by 0.996 and more, images of different splits by at most 0.92."""

ASPECT = 2.0
"""Classes whose median aspect ratios differ by more than this factor can be told apart by the shape of the crop."""

SHOWN = 20


@dataclass(frozen=True)
class Audit:
    """`classes` and `groups`: images by class or group, then by split. `errors` and `warnings`: one line each."""

    classes: dict[str, dict[str, int]]
    groups: dict[str, dict[str, int]]
    notes: list[str]
    errors: list[str]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """All of it as values that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class _Facts:
    """One readable file: SHA-256 of its bytes, width over height, grey thumbnail [THUMB * THUMB], conversion note."""

    digest: str
    aspect: float
    thumb: NDArray[np.float32]
    note: str | None


def _facts(path: Path) -> _Facts | str:
    """The facts of a file, or why it cannot be read."""
    try:
        image, note = open_rgb(path)
    except BadInput as error:
        return str(error)
    # The whole image, not its square: black bars of equal crops would make different images alike.
    grey = image.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    return _Facts(file_digest(path), image.width / image.height, np.asarray(grey, np.float32).ravel(), note)


def normalise(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows [N, D] with mean 0 and length 1, so that products are correlations; flat rows become 0."""
    centred = thumbs - thumbs.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = length < np.sqrt(thumbs.shape[1])  # a standard deviation below one grey level
    return np.where(flat, 0, centred / np.where(flat, 1, length)).astype(np.float32)


def nearest(
    a: NDArray[np.float32], b: NDArray[np.float32], chunk: int = 1024
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each row of `a` [N, D] the row of `b` [M, D], M >= 1, with the largest product, and that product [N]."""
    index = np.empty(len(a), np.int64)
    value = np.empty(len(a), np.float32)
    for start in range(0, len(a), chunk):
        products = a[start : start + chunk] @ b.T
        index[start : start + chunk] = products.argmax(1)
        value[start : start + chunk] = products.max(1)
    return index, value


def _tally(frames: Sequence[Frame], field: str) -> dict[str, dict[str, int]]:
    counts = Counter((getattr(frame, field), frame.split) for frame in frames)
    return {key: {split: counts[key, split] for split in SPLITS} for key in sorted({key for key, _ in counts})}


def _missing(frames: Sequence[Frame]) -> Iterator[str]:
    """Classes without images in val or test, where these have any."""
    for split in ("val", "test"):
        held = {frame.label for frame in frames if frame.split == split}
        for name in label_space(frames).names if held else ():
            if name not in held:
                yield f"class {name} has no images in {split}: nothing can be said about it there"


def _near(frames: Sequence[Frame], facts: Sequence[_Facts]) -> Iterator[str]:
    """Near-duplicates across splits, one line a pair of splits; exact ones are `duplicates`'s to report."""
    thumbs = normalise(np.stack([fact.thumb for fact in facts]))
    rows = {split: [row for row, frame in enumerate(frames) if frame.split == split] for split in SPLITS}
    for early, late in combinations(SPLITS, 2):
        if not rows[early] or not rows[late]:
            continue
        index, value = nearest(thumbs[rows[late]], thumbs[rows[early]])
        pairs = [
            (float(alike), frames[late_row], frames[early_row])
            for alike, late_row, early_row in zip(value, rows[late], (rows[early][i] for i in index), strict=True)
            if alike >= NEAR and facts[late_row].digest != facts[early_row].digest
        ]
        if pairs:
            best = sorted(pairs, key=lambda pair: -pair[0])[:3]
            shown = "; ".join(f"{a.file} and {b.file} ({alike:.3f})" for alike, a, b in best)
            yield f"{len(pairs)} images of {late} have a near-copy in {early}: {shown}"


def _shapes(frames: Sequence[Frame], facts: Sequence[_Facts]) -> Iterator[str]:
    """The classes whose median aspect ratios lie farthest apart, if that is far."""
    by_class: dict[str, list[float]] = {}
    for frame, fact in zip(frames, facts, strict=True):
        by_class.setdefault(frame.label, []).append(fact.aspect)
    medians = {name: float(np.median(aspects)) for name, aspects in by_class.items()}
    low, high = min(medians, key=lambda name: medians[name]), max(medians, key=lambda name: medians[name])
    if medians[high] > ASPECT * medians[low]:
        yield (
            f"the shape of the crop tells classes apart: median width/height is {medians[low]:.2f} for {low} and "
            f"{medians[high]:.2f} for {high}; a model may learn the black bars (data.square: crop takes them away)"
        )


def _audit_phantom(config: DataConfig, seed: int) -> Audit:
    try:
        frames = phantom_frames(config.phantom, seed)
    except BadInput as error:
        return Audit({}, {}, [], [str(error)], [])
    problems = training_problems(frames, "data.phantom", LEAST)
    notes = ["the phantom is rendered, not read"]
    return Audit(_tally(frames, "label"), _tally(frames, "group"), notes, problems, list(_missing(frames)))


def audit(config: DataConfig, seed: int) -> Audit:
    """List all problems of a data source, opening every image once.

    Errors: all that `load_dataset` refuses, and images with the same bytes in two splits. Warnings: the same bytes
    within a split, near-duplicates across splits, classes missing from val or test, crops whose shape tells the class.
    """
    if config.source == "phantom":
        return _audit_phantom(config, seed)
    try:
        folder = data_folder(config)
        scan = scan_source(config, seed)
    except BadInput as error:
        return Audit({}, {}, [], [str(error)], [])
    errors, warnings = list(scan.problems), list(_missing(scan.frames))
    if scan.frames:
        errors += training_problems(scan.frames, str(folder))
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(lambda frame: _facts(folder / frame.file), scan.frames))
    errors += [result for result in results if isinstance(result, str)]
    read = [(frame, result) for frame, result in zip(scan.frames, results, strict=True) if isinstance(result, _Facts)]
    frames, facts = [frame for frame, _ in read], [fact for _, fact in read]
    if frames:
        across, within = duplicates(frames, [fact.digest for fact in facts])
        errors += across
        warnings += [*within, *_near(frames, facts), *_shapes(frames, facts)]
    notes = [*scan.notes, *summarise(fact.note for fact in facts)]
    return Audit(_tally(scan.frames, "label"), _tally(scan.frames, "group"), notes, errors, warnings)


def _table(title: str, rows: dict[str, dict[str, int]]) -> list[str]:
    width = max(len(title), *(len(name) for name in rows))
    head = f"{title:<{width}}" + "".join(f"{split:>8}" for split in SPLITS)
    return [head, *(f"{name:<{width}}" + "".join(f"{n[split]:>8}" for split in SPLITS) for name, n in rows.items())]


def render_audit(audit: Audit) -> str:
    """The audit as plain text: tables by class and group, then notes, warnings, errors: the first `SHOWN` of each."""
    lines: list[str] = []
    for title, rows in (("class", audit.classes), ("group", audit.groups)):
        if rows:
            lines += [*_table(title, rows), ""]
    for title, entries in (("note", audit.notes), ("warning", audit.warnings), ("error", audit.errors)):
        lines += [f"{title}: {entry}" for entry in entries[:SHOWN]]
        if len(entries) > SHOWN:
            lines.append(f"{title}: ... and {len(entries) - SHOWN} more")
    return "\n".join([*lines, f"{len(audit.errors)} errors, {len(audit.warnings)} warnings"])
