"""What is wrong with a data set, all of it, before long work starts (`saadi check CONFIG`).

Errors make a run refuse the data, or its numbers worthless (an image in train and test); a person judges warnings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saadi.data.audit_masks import MaskFacts, mask_facts, mask_warnings, pixel_shares
from saadi.data.images import cut, identity, open_rgb, summarise
from saadi.data.load import data_folder, list_frames, scan_source
from saadi.data.rules import class_warnings, duplicates, training_problems
from saadi.data.sets.leaks import leak_warnings
from saadi.data.sets.scan import WORKERS
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import SPLITS, Frame, Task

THUMB = 16
NEAR = 0.97
"""Images whose grey thumbnails correlate by this or more are near-duplicates. On two real sets, copies made smaller and
compressed anew correlated by 0.996 and more, images of different splits by at most 0.92."""

ASPECT = 2.0
"""Classes whose median aspect ratios differ by more than this factor can be told apart by the shape of the crop."""

DIM = 0.1
"""Images that use less than this share of the range, 0 to 255, show next to nothing. Of 660 images of three real sets
all used 0.43 and more, by the widest of the three colours and without the darkest and brightest half per cent."""

SHOWN = 20


@dataclass(frozen=True)
class Audit:
    """`classes` and `groups`: images by class they show, or group, then by split; `pixels`: shares of the pixels that
    are not ignored, 0 .. 1, by class, background included, and split. `errors` and `warnings`: one line each.
    `counted`: no error hides classes, groups or splits, so that what follows from their counts is true."""

    classes: dict[str, dict[str, int]]
    groups: dict[str, dict[str, int]]
    notes: list[str]
    errors: list[str]
    warnings: list[str]
    pixels: dict[str, dict[str, float]] = field(default_factory=dict)
    counted: bool = True

    def to_json(self) -> dict[str, Any]:
        """All of it as values that `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True)
class _Facts:
    """One readable file: what its copies share, width over height, grey thumbnail [THUMB * THUMB], the share of the
    range that it uses, 0 .. 1, conversion note."""

    digest: str
    aspect: float
    thumb: NDArray[np.float32]
    used: float
    note: str | None


def _facts(path: Path, image: Image.Image, note: str | None) -> _Facts:
    # The whole image, not its square: black bars of equal crops would make different images alike.
    grey = image.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    thumb, aspect = np.asarray(grey, np.float32).ravel(), image.width / image.height
    return _Facts(identity(path, image), aspect, thumb, _range(image), note)


def _range(image: Image.Image) -> float:
    """The share of the range 0 to 255 that an image uses. Not of its thumbnail: averages of a fine texture are alike;
    and but for the outermost half per cent at either end: a few hot pixels do not make a black image show something."""
    below = np.array(image.histogram()).reshape(-1, 256).cumsum(1) / (image.width * image.height)
    return float(((below > 0.005) & (below < 0.995)).sum(1).max()) / 255


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


def _tally(keys: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """How often each (name, split) occurs, by name."""
    counts = Counter(keys)
    return {key: {split: counts[key, split] for split in SPLITS} for key in sorted({key for key, _ in counts})}


def _tallies(frames: Sequence[Frame]) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """Images by class they show and by group, then by split."""
    classes = _tally((label, frame.split) for frame in frames for label in frame.labels)
    return classes, _tally((frame.group, frame.split) for frame in frames)


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
        for label in frame.labels:
            by_class.setdefault(label, []).append(fact.aspect)
    if not by_class:
        return
    medians = {name: float(np.median(aspects)) for name, aspects in by_class.items()}
    low, high = min(medians, key=lambda name: medians[name]), max(medians, key=lambda name: medians[name])
    if medians[high] > ASPECT * medians[low]:
        yield (
            f"the shape of the crop tells classes apart: median width/height is {medians[low]:.2g} for {low} and "
            f"{medians[high]:.2g} for {high}; a model may learn the black bars (data.square: crop takes them away)"
        )


def _dim(frames: Sequence[Frame], facts: Sequence[_Facts]) -> Iterator[str]:
    """The images that show next to nothing, if there are any, and what may have made them so."""
    dim = [(frame.file, fact.note or "") for frame, fact in zip(frames, facts, strict=True) if fact.used < DIM]
    if not dim:
        return
    why = ""
    if deep := sum(note.startswith("16-bit") for _, note in dim):
        why += f"; {deep} of 16 bits, where 65535 becomes white: scale values of fewer bits, as 12, up to that"
    if clear := sum(note.startswith(("RGBA", "grey-alpha")) for _, note in dim):
        why += f"; {clear} with an alpha channel, where what is transparent becomes black: save without it"
    are = "images are of one colour or use" if len(dim) > 1 else "image is of one colour or uses"
    yield f"{len(dim)} {are} less than a tenth of the range, first {dim[0][0]}{why}"


def _audit_phantom(config: DataConfig, seed: int, task: Task) -> Audit:
    try:
        space, frames, _ = list_frames(config, seed, task)
    except BadInput as error:
        return Audit({}, {}, [], [str(error)], [])
    notes = ["the phantom is rendered, not read"]
    return Audit(*_tallies(frames), notes, [], class_warnings(space, frames, task))


def audit(config: DataConfig, seed: int, task: Task) -> Audit:
    """List all problems of a data source, opening every image and mask once.

    Errors: all that `load_dataset` refuses, and images with the same bytes in two splits; what the counts of classes
    and splits lead to only once these are known (`Audit.counted`). Warnings: the same bytes within a split,
    near-duplicates across splits, classes of which little will be known, images that show next to nothing, crops whose
    shape tells the class, videos that other sets train on, and what `mask_warnings` finds.
    """
    if config.source == "phantom":
        return _audit_phantom(config, seed, task)
    try:
        folder = data_folder(config)
        scan = scan_source(config, seed, task)
    except BadInput as error:
        return Audit({}, {}, [], [str(error)], [])

    def look(frame: Frame) -> tuple[_Facts | None, MaskFacts | None, list[str]]:
        path, facts, opened, mask, found = folder / frame.file, None, None, None, []
        try:
            image, note = open_rgb(path)
            image = cut(image, scan.window)
            facts, opened = _facts(path, image, note), (path, image)
        except BadInput as error:
            found.append(str(error))
        try:
            if scan.classes:
                mask, wrong = mask_facts(folder / str(frame.mask), scan.classes, config, opened)
                found += wrong
        except BadInput as error:
            found.append(str(error))
        return facts, mask, found

    with ThreadPoolExecutor(WORKERS) as pool:
        looks = list(pool.map(look, scan.frames))
    frames = [
        replace(frame, labels=mask.labels) if mask else frame
        for frame, (_, mask, _) in zip(scan.frames, looks, strict=True)
    ]
    errors, warnings = [*scan.problems, *(problem for _, _, found in looks for problem in found)], list[str]()
    # A class whose rows or masks could not be read is not absent: to say so would send people after the wrong thing.
    # (Of what is wrong with a frame, one line is its image's where that cannot be read.)
    counted = not scan.problems and not any(len(bad) > (facts is None) for facts, _, bad in looks)
    if counted:
        warnings += class_warnings(scan.space, frames, task)
    if config.source == "set":
        warnings += leak_warnings(str(config.set), frames)
    if frames and counted:
        errors += training_problems(scan.space, frames, str(folder), task)
    read = [(frame, facts) for frame, (facts, _, _) in zip(frames, looks, strict=True) if facts]
    if read:
        seen, facts = [frame for frame, _ in read], [fact for _, fact in read]
        across, within = duplicates(seen, [fact.digest for fact in facts])
        errors += across
        warnings += [*within, *_dim(seen, facts), *_near(seen, facts), *_shapes(seen, facts)]
    notes = [*scan.notes, *summarise(fact.note for _, fact in read)]
    pixels: dict[str, dict[str, float]] = {}
    masked = [(frame, mask) for frame, (_, mask, _) in zip(frames, looks, strict=True) if mask]
    if scan.classes and masked:
        sound = [(frame, mask) for frame, (_, mask, bad) in zip(frames, looks, strict=True) if mask and not bad]
        warnings += mask_warnings(sound, scan.classes)
        pixels, ignored = pixel_shares(masked, scan.classes)
        notes += ignored
    return Audit(*_tallies(frames), notes, errors, warnings, pixels, counted)


def _table(title: str, rows: Mapping[str, Mapping[str, float]], shown: str) -> list[str]:
    width = max(len(title), *(len(name) for name in rows))
    head = f"{title:<{width}}" + "".join(f"{split:>8}" for split in SPLITS)
    cells = {
        name: "".join(f"{shown.format(by_split[split]):>8}" for split in SPLITS) for name, by_split in rows.items()
    }
    return [head, *(f"{name:<{width}}{text}" for name, text in cells.items())]


def render_audit(audit: Audit) -> str:
    """The audit as plain text: tables, then notes, warnings, errors: the first `SHOWN` of each."""
    lines: list[str] = []
    for title, rows in (("class", audit.classes), ("group", audit.groups)):
        if rows:
            lines += [*_table(title, rows, "{}"), ""]
    if audit.pixels:
        lines += [*_table("pixels", audit.pixels, "{:.1%}"), ""]
    for title, entries in (("note", audit.notes), ("warning", audit.warnings), ("error", audit.errors)):
        lines += [f"{title}: {entry}" for entry in entries[:SHOWN]]
        if len(entries) > SHOWN:
            lines.append(f"{title}: ... and {len(entries) - SHOWN} more")
    return "\n".join([*lines, f"{len(audit.errors)} errors, {len(audit.warnings)} warnings"])
