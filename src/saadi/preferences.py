"""Stage 2: what is preferred. Criteria are pure functions from a critic's logits to values of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from saadi.errors import BadInput
from saadi.records import IGNORE, Score, Task

Array = NDArray[np.float64]
Ids = NDArray[np.int64]
Request = NDArray[Any]
"""What N samples were asked to show, by task. Classification: labels [N]. Segmentation: maps [N, S, S], `IGNORE` where
nothing was asked for, and the class ids [N] that are asked for in them. Presence: sets [N, C] of 0 and 1."""
Values = Callable[..., Array]
"""Calibrated logits [N, C] or [N, C, S, S] and the request, to values [N]; higher is better."""

RIGHT_DICE = 0.5
"""A requested region counts as shown from this Dice score on: as much is right as is wrong."""


@dataclass(frozen=True)
class Criterion:
    """How samples of a task are ranked. `gradients`: its values take two arguments more, as `influence` has them."""

    task: str
    values: Values
    gradients: bool = False


CRITERIA: dict[str, Criterion] = {}


def criterion(name: str, task: str = "classification", *, gradients: bool = False) -> Callable[[Values], Values]:
    """Register a criterion under the name the configuration uses, and the task it is for."""

    def register(function: Values) -> Values:
        CRITERIA[name] = Criterion(task, function, gradients)
        return function

    return register


def log_softmax(logits: Array) -> Array:
    """Log-probabilities [N, C, ...]."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log_probabilities


@criterion("critic-loss")
def critic_loss(logits: Array, labels: Ids) -> Array:
    """Minus the cross-entropy on the intended label, in nats: what the downstream model itself would be trained on."""
    values: Array = log_softmax(logits)[np.arange(len(labels)), labels]
    return values


@criterion("margin")
def logit_margin(logits: Array, labels: Ids) -> Array:
    """The intended label's logit minus the best other one: positive exactly where the critic is right."""
    rows = np.arange(len(labels))
    values: Array = logits[rows, labels] - logits[rows, rivals(logits, labels)]
    return values


@criterion("learnability")
def learnability(logits: Array, labels: Ids) -> Array:
    """Right but hard: a right sample's entropy, 0 .. log C nats, by the critic; a wrong one's `critic_loss`.

    It rewards images that show what was asked for and that the critic is not yet sure of, as those near a border
    between classes are (arXiv:2310.00158, arXiv:2502.15588). A wrong sample never outranks a right one: it gives what
    was asked for half of the probability at most, so its value is -log 2 or less. Hard may also mean ambiguous. Where
    `critic.copies` members never saw the patient, `logits` are their mean, and doubt is of all, not one member's whim.
    """
    likely = log_softmax(logits)
    entropy = -(np.exp(likely) * likely).sum(1)
    values: Array = np.where(logit_margin(logits, labels) > 0, entropy, critic_loss(logits, labels))
    return values


@criterion("influence", gradients=True)
def influence(logits: Array, labels: Ids, features: Array, towards: Array) -> Array:
    """Cosine, -1 .. 1, of the gradient of each sample's loss and `towards` [C, D], that of real images' mean loss.

    Gradients are those of cross-entropy by the weights of the last layer, a linear one of `features` [N, D]: residual
    times features, (p - y) f^T. A step on a sample of positive value lowers the loss of the real images, to first
    order in that layer (TracIn, arXiv:2002.08484). A cosine, since a plain product is largest where the critic is most
    wrong. 0 where a gradient is. A wrong sample may outrank a right one.
    """
    residuals = _residuals(logits, labels)
    along = np.einsum("nc,cd,nd->n", residuals, towards, features)
    lengths = np.linalg.norm(residuals, axis=1) * np.linalg.norm(features, axis=1) * np.linalg.norm(towards)
    values: Array = np.divide(along, lengths, out=np.zeros(len(along)), where=lengths > 0)
    return values


def mean_gradient(logits: Array, labels: Ids, features: Array) -> Array:
    """The gradient [C, D] of the mean cross-entropy of N images by the weights of a linear last layer."""
    gradient: Array = _residuals(logits, labels).T @ features / len(labels)
    return gradient


def _residuals(logits: Array, labels: Ids) -> Array:
    """Cross-entropy's gradient by the logits [N, C]: p - y."""
    residuals = np.exp(log_softmax(logits))
    residuals[np.arange(len(labels)), labels] -= 1
    return residuals


@criterion("region-dice", "segmentation")
def region_dice(logits: Array, maps: Request, asked: Ids) -> Array:
    """Soft Dice, 0 .. 1, of the requested region and the asked class's probabilities p, where the map is known.

    2 sum(p g) / (sum(p) + sum(g)), g being the requested mask. Soft, because of two images whose regions are both
    found, hard Dice calls neither better, and soft Dice the one the critic is surer of. Raises `BadInput` if a map
    shows nothing of its asked class.
    """
    both, areas = _overlap(np.exp(log_softmax(logits))[np.arange(len(asked)), asked], maps, asked)
    return 2 * both / areas


@criterion("region-iou", "segmentation")
def region_iou(logits: Array, maps: Request, asked: Ids) -> Array:
    """Soft intersection over union: D / (2 - D) of `region_dice`. It ranks alike, but margins are wider near 1."""
    dice = region_dice(logits, maps, asked)
    return dice / (2 - dice)


@criterion("presence-loss", "presence")
def presence_loss(logits: Array, sets: Request) -> Array:
    """Minus the binary cross-entropy on the asked set, in nats, averaged over classes: the downstream model's loss."""
    values: Array = -np.logaddexp(0.0, -_agreement(logits, sets)).mean(1)
    return values


