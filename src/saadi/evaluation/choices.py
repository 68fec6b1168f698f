"""Choices made on val alone: each arm's mixing share, the round, and whether another round follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saadi.critics.tasks import TASKS
from saadi.data import Dataset
from saadi.evaluation.arms import Arm
from saadi.evaluation.metrics import mean_score, point
from saadi.evaluation.trainings import train_arms, val_answers
from saadi.store import Run


def shares_of(run: Run, arm: Arm) -> tuple[float, ...]:
    """The mixing shares an arm is trained with: none has nothing to mix."""
    return run.config.evaluation.mixing if arm.samples else (0.0,)


def levels(run: Run, data: Dataset, arm: Arm) -> dict[float, float]:
    """The task's metric on val, 0 .. 1, of an arm's trainings with each share, the mean over seeds."""
    val, task, seeds = data.split("val"), TASKS[run.config.task], range(run.config.evaluation.seeds)
    truth = val.targets(run.config.task)

    def level(share: float) -> float:
        answers = np.stack([val_answers(run, arm, share, seed) for seed in seeds])
        each = [point(task.scored(truth, one[None], len(data.space))) for one in answers]
        return float(np.mean([mean_score(one, data.space.asked_ids) for one in each]))

    return {share: level(share) for share in shares_of(run, arm)}


def choose(run: Run, data: Dataset, arms: Sequence[Arm]) -> dict[str, Any]:
    """Each arm's mixing share and level on val, and the round; all arms have equally many trials. `over`: why there
    were fewer rounds than there might have been, or None."""
    of = {arm.name: levels(run, data, arm) for arm in arms}
    mixing = {name: max(options, key=lambda share: options[share]) for name, options in of.items()}
    best = {name: of[name][share] for name, share in mixing.items()}
    rounds = [name for name in best if name.startswith("round-")]
    most, metric, over = run.config.rounds, TASKS[run.config.task].metric, None
    if len(rounds) < most:
        told = ", ".join(f"{name} {100 * best[name]:.1f} %" for name in ("unaligned", *rounds))
        over = f"{len(rounds)} of {most} rounds: {metric.replace('_', ' ')} on val rose no more ({told})"
    return {
        "mixing": mixing,
        f"val_{metric}": best,
        "round": max(rounds, key=lambda name: best[name]),
        "over": over,
    }


def stalled(reached: Sequence[float], patience: int) -> bool:
    """Whether the last `patience` of some levels, of which the first is without alignment, are none above the best
    before them."""
    return 0 < patience < len(reached) and max(reached[-patience:]) <= max(reached[:-patience])


def is_over(run: Run, data: Dataset, unaligned: Arm, rounds: Sequence[Arm]) -> bool:
    """Whether no round should follow, since val does not rise any more; trains the arms so far to know it."""
    config = run.config
    if not config.patience or len(rounds) == config.rounds:
        return False
    arms, seeds = [unaligned, *rounds], range(config.evaluation.seeds)
    train_arms(run, [(arm, share, seed) for seed in seeds for arm in arms for share in shares_of(run, arm)])
    return stalled([max(levels(run, data, arm).values()) for arm in arms], config.patience)
