"""Metrics of segmentation: overlap and distance of surfaces, by class, from maps of class ids.

Pixels that are `IGNORE` in the truth belong to no class, in truth and prediction alike. Scores are tallies image by
image, so that the crossed bootstrap serves them as it serves recalls; background is a class like any other, which
`mean_score(..., among)` leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from saadi.errors import BadInput
from saadi.evaluation.metrics import Floats, Tally, mean_score, ratio
from saadi.records import IGNORE

Maps = NDArray[np.integer[Any]]


def check_maps(true: Maps, predicted: Maps, classes: int) -> None:
    """Raise `BadInput` unless `true` [N, S, S] holds ids and `IGNORE`, `predicted` [T, N, S, S] ids wherever it counts.

    Any height and width will do; there must be an image.
    """
    if true.ndim != 3 or not true.size or predicted.shape[1:] != true.shape or predicted.ndim != 4:
        raise BadInput(f"maps: {true.shape} true, {predicted.shape} predicted; give (N, S, S) and (trainings, N, S, S)")
    for name, maps in (("true maps", true), *(("predicted maps", one) for one in predicted)):
        ids = maps[true != IGNORE]
        if ids.size and not 0 <= ids.min() <= ids.max() < classes:
            raise BadInput(f"{name}: ids from {ids.min()} to {ids.max()}; {classes} classes have 0 to {classes - 1}")


def pixel_tables(true: Maps, predicted: Maps, classes: int) -> NDArray[np.int64]:
    """Counts [T, N, C, C] of each image's pixels by true class (row) and predicted class (column).

    From true maps [N, S, S] and those of T trainings [T, N, S, S]. Raises `BadInput` as `check_maps` does.
    """
    check_maps(true, predicted, classes)
    tables = np.zeros((*predicted.shape[:2], classes**2), np.int64)
    for i, truth in enumerate(true):
        known = truth != IGNORE
        rows = truth[known].astype(np.int64) * classes
        for table, maps in zip(tables[:, i], predicted[:, i], strict=True):
            table += np.bincount(rows + maps[known], minlength=classes**2)
    return tables.reshape(*predicted.shape[:2], classes, classes)


def _areas(tables: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Pixels of each class [T, N, C] that are right, and of truth and prediction together, from `pixel_tables`."""
    both = np.diagonal(tables, axis1=2, axis2=3).astype(np.float64)
    return both, (tables.sum(2) + tables.sum(3)).astype(np.float64)


def _shown_by(tables: NDArray[np.int64]) -> Floats:
    """Pixels of each class in the truth [N, C], from `pixel_tables`."""
    pixels: Floats = tables[0].sum(-1).astype(np.float64)
    return pixels


def tally_dice(tables: NDArray[np.int64]) -> Tally:
    """The tally of Dice scores, 2 TP / (P + T), from `pixel_tables` [T, N, C, C]: pooled over the images by class.

    It is F1 with pixels for images. A class that the truth of none of the images shows has no score (nan), predicted or
    not; one that is missed in all of them has 0. Classes are averaged after pooling, so an image counts by the area it
    shows, and one that rightly shows nothing of a class changes nothing.
    """
    both, sums = _areas(tables)
    return Tally(2 * both, sums, _shown_by(tables))


def tally_iou(tables: NDArray[np.int64]) -> Tally:
    """The tally of intersections over unions, TP / (P + T - TP), as `tally_dice`; equal to D / (2 - D) by class."""
    both, sums = _areas(tables)
    return Tally(both, sums - both, _shown_by(tables))


def image_mean(tally: Tally, among: Sequence[int] | None = None) -> Floats:
    """Means over images [T] of each image's mean score over the classes `among` (all by default).

    In an image, a class in neither truth nor prediction is left out, and one in only one of them scores 0; an image
    that has none of the classes is left out. nan where all are. A small area counts as much as a large one here.
    """
    return mean_score(mean_score(ratio(tally.parts, tally.wholes), among))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask with a neighbour, of four, outside it or outside the image."""
    return mask & ~np.asarray(binary_erosion(mask), np.bool_)


def surface_distances(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> Floats:
    """Distances, in pixels, of each surface's pixels to the other surface, both ways, of two masks [H, W].

    Raises `ValueError` if a mask is empty.
    """
    if not (one.any() and two.any()):
        raise ValueError("an empty mask has no surface")
    box = find_objects((one | two).astype(np.uint8))[0]  # all that is measured lies in it
    first, second = (_surface(np.pad(mask[box], 1)) for mask in (one, two))
    both = [distance_transform_edt(~goal)[start] for start, goal in ((first, second), (second, first))]
    return np.concatenate(both)


def tally_surface(true: Maps, predicted: Maps, classes: int, percentile: float | None = None) -> Tally:
    """The tally of mean symmetric surface distances in pixels, lower is better; with `percentile` 95, of HD95s.

    From true maps [N, S, S] and those of T trainings [T, N, S, S]. A score is the mean over images: an image where
    neither truth nor prediction has the class is left out, one where only one of them has it is charged the image's
    diagonal, beyond which no two pixels lie, so that a miss never pays. `percentile`, 0 .. 100, is that of the
    distances in both directions together. Raises `BadInput` as `check_maps` does.
    """
    check_maps(true, predicted, classes)
    shape = (*predicted.shape[:2], classes)
    parts, wholes = np.zeros(shape), np.zeros(shape)
    worst = float(np.hypot(*true.shape[1:]))
    for cell, one, two in _shown(true, predicted, classes):
        wholes[cell] = 1.0
        if not (one.any() and two.any()):
            parts[cell] = worst
            continue
        distances = surface_distances(one, two)
        parts[cell] = distances.mean() if percentile is None else np.percentile(distances, percentile)
    shown = np.stack([(true == c).any((1, 2)) for c in range(classes)], -1)
    return Tally(parts, wholes, shown.astype(np.float64))


def _shown(
    true: Maps, predicted: Maps, classes: int
) -> Iterator[tuple[tuple[int, int, int], NDArray[np.bool_], NDArray[np.bool_]]]:
    """(training, image, class), true mask and predicted mask, wherever one of them is not empty."""
    for i, truth in enumerate(true):
        known = truth != IGNORE
        for t, maps in enumerate(predicted[:, i]):
            for c in np.union1d(truth[known], maps[known]).tolist():
                yield (t, i, c), truth == c, (maps == c) & known
