"""How often a crossed bootstrap finds a difference where there is none, by the number of trainings and their spread.

    python benchmarks/intervals.py

Two arms of the same accuracy, on 1,600 images of eight classes and 20 patients, who differ in how hard they are; each
training of either arm is better or worse than the others by luck. Told: the share of p-values below 0.05, which is 0.05
where intervals are as wide as they should be.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from saadi.evaluation.metrics import tally_recalls
from saadi.evaluation.statistics import crossed_bootstrap

PATIENTS, IMAGES, CLASSES = 20, 80, 8
LOGITS = (0.05, 0.1, 0.2)
"""Standard deviations of a training's luck, in logits: some 1.2, 2.4 and 4.7 points of accuracy at 62 %."""
POINTS = 23.5
"""Points of accuracy a logit, there."""


def found_by_chance(trainings: int, spread: float, repeats: int, rng: np.random.Generator) -> float:
    """The share of `repeats` in which two equal arms differ at 0.05."""
    groups = np.repeat(np.arange(PATIENTS), IMAGES)
    labels = np.tile(np.arange(CLASSES), len(groups) // CLASSES)
    found = 0
    for repeat in range(repeats):
        ease = 0.5 + rng.normal(0, 0.3, PATIENTS)[groups]
        arms = {}
        for name in ("one", "other"):
            luck = rng.normal(0, spread, (trainings, 1))
            right = rng.random((trainings, len(groups))) < 1 / (1 + np.exp(-(ease + luck)))
            arms[name] = tally_recalls(labels, np.where(right, labels, (labels + 1) % CLASSES), CLASSES)
        found += crossed_bootstrap(arms, groups, 1000, repeat).paired_p("one", "other") < 0.05
    return found / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--repeats", type=int, default=300)
    args = parser.parse_args()
    table = Table("trainings", *(f"luck of {POINTS * spread:.1f} points" for spread in LOGITS))
    for trainings in args.trainings:
        rng = np.random.default_rng(0)
        shares = [found_by_chance(trainings, spread, args.repeats, rng) for spread in LOGITS]
        table.add_row(str(trainings), *(f"{share:.2f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
