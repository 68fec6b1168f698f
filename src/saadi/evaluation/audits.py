"""Two audits, pure functions: can synthetic images be told from real ones, and training images from others?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from saadi.evaluation.metrics import Floats
from saadi.features import Features

FOLDS = 5
RIDGE = 1.0
"""Weight decay of the probe, per feature of unit variance and image."""


def auc(higher: Floats, lower: Floats) -> float:
    """The chance that one of `higher` [N] exceeds one of `lower` [M], ties counting half: the area under the ROC."""
    return float(stats.mannwhitneyu(higher, lower).statistic / (len(higher) * len(lower)))


def interval(area: float, n: int, m: int) -> tuple[float, float]:
    """A 95 % interval of an area under the ROC, within 0 .. 1, of N that are to be higher against M (Hanley and McNeil,
    1982)."""
    alike, other = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n - 1) * (alike - area**2) + (m - 1) * (other - area**2)
    half = 1.96 * float(np.sqrt(max(variance, 0.0) / (n * m)))
    return max(0.0, area - half), min(1.0, area + half)


def _spread(groups: NDArray[np.str_]) -> NDArray[np.int64]:
    """A fold for each image [N]: whole groups take turns in up to `FOLDS`; of a single group, its images."""
    names, numbers = np.unique(groups, return_inverse=True)
    return np.asarray((numbers if len(names) > 1 else np.arange(len(groups))) % FOLDS, np.int64)


def probe(real: Features, fake: Features, groups: NDArray[np.str_]) -> float:
    """How well a linear probe tells `real` [N, D] from `fake` [M, D] that it has not seen: area under the ROC, 0 .. 1.

    A ridge regression on standardised features, either side weighing as much; the mean over five folds, or as many as
    there are patients (`groups` [N]), whose real images stay together; those of a single patient are dealt out. 0.5:
    they cannot be told apart; 1: always.
    """
    own = _spread(groups)
    count = int(own.max(initial=0)) + 1
    sides, folds = (real, fake), (own, np.arange(len(fake)) % count)
    found = []
    for fold in range(count):
        learnt = [side[own != fold] for side, own in zip(sides, folds, strict=True)]
        held = [side[own == fold] for side, own in zip(sides, folds, strict=True)]
        if not all(map(len, (*learnt, *held))):
            continue
        x, counts = np.concatenate(learnt), [len(side) for side in learnt]
        y, weight = np.repeat([1.0, -1.0], counts), np.repeat([0.5 / count for count in counts], counts)
        mean, scale = weight @ x, x.std(0) + 1e-9  # of equal halves: y's mean is zero, and so is the intercept
        x = (x - mean) / scale
        gram = (x.T * weight) @ x + RIDGE / len(x) * np.eye(x.shape[1])
        slope = np.linalg.solve(gram, (x.T * weight) @ y)
        found.append(auc(*(side @ (slope / scale) for side in held)))
    return float(np.mean(found)) if found else float("nan")