def _agreement(logits: Array, sets: Request) -> Array:
    """Logits [N, C] of what was asked: that a class in the set is shown, and that any other is not."""
    return np.where(sets, logits, -logits)


def _overlap(found: NDArray[Any], maps: Request, asked: Ids) -> tuple[Array, Array]:
    """The share of `found` [N, S, S], 0 .. 1, that lies in the requested region, and both areas' sum, in pixels [N]."""
    wanted = maps == asked[:, None, None]
    if (blank := ~wanted.any((1, 2))).any():
        row = int(blank.argmax())
        raise BadInput(f"requests: map {row} shows nothing of class {asked[row]}, which is asked for in it")
    within = np.where(maps != IGNORE, found, 0.0)
    return (within * wanted).sum((1, 2)), within.sum((1, 2)) + wanted.sum((1, 2))


def rivals(logits: Array, labels: Ids) -> Ids:
    """The likeliest class [N] other than the intended one: what a wrong image is seen as, a right one nearly was."""
    others = logits.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    found: Ids = others.argmax(1)
    return found


class Reading(NamedTuple):
    """How a critic takes each of N samples, whatever the criterion; all [N].

    `right`: it sees what was asked for. `probability`: that of what was asked for. `seen`: the class id it sees first,
    with `seen_probability`. `rival`: the class a wrong sample is taken for, a right one nearly was. `agreement`,
    0 .. 1: how far what is seen is what was asked for; where that cannot be in part, 1 if it is right, else 0.
    """

    right: NDArray[np.bool_]
    probability: Array
    seen: Ids
    seen_probability: Array
    rival: Ids
    agreement: Array


def read_label(logits: Array, labels: Ids) -> Reading:
    """Of logits [N, C] and intended labels [N]. A tie is not right."""
    probabilities = np.exp(log_softmax(logits))
    right = logit_margin(logits, labels) > 0
    return _reading(right, probabilities, labels, rivals(logits, labels), right)


def read_region(logits: Array, maps: Request, asked: Ids) -> Reading:
    """Of logits [N, C, S, S], maps [N, S, S] and asked classes [N]; probabilities are means over the requested mask.

    Right: the pixels where the asked class is likeliest have a Dice score of `RIGHT_DICE` or more with the request,
    where the map is known. The background, class 0 or whichever, may be seen and be the rival as any other class.
    """
    both, areas = _overlap(logits.argmax(1) == asked[:, None, None], maps, asked)
    wanted = maps == asked[:, None, None]
    probabilities = np.einsum("ncij,nij->nc", np.exp(log_softmax(logits)), wanted) / wanted.sum((1, 2))[:, None]
    dice = 2 * both / areas
    return _reading(dice >= RIGHT_DICE, probabilities, asked, rivals(probabilities, asked), dice)


def read_set(logits: Array, sets: Request) -> Reading:
    """Of logits [N, C] and asked sets [N, C]. Right: what is seen above 0.5 is the asked set, no more and no less.

    `probability` is that of just this set, each class by itself. The rival is the class whose part in the set the
    critic denies most or grants least: what it sees, or nearly saw, is the asked set with this class put in or out.
    """
    granted, exact = _agreement(logits, sets), np.exp(logits.shape[1] * presence_loss(logits, sets))
    right = granted.min(1) > 0
    seen = logits.argmax(1), expit(logits.max(1))
    return Reading(right, exact, *seen, granted.argmin(1), right.astype(np.float64))


def _reading(
    right: NDArray[np.bool_], probabilities: Array, asked: Ids, rival: Ids, agreement: NDArray[Any]
) -> Reading:
    probability = probabilities[np.arange(len(asked)), asked]
    seen = probabilities.argmax(1), probabilities.max(1)
    return Reading(right, probability, *seen, rival, agreement.astype(np.float64))


READINGS: dict[str, Callable[..., Reading]] = {
    "classification": read_label,
    "segmentation": read_region,
    "presence": read_set,
}
"""By task."""


def score(
    name: str, ids: Sequence[str], logits: Array, *request: Request, gradients: tuple[Array, ...] = ()
) -> list[Score]:
    """Scores of samples `ids` by a registered criterion, from a member's calibrated logits and what was asked for.

    `gradients`: features [N, D] and the mean gradient [C, D] of real images, for a criterion that takes them. Raises
    `BadInput` for an unknown name.
    """
    if name not in CRITERIA:
        raise BadInput(f"preferences.criterion: unknown {name!r}; one of {', '.join(sorted(CRITERIA))}")
    chosen = CRITERIA[name]
    reading, values = READINGS[chosen.task](logits, *request), chosen.values(logits, *request, *gradients)
    return [
        Score(
            sample=sample,
            criterion=name,
            value=float(value),
            right=bool(right),
            parts={key: float(part) for key, part in zip(Reading._fields[1:], parts, strict=True)},
        )
        for sample, value, right, *parts in zip(ids, values, *reading, strict=True)
    ]


def mistaken(task: Task, verdict: Score, asked: int) -> bool:
    """Whether a sample asked for class `asked` is taken for something else, and not merely wrong: what is seen where a
    mask asks for it, but reaches far beyond, is no background."""
    return not verdict.right and (task != "segmentation" or int(verdict.parts["seen"]) != asked)


def taken_for(task: Task, labels: Sequence[str], rival: str) -> tuple[str, ...]:
    """The classes that a sample asked for `labels` is, or nearly was, taken to show: the rival, or, of presence, the
    labels with the rival put in or out."""
    if task != "presence":
        return (rival,)
    return tuple(name for name in labels if name != rival) if rival in labels else (*labels, rival)
