"""Whether synthetic images are copies of training images, measured against what fresh real images would give.

A distance to the nearest training image says nothing by itself. The yardstick is the distances of real images that the
generator never saw, to the same training images in the same features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInput
from saadi.evaluation.metrics import Floats, Ids, check_ids


class Memorised(NamedTuple):
    """`share` (0 .. 1) of the samples nearer to a training image than `threshold`, in the features' distance."""

    share: float
    threshold: float


def near_copies(distances: Floats, threshold: float | Floats) -> NDArray[np.bool_]:
    """Which samples [Q] are nearer to a training image than `threshold`, one for all or one for each [Q].

    True where the threshold is nan: what cannot be shown to be new is held back.
    """
    return ~np.greater_equal(distances, threshold)


def memorised_share(sample_distances: Floats, yardstick_distances: Floats, quantile: float = 0.05) -> Memorised:
    """The share of samples nearer to a training image than all but `quantile` of fresh real images are.

    `sample_distances` [Q], `yardstick_distances` [Y]: to the nearest training image, over the same training images. The
    threshold is the yardstick's `quantile`, so fresh images score `quantile` by construction (to within 1 / Y). A
    generator scores about that if its images are no nearer to the training images than new ones of the yardstick's
    patients, and more if it copies. Blurred or off-topic images score less, which is no merit. Raises `BadInput` on an
    empty set, and on a quantile that is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise BadInput(f"quantile: {quantile}; it must lie between 0 and 1")
    if not len(sample_distances) or not len(yardstick_distances):
        found = f"{len(sample_distances)} samples, {len(yardstick_distances)} fresh images"
        raise BadInput(f"memorisation: {found}; at least one of each is needed")
    threshold = float(np.quantile(yardstick_distances, quantile))
    return Memorised(float(near_copies(sample_distances, threshold).mean()), threshold)


def memorised_by_class(
    sample_distances: Floats,
    sample_labels: Ids,
    yardstick_distances: Floats,
    yardstick_labels: Ids,
    classes: int,
    quantile: float = 0.05,
) -> tuple[Floats, Floats]:
    """Shares [C] and thresholds [C], each class against its own fresh images, since some classes are more uniform.

    Both are nan for a class without samples or without fresh images. With fewer than 1 / `quantile` fresh images the
    threshold lies near the smallest of their distances, and is rough. Raises `BadInput` on labels that do not fit.
    """
    for name, distances, labels in (
        ("sample", sample_distances, sample_labels),
        ("yardstick", yardstick_distances, yardstick_labels),
    ):
        check_ids(f"{name} labels", labels, classes)
        if len(distances) != len(labels):
            raise BadInput(f"{name} labels: {len(labels)} for {len(distances)} distances; give one for each image")
    shares, thresholds = np.full(classes, np.nan), np.full(classes, np.nan)
    for label in np.intersect1d(sample_labels, yardstick_labels):
        samples, yardstick = sample_distances[sample_labels == label], yardstick_distances[yardstick_labels == label]
        shares[label], thresholds[label] = memorised_share(samples, yardstick, quantile)
    return shares, thresholds
