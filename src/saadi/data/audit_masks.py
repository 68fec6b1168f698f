"""What is wrong with masks, and what a person should look at: the part of the audit that segmentation adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saadi.data.classes import ClassTable
from saadi.data.images import is_turned
from saadi.data.masks import (
    MOSTLY,
    NEAREST,
    Mask,
    between,
    nothing_known,
    open_mask,
    other_size,
    shown,
    square_mask,
    unknown_values,
)
from saadi.imageconfig import DataConfig
from saadi.records import IGNORE, SPLITS, Frame


@dataclass(frozen=True)
class MaskFacts:
    """One mask. `labels`: the classes the square mask shows; `lost`: those that only the file shows; `rims`: those that
    occur in it only between lower and higher values; `pixels` [256]: how often each class id occurs in the file;
    `turned`: EXIF turns its image."""

    labels: tuple[str, ...]
    lost: tuple[str, ...]
    rims: tuple[str, ...]
    pixels: NDArray[np.int64]
    turned: bool


Masked = tuple[Frame, MaskFacts]


def mask_facts(
    path: Path, table: ClassTable, config: DataConfig, image: tuple[Path, Image.Image] | None
) -> tuple[MaskFacts, list[str]]:
    """The facts of a mask and what is wrong with it, one line each. Raises `BadInput` as `open_mask` does.

    `image`: where its image lies, and that image upright; None if it cannot be read.
    """
    mask = open_mask(path, table)
    problems = [image and other_size(path, mask, *image), unknown_values(path, mask, table), nothing_known(path, mask)]
    labels = shown(square_mask(mask.ids, config.size, config.square), table.space)
    facts = MaskFacts(
        labels=labels,
        lost=tuple(name for name in shown(mask.ids, table.space) if name not in labels),
        rims=_rims(mask, table),
        pixels=np.bincount(mask.ids.ravel(), minlength=256),
        turned=image is not None and is_turned(image[0]),
    )
    return facts, [problem for problem in problems if problem]


def _rims(mask: Mask, table: ClassTable) -> tuple[str, ...]:
    """The classes nearly all of whose pixels lie between lower and higher values: what resizing makes of an edge."""
    values = np.bincount(mask.ids.ravel(), minlength=256)[: len(table.names)]
    if np.count_nonzero(values) < 3:
        return ()
    rim = np.bincount(mask.ids[between(mask.channels)], minlength=256)[: len(table.names)]
    return tuple(name for name, all_, thin in zip(table.names, values, rim, strict=True) if thin > MOSTLY * all_)


def mask_warnings(masked: Sequence[Masked], table: ClassTable) -> list[str]:
    """What a person should look at, one line each: masks of nothing, edges that look interpolated, classes lost in the
    square, images that EXIF turns."""
    warnings = []
    if empty := [frame for frame, facts in masked if not facts.labels and not facts.lost]:
        warnings.append(f"{len(empty)} of {len(masked)} masks are empty, nothing but {table.names[0]}: {_first(empty)}")
    for name in table.names:
        having = sum(facts.pixels[table.names.index(name)] > 0 for _, facts in masked)
        if rims := [frame for frame, facts in masked if name in facts.rims]:
            warnings.append(
                f"class {name} is only a thin rim between lower and higher values in {len(rims)} of the {having} masks "
                f"that hold it: {_first(rims)}; {NEAREST}"
            )
        if lost := [frame for frame, facts in masked if name in facts.lost]:
            warnings.append(
                f"class {name} is lost in {len(lost)} of the {having} masks that hold it, too small for data.size or "
                f"cut off by data.square: {_first(lost)}"
            )
    if turned := [frame for frame, facts in masked if facts.turned]:
        warnings.append(
            f"{len(turned)} images are turned by their EXIF orientation: {_first(turned)}; see that these masks were "
            "drawn on the upright image"
        )
    return warnings


def _first(frames: Sequence[Frame]) -> str:
    return ", ".join(str(frame.mask) for frame in frames[:3]) + (", ..." if len(frames) > 3 else "")


def pixel_shares(masked: Sequence[Masked], table: ClassTable) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The share of each class in the pixels of a split's masks that are not ignored, and a note on those that are."""
    counts: dict[str, NDArray[np.int64]] = {split: np.zeros(256, np.int64) for split in SPLITS}
    for frame, facts in masked:
        counts[frame.split] += facts.pixels
    known = {split: max(1, int(count[: len(table.names)].sum())) for split, count in counts.items()}
    shares: dict[str, dict[str, float]] = {
        name: {split: float(counts[split][index] / known[split]) for split in SPLITS}
        for index, name in enumerate(table.names)
    }
    total = np.sum(list(counts.values()), axis=0)
    ignored = "255 unless classes.json lists it, and what it maps to null"
    notes = [f"{total[IGNORE] / total.sum():.1%} of the masks' pixels are ignored: {ignored}"] if total[IGNORE] else []
    return shares, notes
