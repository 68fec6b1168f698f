"""How sure a result is: a crossed bootstrap over groups and training seeds, paired between arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInput
from saadi.evaluation.metrics import Floats, Scored, mean_score
from saadi.seeds import numpy_rng

_BATCH = 256  # resamples worked out together: bounds memory, changes nothing


class Estimate(NamedTuple):
    """A value from the data as they are, and its 95 % percentile interval (low, high)."""

    mean: float
    interval: tuple[float, float]


def _estimate(point: Floats, draws: Floats) -> Estimate:
    known = draws[~np.isnan(draws)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return Estimate(float(point), (float(low), float(high)))


@dataclass(frozen=True)
class Bootstrap:
    """Scores by arm: `point` [C] from the data as they are, `draws` [resamples, C]; nan where a class has no image.

    `unit`: what was resampled beside the seeds: groups, or the images of the only group. In all methods `among` gives
    the classes (ids) whose scores are averaged: all by default, the rare ones, or a single one.
    Classes absent from a resample are left out of its mean; a resample with none of them is left out of the interval.
    All values are nan if the test images show none of them.
    """

    point: Mapping[str, Floats]
    draws: Mapping[str, Floats]
    unit: Literal["group", "image"]

    def interval(self, arm: str, among: Sequence[int] | None = None) -> Estimate:
        """Mean score of an arm, 0 .. 1, over its seeds."""
        return _estimate(mean_score(self.point[arm], among), mean_score(self.draws[arm], among))

    def difference(self, arm: str, other: str, among: Sequence[int] | None = None) -> Estimate:
        """Mean score of `arm` minus that of `other`, -1 .. 1, under the same draws for both."""
        point, draws = self._gain(arm, other, among)
        return _estimate(point, draws)

    def paired_p(self, arm: str, other: str, among: Sequence[int] | None = None) -> float:
        """Two-sided p-value of no difference: twice the share of resampled differences on the far side of zero.

        This inverts the percentile interval. One is added to count and resamples, as in Monte Carlo tests (Davison &
        Hinkley 1997, 4.2), so it is never 0; it is 1 where there is nothing to compare.
        """
        draws = self._gain(arm, other, among)[1]
        known = draws[~np.isnan(draws)]
        far = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
        return float(min(1.0, 2 * (far + 1) / (len(known) + 1)))

    def _gain(self, arm: str, other: str, among: Sequence[int] | None) -> tuple[Floats, Floats]:
        point = mean_score(self.point[arm], among) - mean_score(self.point[other], among)
        return point, mean_score(self.draws[arm], among) - mean_score(self.draws[other], among)


def crossed_bootstrap(
    scored: Mapping[str, Scored], groups: NDArray[Any], resamples: int = 2000, seed: int = 0
) -> Bootstrap:
    """Resample groups (patients, videos) and training seeds, each with replacement and independently of each other.

    `scored`: by arm, a tally or its like of S trainings on the same N test images; `groups` [N], of any sortable type.
    A drawn group brings all its images, as often as it is drawn. Every arm gets the same draws of groups
    and of seeds, so differences are paired: training i of all arms shares what can be shared, such as the order of real
    batches. This is the pigeonhole bootstrap (Owen 2007, doi:10.1214/07-AOAS122). Its intervals are too wide, by up to
    sqrt(3), where the noise of single predictions outweighs what groups and seeds have in common, and too narrow where
    there are few (n) groups or seeds: like any bootstrap's by up to sqrt(1 - 1/n), and beyond that since their spread
    is itself an estimate; of three trainings whose differences are of one sign no resample has another. How often that
    finds what is not there: `benchmarks/intervals.py`.

    With one group, its images are resampled instead, and `unit` is "image": what is found holds for that group alone.
    With one seed it holds for that training alone. Raises `BadInput` where shapes do not fit each other.
    """
    if not scored or resamples < 1:
        raise BadInput(f"bootstrap: {len(scored)} arms, {resamples} resamples; at least one of each is needed")
    first = next(iter(scored.values())).shape
    for name, one in scored.items():
        if len(one.shape) != 3 or one.shape != first:
            raise BadInput(f"tally of {name}: shape {one.shape}; all arms need the same (trainings, images, classes)")
    seeds, images, _ = first
    if len(groups) != images:
        raise BadInput(f"groups: {len(groups)} for {images} images; give one for each image")

    names, unit_of = np.unique(groups, return_inverse=True)
    unit: Literal["group", "image"] = "group" if len(names) > 1 else "image"
    if unit == "image":
        unit_of = np.arange(images)
    units = int(unit_of.max()) + 1
    unit_rng, seed_rng = numpy_rng(seed, "bootstrap", unit), numpy_rng(seed, "bootstrap", "seed")
    sizes = [min(_BATCH, resamples - start) for start in range(0, resamples, _BATCH)]
    drawn = [(np.ones((1, units)), np.ones((1, seeds)))]  # the data as they are, then what is drawn
    drawn += [(_drawn(unit_rng, size, units), _drawn(seed_rng, size, seeds)) for size in sizes]
    scorings = {name: one.scoring(unit_of) for name, one in scored.items()}
    values = {name: np.concatenate([scores(*each) for each in drawn]) for name, scores in scorings.items()}
    return Bootstrap(
        {name: rows[0] for name, rows in values.items()}, {name: rows[1:] for name, rows in values.items()}, unit
    )


def _drawn(rng: np.random.Generator, size: int, things: int) -> Floats:
    """How often each of `things` is drawn in `things` draws with replacement, `size` times over: [size, things]."""
    picks = rng.integers(things, size=(size, things)) + things * np.arange(size)[:, None]
    return np.bincount(picks.ravel(), minlength=size * things).reshape(size, things).astype(np.float64)


def paired_mean(differences: Floats, resamples: int, seed: int) -> Estimate:
    """The mean of N paired differences, and its interval when these are resampled."""
    counts = _drawn(numpy_rng(seed, "bootstrap", "paired"), resamples, len(differences))
    return _estimate(np.asarray(np.mean(differences)), counts @ differences / len(differences))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for testing all of them (Holm 1979), in the given order.

    Call those below a level findings, and the chance of any false one is at most that level, however the tests depend
    on each other. Raises `BadInput` if a p-value is not within 0 .. 1.
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise BadInput(f"p-value of {name}: {p}; it must lie within 0 and 1")
    adjusted: dict[str, float] = {}
    floor = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = floor
    return {name: adjusted[name] for name in p_values}
