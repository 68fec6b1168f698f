"""What finished folds say together: the mean of single groups, or the test images of all patients as one set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi.evaluation.metrics import Scored, mean_score, point, rare_classes
from saadi.evaluation.results import CHOSEN, SCHEMA, gains_of, without_nan
from saadi.evaluation.statistics import Bootstrap, crossed_bootstrap
from saadi.records import LabelSpace
from saadi.seeds import seed_of


@dataclass(frozen=True)
class Fold:
    """A finished fold. `test`, `val`: its groups; `groups` [N]: those of its test images; `scored`: by arm, S trainings
    on these; `chosen`: the round that val chose; `further`: by arm, its further figures, IoU and the like, as far as
    there are any; `generated`: by arm, how many images were drawn for it."""

    name: str
    test: tuple[str, ...]
    val: tuple[str, ...]
    groups: NDArray[np.str_]
    scored: Mapping[str, Scored]
    chosen: str
    further: Mapping[str, Mapping[str, float]]
    generated: Mapping[str, int]

    @property
    def arms(self) -> dict[str, Scored]:
        """Its arms, and the round that val chose under a name of its own."""
        return {**self.scored, CHOSEN: self.scored[self.chosen]}

    def named(self, arm: str) -> str:
        """The arm that is meant."""
        return self.chosen if arm == CHOSEN else arm


def mean_of(boots: Sequence[Bootstrap]) -> Bootstrap:
    """The mean over folds, class by class, of those that have the class; and likewise of every resample."""

    def mean(parts: Sequence[Mapping[str, Any]], arm: str) -> Any:
        return mean_score(np.stack([part[arm] for part in parts], -1))

    points, draws = [boot.point for boot in boots], [boot.draws for boot in boots]
    return Bootstrap(
        {arm: mean(points, arm) for arm in points[0]}, {arm: mean(draws, arm) for arm in draws[0]}, "image"
    )


def by_group(scored: Scored, groups: NDArray[np.str_], asked: Sequence[int]) -> dict[str, float]:
    """An arm's metric on the images of each group alone, over the classes `asked` that these show; nan without any."""
    return {
        str(group): float(mean_score(point(scored.take(np.flatnonzero(groups == group))), asked))
        for group in np.unique(groups)
    }


def _least(more: Mapping[str, float], than: Mapping[str, float], names: Sequence[str]) -> list[Any]:
    """Where, among `names`, the gain is least, and how large it is there."""
    gains = {name: more[name] - than[name] for name in names if not np.isnan(more[name] - than[name])}
    name = min(gains, key=lambda name: gains[name])
    return [name, gains[name]]


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure the mean over the folds that have it."""
    told = dict.fromkeys(key for row in rows for key in row)
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in told}


def read_together(
    folds: Sequence[Fold], space: LabelSpace, counts: Mapping[str, int], resamples: int, seed: int
) -> dict[str, Any]:
    """All arms and gains over all folds, with None for what was not measured. `counts`: images of each class.

    Where each fold tests one group: the mean of the folds, and intervals from its images, given these groups. Else all
    test images are one set, of which the groups are resampled. Seeds are resampled in both.
    """
    single, asked = all(len(fold.test) == 1 for fold in folds), space.asked_ids
    each = {
        fold.name: crossed_bootstrap(fold.arms, fold.groups, resamples, seed_of(seed, "fold", fold.name))
        for fold in folds
    }
    first, *others = (fold.arms for fold in folds)
    whole = {arm: scored.joined([other[arm] for other in others]) for arm, scored in first.items()}
    groups = np.concatenate([fold.groups for fold in folds])
    boot = mean_of(list(each.values())) if single else crossed_bootstrap(whole, groups, resamples, seed)
    rare_names = rare_classes({name: counts[name] for name in space.asked})
    rare = [space.id(name) for name in rare_names]
    arms: dict[str, dict[str, Any]] = {}
    for arm, scored in whole.items():
        score, few = boot.interval(arm, asked), boot.interval(arm, rare)
        arms[arm] = {
            "mean": score.mean,
            "ci95": list(score.interval),
            "rare_mean": few.mean,
            "rare_ci95": list(few.interval),
            "per_class": {name: boot.interval(arm, (k,)).mean for k, name in enumerate(space.names)},
            "per_group": by_group(scored, groups, asked),
            "per_fold": {name: one.interval(arm, asked).mean for name, one in each.items()},
            **_means([fold.further[fold.named(arm)] for fold in folds]),
            "n_generated": sum(fold.generated[fold.named(arm)] for fold in folds),
        }
    gains = gains_of(boot, list(arms), asked, rare)
    for name, gain in gains.items():
        more, than = (arms[arm] for arm in name.split(" - "))
        gain["least_group"] = _least(more["per_group"], than["per_group"], list(more["per_group"]))
        gain["least_class"] = _least(more["per_class"], than["per_class"], space.asked)
    drawn = "the images of each fold's group" if single else "all groups"
    read = "the mean of the folds" if single else "the test images of all folds together"
    given = f"these {len(folds)} groups, and one generator a fold" if single else f"{len(folds)} generators, one a fold"
    found: dict[str, Any] = without_nan(
        {
            "schema": SCHEMA,
            "folds": {
                fold.name: {
                    "test": list(fold.test),
                    "val": list(fold.val),
                    "n_test": len(fold.groups),
                    "chosen": fold.chosen,
                }
                for fold in folds
            },
            "rare_classes": list(rare_names),
            "interval": {
                "method": f"bootstrap of {resamples} resamples over {drawn} and over training seeds, paired; {read}",
                "unit": "image" if single else "group",
                "given": f"given {given}",
            },
            "arms": arms,
            "gains": gains,
        }
    )
    return found
