"""What `understanding.py` lets a classifier learn from: real images, and others chosen or relabelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saadi.critics.downstream import Labelled
from saadi.evaluation.sets import SUREST
from saadi.seeds import numpy_rng

SHARES = (0.05, 0.1, 0.2, 0.5, 1.0)
PURITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
COUNTS = (8, 16, 64, 128)
"""Images a class, beside the run's own number."""


class Pool(NamedTuple):
    """Images [N, S, S, 3], the class each was drawn for [N], and the log-probabilities [N, C] of the critic's members
    that never saw the nearest patient, of the judge, and of a student, who learnt from the real images alone."""

    images: NDArray[np.uint8]
    asked: NDArray[np.int64]
    critic: NDArray[np.float64]
    judge: NDArray[np.float64]
    student: NDArray[np.float64]

    def sure(self, of: NDArray[np.float64]) -> NDArray[np.float64]:
        """How likely the class that was asked for is to somebody [N]."""
        return of[np.arange(len(of)), self.asked]

    def take(self, rows: NDArray[np.int64]) -> Labelled:
        """Some of the images, as what they were drawn for."""
        return Labelled(self.images[rows], self.asked[rows])


class Lesson(NamedTuple):
    """What a classifier learns from: real images, and others as half of each batch."""

    name: str
    real: Labelled
    extra: Labelled | None = None


def by_class(labels: NDArray[np.int64], count: int, order: NDArray[Any], among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows of the `count` first of each class in `order` [N], smallest first, `among` [N] those that may be taken."""
    ranked = np.argsort(order, kind="stable")
    rows = [[row for row in ranked if labels[row] == k and among[row]][:count] for k in range(int(labels.max()) + 1)]
    return np.array(sorted(row for own in rows for row in own), np.int64)


def stratified(labels: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a share of each class at random, at least one of each."""
    found: list[int] = []
    for k in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == k))
        found += own[: max(1, round(share * len(own)))].tolist()
    return np.array(sorted(found), np.int64)


def lessons_of(
    pool: Pool, real: Labelled, own: NDArray[np.float64], more: Mapping[str, Labelled], count: int
) -> list[Lesson]:
    """All that is compared. `own` [R, C]: what the critic's members that never saw their patients say of the real
    images; `more`: further real images, by name; `count`: images a class."""
    rng = numpy_rng("understanding")
    chance, nobody = rng.random(len(pool.asked)), np.ones(len(pool.asked), bool)
    right, seen = pool.judge.argmax(1) == pool.asked, pool.critic.argmax(1) == pool.asked
    sure = pool.sure(pool.critic)

    def of(rows: NDArray[np.int64], labels: NDArray[np.int64] | None = None) -> Labelled:
        return Labelled(pool.images[rows], (pool.asked if labels is None else labels)[rows])

    def some(order: NDArray[Any], among: NDArray[np.bool_], each: int = count) -> NDArray[np.int64]:
        return by_class(pool.asked, each, order, among)

    first = some(np.arange(len(pool.asked)), nobody)
    found = [Lesson(f"real, {100 * share:g} %", real.take(stratified(real.targets, share, rng))) for share in SHARES]
    found += [Lesson(f"real, {name}", images) for name, images in more.items()]
    found.append(Lesson("real again, under the critic's labels", real, Labelled(real.images, own.argmax(1))))
    found.append(Lesson("unaligned, as they come", real, of(first)))
    found.append(Lesson("unaligned, under the critic's labels", real, of(first, pool.critic.argmax(1))))
    found.append(Lesson("unaligned, under the judge's labels", real, of(first, pool.judge.argmax(1))))
    for purity in PURITIES:  # of the judge's right and wrong ones, at random
        wrong = some(chance, ~right, round((1 - purity) * count))
        rows = np.concatenate([some(chance, right, round(purity * count)), wrong])
        found.append(Lesson(f"{100 * purity:g} % right", real, of(rows)))
    found.append(Lesson("right, the critic is surest", real, of(some(-sure, right))))
    found.append(Lesson("right, the critic is least sure", real, of(some(sure, right))))
    found.append(Lesson("the critic sees them as meant", real, of(some(chance, seen))))
    found.append(Lesson("the critic is surest: rejection", real, of(some(-sure, nobody))))
    found += [
        Lesson(f"the critic sees them as meant, {each} a class", real, of(some(chance, seen, each))) for each in COUNTS
    ]
    return found


def picks_of(pool: Pool, real: Labelled, count: int, whose: str) -> list[Lesson]:
    """`count` images a class of some, led or not: as they come, the critic's best, and what a student is asked about of
    those that it is surest of."""
    chance, sure, known = numpy_rng("picks").random(len(pool.asked)), pool.sure(pool.critic), pool.sure(pool.student)
    all_, half = np.ones(len(sure), bool), np.zeros(len(sure), bool)
    for one in np.unique(pool.asked):
        own = np.flatnonzero(pool.asked == one)
        half[own[np.argsort(-sure[own], kind="stable")[: int(SUREST * len(own))]]] = True
    ways = {
        "as they come": (chance, all_),
        "the critic is surest": (-sure, all_),
        "of the critic's surest half, at random": (chance, half),
        "of the critic's surest half, those a student knows best": (-known, half),
        "of the critic's surest half, those a student knows least": (known, half),
    }
    return [
        Lesson(f"{whose}, {name}", real, pool.take(by_class(pool.asked, count, order, among)))
        for name, (order, among) in ways.items()
    ]
