"""What differs between downstream tasks, and nothing else: training loop, crew, cross-fitting and bootstrap are one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from saadi.evaluation.maps import image_mean, pixel_tables, tally_dice, tally_iou, tally_surface
from saadi.evaluation.metrics import (
    Scored,
    calibration_error,
    confusion,
    macro_f1,
    mean_score,
    point,
    tally_recalls,
)
from saadi.evaluation.presence import rank, tally_f1
from saadi.preferences import critic_loss, log_softmax, presence_loss
from saadi.records import IGNORE

Targets = NDArray[Any]
"""Class ids [N] (classification), maps of them [N, S, S] with `IGNORE` (segmentation), 0 and 1 [N, C] (presence)."""
Logits = NDArray[np.float64]
"""[N, C], of dense tasks [N, C, S, S]."""

SMOOTHING = 0.05
"""Of labels, in classification: half a dozen images of a class are soon learnt by heart."""
GRID = 16
"""Temperatures are fitted on a grid of about so many rows and columns of each map: neighbours say the same."""


@dataclass(frozen=True)
class Downstream:
    """A downstream task. C: the number of classes, T: of trainings.

    `dense`: a network gives logits for every pixel, not for the image. `metric`: the name of what `scored` measures.
    `loss(logits, targets)`: what a network is trained on, a scalar; `surprise`: the same without smoothing, so that it
    falls for as long as a network grows surer. `shows(targets, C)`: the classes each image shows
    [N, C]. `answer(logits)`: what is kept of a network's output, to be scored. `scored(targets, answers [T, N, ...],
    C)`: by class, for the bootstrap. `likelihood(logits, targets)`: the log-likelihood of each of M calibrated answers
    [M], which a temperature maximises, and `witnesses(logits, targets)`: the M that it is fitted on.
    `extra(targets, answers, C)`: further figures of an arm, over all its trainings.
    """

    name: str
    dense: bool
    metric: str
    loss: Callable[[Tensor, Tensor], Tensor]
    surprise: Callable[[Tensor, Tensor], Tensor]
    shows: Callable[[Targets, int], NDArray[np.bool_]]
    answer: Callable[[Logits], NDArray[Any]]
    scored: Callable[[Targets, NDArray[Any], int], Scored]
    likelihood: Callable[[Logits, Targets], NDArray[np.float64]]
    extra: Callable[[Targets, NDArray[Any], int], dict[str, Any]]
    witnesses: Callable[[Logits, Targets], tuple[Logits, Targets]] = lambda logits, targets: (logits, targets)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [N, C] on class ids [N], or shares of classes [N, C], with label smoothing."""
    return functional.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def map_loss(logits: Tensor, maps: Tensor) -> Tensor:
    """The mean of cross-entropy and soft Dice loss of logits [N, C, S, S] on maps [N, S, S], `IGNORE` left out.

    Dice: 1 - mean over the classes that the batch shows, background included, of 2 sum(p t) / (sum(p) + sum(t)), summed
    over the batch; classes it does not show would pull the others down with nothing to learn. Cross-entropy makes
    probabilities, Dice heeds small classes. No smoothing: edges are uncertain as it is.
    """
    known, classes = maps != IGNORE, logits.shape[1]
    likely, truth = logits.log_softmax(1), maps[known].long()
    # Gathered and counted, not multiplied by one-hot maps: in half the time
    right = likely.gather(1, torch.where(known, maps, 0).long()[:, None])[:, 0][known]
    areas = torch.bincount(truth, minlength=classes)
    shared = right.new_zeros(classes).index_add(0, truth, right.exp())
    dice = 2 * shared / ((likely.exp() * known[:, None]).sum((0, 2, 3)) + areas)
    return 0.5 * -right.mean() + 0.5 * (1 - dice[areas > 0].mean())


def set_loss(logits: Tensor, sets: Tensor) -> Tensor:
    """Binary cross-entropy of logits [N, C] on 0 and 1 [N, C], averaged over images and classes."""
    return functional.binary_cross_entropy_with_logits(logits, sets.to(logits.dtype))


def _maps_show(maps: Targets, classes: int) -> NDArray[np.bool_]:
    return np.stack([(maps == c).any((1, 2)) for c in range(classes)], 1)


def _grid_pixels(logits: Logits, maps: Targets) -> tuple[Logits, Targets]:
    """Logits [M, C] and class ids [M] of the pixels of a grid, `IGNORE` left out."""
    step = max(1, maps.shape[1] // GRID)
    few = maps[:, step // 2 :: step, step // 2 :: step]
    known = few != IGNORE
    rows = np.moveaxis(logits[:, :, step // 2 :: step, step // 2 :: step], 1, -1)[known]
    return rows, few[known].astype(np.int64)


def _label_extra(labels: Targets, answers: NDArray[Any], classes: int) -> dict[str, Any]:
    tables = [confusion(labels, one.argmax(1), classes) for one in answers]
    return {
        "macro_f1": float(np.mean([macro_f1(table) for table in tables])),
        "calibration_error": float(np.mean([calibration_error(labels, np.exp(one)) for one in answers])),
    }


def _map_extra(maps: Targets, answers: NDArray[Any], classes: int) -> dict[str, Any]:
    """Dice and IoU with the background; IoU by class and without; Dice averaged over images, and surface distance in
    pixels, without."""
    tables, among = pixel_tables(maps, answers, classes), list(range(1, classes))
    dice, iou, surface = tally_dice(tables), tally_iou(tables), tally_surface(maps, answers, classes)
    return {
        "dice_with_background": float(mean_score(point(dice))),
        "iou": float(mean_score(point(iou), among)),
        "iou_with_background": float(mean_score(point(iou))),
        "iou_per_class": point(iou).tolist(),
        "dice_of_images": float(np.mean(image_mean(dice, among))),
        "surface_distance": float(mean_score(point(surface), among)),
    }


def _set_extra(sets: Targets, answers: NDArray[Any], classes: int) -> dict[str, Any]:
    return {"macro_f1": float(mean_score(point(tally_f1(sets, answers > 0))))}


TASKS = {
    task.name: task
    for task in (
        Downstream(
            name="classification",
            dense=False,
            metric="balanced_accuracy",
            loss=label_loss,
            surprise=functional.cross_entropy,
            shows=lambda labels, classes: labels[:, None] == np.arange(classes),
            answer=log_softmax,
            scored=lambda labels, answers, classes: tally_recalls(labels, answers.argmax(2), classes),
            likelihood=critic_loss,
            extra=_label_extra,
        ),
        Downstream(
            name="segmentation",
            dense=True,
            metric="dice",
            loss=map_loss,
            surprise=map_loss,
            shows=_maps_show,
            answer=lambda logits: logits.argmax(1).astype(np.uint8),
            scored=lambda maps, answers, classes: tally_dice(pixel_tables(maps, answers, classes)),
            likelihood=critic_loss,
            extra=_map_extra,
            witnesses=_grid_pixels,
        ),
        Downstream(
            name="presence",
            dense=False,
            metric="mean_average_precision",
            loss=set_loss,
            surprise=set_loss,
            shows=lambda sets, classes: sets.astype(bool),
            answer=lambda logits: logits,
            scored=lambda sets, answers, classes: rank(sets, answers),
            likelihood=presence_loss,
            extra=_set_extra,
        ),
    )
}
"""By the name of the configuration."""
