"""How like the real images the synthetic ones are, as sets, in some network's features.

None of these numbers means anything without naming the network, n of both sets, and what real against real would give.
Distances are worked out `chunk` rows at a time, so memory grows with N, not with its square.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from saadi.evaluation.metrics import Floats
from saadi.features import Features, check_features, check_widths, slices


class Fidelity(NamedTuple):
    """Shares, 0 .. 1: of fakes near the real, of reals near the fake, of reals whose neighbourhood holds a fake."""

    precision: float
    recall: float
    coverage: float


NEIGHBOURS = 5
"""The k of precision, recall and coverage: each side needs one image more."""


def kid(real: Features, fake: Features, degree: int = 3, chunk: int = 1024) -> float:
    """Kernel inception distance of [N, D] and [M, D]: unbiased MMD^2 under (x.y / D + 1)^degree.

    Over all samples at once, not over subsets (Bińkowski et al. 2018, arXiv:1801.01401). Unbiased at any n, hence
    around zero, and often negative, for two sets of one distribution. Not scaled by 1000. Raises `BadInput` on bad
    features.
    """
    x, y = check_features("real", real, 2), check_features("synthetic", fake, 2)
    check_widths(x, y)
    width = x.shape[1]

    def between(a: Floats, b: Floats) -> float:
        """Sum of the kernel over all pairs."""
        blocks = ((rows, columns) for rows in slices(len(a), chunk) for columns in slices(len(b), chunk))
        return sum(float(((a[i] @ b[j].T / width + 1) ** degree).sum()) for i, j in blocks)

    def within(a: Floats) -> float:
        """Mean of the kernel over all pairs of different rows."""
        own = float((((a * a).sum(1) / width + 1) ** degree).sum())
        return (between(a, a) - own) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * between(x, y) / (len(x) * len(y))


def cosine_kid(real: Features, fake: Features) -> float:
    """`kid` of unit-length features [N, D] and [M, D], scaled by sqrt(D): its kernel is (cosine + 1)^3.

    Left at length 1, x.y / D is at most 1 / D, where the cubic kernel is as good as straight: sets of equal mean would
    count as alike however their spread differs. Raises `BadInput` as `kid` does.
    """
    width = real.shape[-1]
    return kid(real * np.sqrt(width), fake * np.sqrt(width))


def _radii(features: Floats, k: int, chunk: int) -> Floats:
    """Distance [N] of each row to its k-th nearest other row."""
    # Position k and not k - 1: every row also finds itself, at distance zero.
    blocks = (np.partition(cdist(features[rows], features), k, axis=1)[:, k] for rows in slices(len(features), chunk))
    return np.concatenate(list(blocks))


def precision_recall_coverage(real: Features, fake: Features, k: int = NEIGHBOURS, chunk: int = 1024) -> Fidelity:
    """Improved precision and recall (Kynkäänniemi 2019, arXiv:1904.06991), coverage (Naeem 2020, arXiv:2002.09797).

    From Euclidean balls that reach from each image of a set to its k-th nearest other image in it, border included. For
    N real and M fake images of one distribution coverage is 1 - (N-1)...(N-k) / (M+N-1)...(M+N-k) on average: 0.97 for
    M = N, less for fewer fakes, so compare arms at equal M. Raises `BadInput` on bad features and on k images or fewer.
    """
    x, y = check_features("real", real, k + 1), check_features("synthetic", fake, k + 1)
    check_widths(x, y)
    real_radii, fake_radii = _radii(x, k, chunk), _radii(y, k, chunk)
    near_real = np.zeros(len(y), np.bool_)
    near_fake = np.zeros(len(x), np.bool_)
    covered = np.zeros(len(x), np.bool_)
    for rows in slices(len(y), chunk):
        distances = cdist(y[rows], x)
        inside = distances <= real_radii
        near_real[rows] = inside.any(1)
        covered |= inside.any(0)
        near_fake |= (distances <= fake_radii[rows, None]).any(0)
    return Fidelity(float(near_real.mean()), float(near_fake.mean()), float(covered.mean()))
