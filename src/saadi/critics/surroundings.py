"""How near samples lie to training images and to each other, measured against what real images of other groups keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from saadi.data import Dataset
from saadi.features import nearest_mirrored
from saadi.penalties import Surroundings
from saadi.records import Condition

Array = NDArray[np.float64]
Rows = NDArray[np.bool_]

QUANTILE = 0.05
"""Of the real images of a class: so many are nearer to others, and so many farther from them, than the yardsticks."""


def twin_distance(features: Array, conditions: Sequence[str]) -> Array:
    """The distance [N] of each of N samples to the nearest other one of its condition; 2 where there is none.

    Mirror images are not looked for.
    """
    out, of = np.full(len(features), 2.0), np.array(conditions)
    for condition in dict.fromkeys(conditions):
        rows = np.flatnonzero(of == condition)
        if len(rows) > 1:
            between = cdist(features[rows], features[rows])
            np.fill_diagonal(between, np.inf)
            out[rows] = between.min(1)
    return out


@dataclass(frozen=True)
class TrainingViews:
    """Unit-length features [N, D] of the training images and of their mirror images."""

    features: Array
    mirrored: Array
    train: Dataset

    def _distance(self, queries: Array, among: Rows) -> Array:
        """To the nearest of the training images `among` [N], or its mirror image."""
        return nearest_mirrored(queries, self.features[among], self.mirrored[among]).distance

    def _apart(self, shown: Rows, among: Rows) -> Array:
        """Of each training image in `shown`, the distance to the nearest of `among` that is of another group."""
        groups, found = self.train.groups, [np.zeros(0)]
        for group in np.unique(groups[shown]):
            others = among & (groups != group)
            if others.any():
                found.append(self._distance(self.features[shown & (groups == group)], others))
        return np.concatenate(found)

    @cached_property
    def yardsticks(self) -> tuple[Array, Array]:
        """By asked class [A], `least` and `most` of `Surroundings`; a class of one group has no `most`: infinity."""
        shows = self.train.presence.T
        anything = np.ones(len(self.train.frames), np.bool_)
        return (
            np.array([_quantile(self._apart(own, anything), QUANTILE, -np.inf) for own in shows]),
            np.array([_quantile(self._apart(own, own), 1 - QUANTILE, np.inf) for own in shows]),
        )

    def around(self, features: Array, conditions: Sequence[Condition]) -> Surroundings:
        """The surroundings of samples with these features [M, D], by the classes that they were drawn for."""
        asked = np.array([self.train.space.asked.index(one.label) for one in conditions])
        own = np.empty(len(asked))
        for label in np.unique(asked):
            own[asked == label] = self._distance(features[asked == label], self.train.presence[:, label])
        anything = np.ones(len(self.train.frames), np.bool_)
        least, most = self.yardsticks
        return Surroundings(
            training=self._distance(features, anything),
            own=own,
            others=twin_distance(features, [one.id for one in conditions]),
            least=least[asked],
            most=most[asked],
        )


def _quantile(distances: Array, share: float, otherwise: float) -> float:
    return float(np.quantile(distances, share)) if len(distances) else otherwise
