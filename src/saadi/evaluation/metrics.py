"""Metrics: pure functions of class ids and probabilities, as fractions, never per cent.

One rule for empty classes throughout: a class without images has no score (nan) and is left out of means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInput

Ids = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Scoring = Callable[[Floats, Floats], Floats]
"""How often each unit [B, U] and each training [B, S] is drawn in B resamples, to their scores by class [B, C]."""

CALIBRATION_BINS = 15


def ratio(parts: NDArray[Any], wholes: NDArray[Any]) -> Floats:
    """`parts / wholes`, broadcast; nan where the whole is zero, without a warning."""
    shape = np.broadcast_shapes(np.shape(parts), np.shape(wholes))
    shares: Floats = np.divide(parts, wholes, out=np.full(shape, np.nan), where=np.asarray(wholes) > 0)
    return shares


def check_ids(name: str, ids: Ids, classes: int) -> None:
    """Raise `BadInput` unless `ids` is a non-empty [N] of whole numbers within 0 .. classes - 1."""
    if ids.ndim != 1 or not len(ids) or not np.issubdtype(ids.dtype, np.integer):
        raise BadInput(f"{name}: found {ids.dtype} of shape {ids.shape}; give one integer class id for each image")
    if ids.min() < 0 or ids.max() >= classes:
        raise BadInput(f"{name}: ids from {ids.min()} to {ids.max()}; {classes} classes have 0 to {classes - 1}")


def confusion(labels: Ids, predicted: Ids, classes: int) -> NDArray[np.int64]:
    """Counts [C, C] of images by true class (row) and predicted class (column), from class ids [N].

    Raises `BadInput` where lengths differ or an id is no class.
    """
    check_ids("labels", labels, classes)
    check_ids("predictions", predicted, classes)
    if len(labels) != len(predicted):
        raise BadInput(f"predictions: {len(predicted)} for {len(labels)} labels; give one for each image")
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def recalls(table: NDArray[np.int64]) -> Floats:
    """Recall by class [C] in 0 .. 1 from a confusion table; nan for a class without images."""
    return ratio(np.diag(table), table.sum(1))


class Scored(Protocol):
    """What can be scored by class, as it is and on resamples: a `Tally`, or what is no ratio of sums."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Trainings, images, classes."""

    def scoring(self, unit_of: Ids) -> Scoring:
        """Scores of resamples of units; `unit_of` [N]: the unit of each image, 0 .. U - 1."""

    def take(self, rows: NDArray[Any]) -> Self:
        """The images `rows`, by number or as a mask [N]."""

    def joined(self, others: Sequence[Any]) -> Self:
        """With the images of others of its kind after its own."""


