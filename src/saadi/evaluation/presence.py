"""Metrics of presence: which classes an image shows, any number of them, from sets of 0 and 1 and from logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInput
from saadi.evaluation.metrics import Floats, Ids, Scoring, Tally, ratio

Sets = NDArray[Any]
"""0 and 1, or False and True."""


def average_precision(shown: NDArray[np.bool_], scores: Floats, times: NDArray[np.floating[Any]]) -> Floats:
    """Average precisions [B], 0 .. 1, of one class in B resamples that draw each of N images `times` [N, B].

    `shown` [N]: images that show the class; `scores` [N]: higher for those that rather do. It is the mean, over the
    images drawn that show the class, of the precision among all that score as high or higher: no interpolation, ties
    fall together (scikit-learn's and torchmetrics' definition). nan where no image drawn shows the class.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, right = -scores[order], shown[order]
    last = np.searchsorted(ranked, ranked[right], side="right") - 1  # where the ties of each image that shows it end
    drawn = times[order]
    found = drawn[right]
    so_far, of_them = drawn.cumsum(0)[last], found.cumsum(0)[right.cumsum()[last] - 1]
    precision = of_them / np.maximum(so_far, 1)
    return ratio((found * precision).sum(0, dtype=np.float64), found.sum(0, dtype=np.float64))


class Ranking(NamedTuple):
    """What average precision is of: `sets` [N, C], the classes that N images show, and `scores` [S, N, C] of S
    trainings, of which only the order counts: logits or probabilities.

    It is no ratio of sums, as a `Tally` is: a resample is ranked anew, each image as often as it is drawn. Over
    trainings, average precisions are averaged. A class that no image shows has none (nan).
    """

    sets: Sets
    scores: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        """Trainings, images, classes."""
        return self.scores.shape

    def take(self, rows: NDArray[Any]) -> Ranking:
        """The images `rows`, by number or as a mask [N]."""
        return Ranking(self.sets[rows], self.scores[:, rows])

    def joined(self, others: Sequence[Ranking]) -> Ranking:
        """With the images of others after its own, ranked together."""
        every = (self, *others)
        return Ranking(np.concatenate([one.sets for one in every]), np.concatenate([one.scores for one in every], 1))

    def scoring(self, unit_of: Ids) -> Scoring:
        """Average precisions of resamples."""
        shown = self.sets.astype(bool)

        def scores(unit_counts: Floats, seed_counts: Floats) -> Floats:
            times = unit_counts.T[unit_of].astype(np.float32)  # whole numbers: exact, and half the memory to walk
            found = np.empty((len(unit_counts), *self.scores[:, 0].shape))
            for s, c in np.ndindex(found.shape[1:]):
                found[:, s, c] = average_precision(shown[:, c], self.scores[s, :, c], times)
            mean: Floats = np.einsum("bs,bsc->bc", seed_counts, found) / seed_counts.sum(1)[:, None]
            return mean

        return scores


def check_sets(sets: Sets, said: NDArray[Any]) -> None:
    """Raise `BadInput` unless `sets` [N, C] holds 0 and 1 and `said` [S, N, C] has as many images and classes."""
    if sets.ndim != 2 or not len(sets) or said.ndim != 3 or said.shape[1:] != sets.shape:
        raise BadInput(f"sets: {sets.shape} true, {said.shape} predicted; give (N, C) and (trainings, N, C)")
    if not np.isin(sets, (0, 1)).all():
        raise BadInput("sets: found values other than 0 and 1; a class is shown or it is not")


def rank(sets: Sets, scores: Floats) -> Ranking:
    """What the average precision of true sets [N, C] and scores [S, N, C] is of. Raises `BadInput` as `check_sets`."""
    check_sets(sets, scores)
    return Ranking(sets, scores)


def tally_f1(sets: Sets, predicted: Sets) -> Tally:
    """The tally of F1 by class, 2 TP / (P + T) over images, from true sets [N, C] and those of S trainings [S, N, C].

    A class in neither truth nor prediction of all the images has no score (nan). Raises `BadInput` as `check_sets`.
    """
    check_sets(sets, predicted)
    both = np.logical_and(sets, predicted)
    return Tally(2.0 * both, np.add(sets, predicted, dtype=np.float64))
