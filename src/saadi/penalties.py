"""Stage 2: penalties that combine with any criterion. What makes an image useless to train on, however right it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from saadi.records import Score

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Surroundings:
    """How near each of N samples lies to other images, in the eyes' features (0 .. 2); all [N].

    `training`: to the nearest training image or its mirror image. `own`: to the nearest of the class it was drawn for.
    `others`: to the nearest other candidate of its condition, 2 where there is none. The yardsticks are what real
    images of the class keep to those of other groups: `least` distance to any image, all but some keep more; `most`
    to one of the class, all but some keep less.
    """

    training: Array
    own: Array
    others: Array
    least: Array
    most: Array


Penalty = Callable[[Surroundings], Array]
PENALTIES: dict[str, Penalty] = {}


def penalty(name: str) -> Callable[[Penalty], Penalty]:
    """Register a penalty under the name the configuration uses: surroundings to values [N]; higher is worse."""

    def register(function: Penalty) -> Penalty:
        PENALTIES[name] = function
        return function

    return register


@penalty("memorisation")
def memorisation(around: Surroundings) -> Array:
    """By how much a sample is nearer to a training image than real images of other groups are; 0 if it is not."""
    return np.maximum(around.least - around.training, 0.0)


@penalty("similarity")
def similarity(around: Surroundings) -> Array:
    """Nearness to the most similar other candidate of the condition, 0 .. 2: near-twins teach one thing twice."""
    return 2 - around.others


@penalty("out-of-support")
def out_of_support(around: Surroundings) -> Array:
    """By how much a sample is farther from all training images of its class than real images are; 0 if it is not."""
    return np.maximum(around.own - around.most, 0.0)


def ranks(values: Array) -> Array:
    """Ranks of N values, from -1 for the least to 1 for the greatest; ties share their mean, equal values are all 0.

    So units vanish, and outliers with them: no increasing change of the values changes their ranks.
    """
    middle = (len(values) + 1) / 2
    found: Array = (rankdata(values) - middle) / max(middle - 1, 0.5)
    return found


def combined(
    values: Array, penalties: Mapping[str, Array], weights: Mapping[str, float], conditions: Sequence[str]
) -> Array:
    """The criterion's values [N] less the weighted penalties [N], each as `ranks` within its condition.

    Without weights above 0 the values are what they were.
    """
    counted = {name: weight for name, weight in weights.items() if weight > 0}
    if not counted:
        return values
    out, of = np.empty(len(values)), np.array(conditions)
    for condition in dict.fromkeys(conditions):
        rows = of == condition
        out[rows] = ranks(values[rows]) - sum(weight * ranks(penalties[name][rows]) for name, weight in counted.items())
    return out


def penalised(
    scores: Sequence[Score], around: Surroundings, weights: Mapping[str, float], conditions: Sequence[str]
) -> list[Score]:
    """Scores whose values are `combined`; their parts tell the criterion's own value and each penalty's."""
    raw = {name: PENALTIES[name](around) for name in weights}
    own = np.array([one.value for one in scores])
    values = combined(own, raw, weights, conditions)
    told = {"criterion": own, **raw}
    return [
        replace(one, value=float(values[i]), parts=one.parts | {name: float(part[i]) for name, part in told.items()})
        for i, one in enumerate(scores)
    ]