class Tally(NamedTuple):
    """What scores by class are ratios of, image by image: `parts` and `wholes` [S, N, C] of S trainings on N images.

    A score is the sum of its parts over images and trainings by that of its wholes. Recall: right answers by images.
    `shown` [N, C]: how much of a class the truth has; where it has none in all images, there is no score (nan), even
    if something was predicted: one stray pixel must not move a mean over classes by a whole class.
    """

    parts: Floats
    wholes: Floats
    shown: Floats | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Trainings, images, classes."""
        return np.broadcast_shapes(np.shape(self.parts), np.shape(self.wholes))

    def take(self, rows: NDArray[Any]) -> Tally:
        """The images `rows`, by number or as a mask [N]."""
        shown = None if self.shown is None else self.shown[rows]
        parts, wholes = (np.broadcast_to(one, self.shape)[:, rows] for one in (self.parts, self.wholes))
        return Tally(parts, wholes, shown)

    def joined(self, others: Sequence[Tally]) -> Tally:
        """With the images of others after its own."""
        every = (self, *others)
        shown = None if self.shown is None else np.concatenate([one.shown for one in every if one.shown is not None])
        parts = np.concatenate([np.broadcast_to(one.parts, one.shape) for one in every], 1)
        return Tally(parts, np.concatenate([np.broadcast_to(one.wholes, one.shape) for one in every], 1), shown)

    def scoring(self, unit_of: Ids) -> Scoring:
        """Scores of resamples, from what each unit's images add up to. Counts are whole numbers, exact in float64, so
        equal arms differ by exactly zero."""
        seeds, _, classes = self.shape
        units = int(unit_of.max()) + 1

        def by_unit(counts: Floats) -> Floats:
            sums = np.zeros((units, seeds, classes))
            np.add.at(sums, unit_of, np.broadcast_to(counts, self.shape).transpose(1, 0, 2))
            return sums.reshape(units, -1)

        part, whole = by_unit(self.parts), by_unit(self.wholes)
        shown = np.zeros((units, classes))
        np.add.at(shown, unit_of, 1.0 if self.shown is None else self.shown)

        def scores(unit_counts: Floats, seed_counts: Floats) -> Floats:
            sums = ((unit_counts @ one).reshape(-1, seeds, classes) for one in (part, whole))
            drawn_parts, drawn_wholes = (np.einsum("bs,bsc->bc", seed_counts, one) for one in sums)
            return np.where(unit_counts @ shown > 0, ratio(drawn_parts, drawn_wholes), np.nan)

        return scores


def point(scored: Scored) -> Floats:
    """Scores by class [C] of the data as they are."""
    seeds, images, _ = scored.shape
    scores: Floats = scored.scoring(np.zeros(images, np.int64))(np.ones((1, 1)), np.ones((1, seeds)))[0]
    return scores


def tally_recalls(labels: Ids, predicted: Ids, classes: int) -> Tally:
    """The tally of recalls, from true class ids [N] and those of S trainings [S, N].

    Raises `BadInput` where shapes do not fit or a label is no class.
    """
    check_ids("labels", labels, classes)
    if predicted.ndim != 2 or predicted.shape[1] != len(labels):
        raise BadInput(f"predictions: shape {predicted.shape}; give (trainings, {len(labels)})")
    shown = np.eye(classes)[labels]
    return Tally(shown * (predicted == labels)[..., None], np.broadcast_to(shown, (len(predicted), *shown.shape)))


def mean_score(by_class: Floats, among: Sequence[int] | None = None) -> Floats:
    """Mean [...] of scores [..., C] over the classes `among` (all by default) that have one; nan where none has."""
    chosen = by_class if among is None else by_class[..., list(among)]
    present = ~np.isnan(chosen)
    return ratio(np.where(present, chosen, 0.0).sum(-1), present.sum(-1))


def balanced_accuracy(table: NDArray[np.int64], among: Sequence[int] | None = None) -> float:
    """Mean recall, 0 .. 1, over the classes present in the truth, or those of them in `among`; nan if there is none."""
    return float(mean_score(recalls(table), among))


def macro_f1(table: NDArray[np.int64]) -> float:
    """Mean F1 over classes, 0 .. 1, from a confusion table.

    A class in neither truth nor predictions is left out. One that is predicted but never true counts, with 0: unlike
    recall, F1 also charges for false alarms. (scikit-learn's rule.)
    """
    f1 = ratio(2 * np.diag(table), table.sum(0) + table.sum(1))
    return float(mean_score(f1))


def calibration_error(labels: Ids, probabilities: NDArray[np.floating[Any]]) -> float:
    """Expected calibration error, 0 .. 1, of the top class (Guo et al. 2017, arXiv:1706.04599).

    `probabilities` [N, C] are binned by their largest into 15 bins of equal width, closed on the right; the error is
    the mean over images of their bin's |accuracy - mean confidence|. Ties go to the lowest class id. Biased upwards
    when N is small: compare at equal N. Raises `BadInput` if rows are not probabilities.
    """
    values = np.asarray(probabilities, np.float64)
    if values.ndim != 2 or values.shape[0] != len(labels):
        raise BadInput(f"probabilities: shape {values.shape} for {len(labels)} labels; give one row for each image")
    check_ids("labels", labels, values.shape[1])
    if not (np.all(values >= 0) and np.allclose(values.sum(1), 1, atol=1e-3)):
        raise BadInput("probabilities: some rows are negative or do not sum to 1; apply softmax to logits first")
    confidence = values.max(1)
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    # |sum of (correct - confidence)| within a bin is its size times the gap of the means.
    gaps = np.bincount(bins, weights=(values.argmax(1) == labels) - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def rare_classes(train_counts: Mapping[str, int]) -> tuple[str, ...]:
    """The rarest third of the classes, rounded up, by number of *training* images; rarest first, ties by name."""
    if not train_counts:
        raise BadInput("training counts: no class; give the number of training images of each class")
    ranked = sorted(train_counts, key=lambda name: (train_counts[name], name))
    return tuple(ranked[: -(-len(ranked) // 3)])
