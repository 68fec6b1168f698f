"""Stage 4 in a run's folder: what is drawn for an arm, and what of it is picked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from saadi.critics.judging import AT_ONCE, WORK, Critic, forget_scores, scored
from saadi.data.conditions import conditions_of
from saadi.diffusion.drawing import unet_passes
from saadi.diffusion.painting import Sampler
from saadi.evaluation.arms import Arm
from saadi.evaluation.trainings import wonder
from saadi.records import Sample, by_condition, by_label, read_records, write_records
from saadi.store import Run
from saadi.training import Progress

SUREST = 0.5
"""Of what is drawn for a condition, the share that the critic is surest of: of these, a student's pick."""


def select(
    samples: Sequence[Sample],
    values: Sequence[float],
    right: Sequence[bool],
    per_class: int,
    surprise: Sequence[float] | None = None,
) -> list[Sample]:
    """The pick: `per_class` of each class, the critic's best (rejection sampling), right ones first; ties by id.

    With a student's `surprise` at each: of the `SUREST` of each condition, those that surprise it most. What the critic
    is sure of is right; what the student expects teaches it nothing.

    Where a class has several conditions, the pick is within each, as pairs are, and takes the same share of each, at
    least its best, in the order the conditions came in: what is asked for stays as it was. Easy layouts, which score
    well however they are drawn, must not push out the others, nor may rare sets of classes push out the frequent.
    """
    rank = {s.id: (not r, -v, s.id) for s, v, r in zip(samples, values, right, strict=True)}
    new = {s.id: -one for s, one in zip(samples, surprise, strict=True)} if surprise is not None else {}
    chosen: list[Sample] = []
    for members in by_label(list(samples)).values():
        turn: dict[str, tuple[int, int, int]] = {}
        for number, own in enumerate(by_condition(members).values()):
            due = max(1, round(len(own) * per_class / len(members)))
            ranked = sorted(own, key=lambda one: rank[one.id])
            if new:
                sure = max(due, math.ceil(SUREST * len(own)))
                ranked[:sure] = sorted(ranked[:sure], key=lambda one: (rank[one.id][0], new[one.id], one.id))
            for k, sample in enumerate(ranked):
                turn[sample.id] = (k // due, k, number)
        chosen += sorted(members, key=lambda sample: turn[sample.id])[:per_class]
    return chosen


def surprises(run: Run, student: str, samples: Sequence[Sample], folder: Path) -> list[float]:
    """How much samples on disk surprise the network of a finished training [N]; kept beside their scores."""
    work = folder / WORK
    chunks = [samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE)]
    files = {work / f"{chunk[0].id}-surprise.npy": chunk for chunk in chunks}
    missing = [files[file] for file in run.team.lacking(list(files), Path.exists)]
    jobs = [run.crew.job(wonder, student=student, samples=[asdict(sample) for sample in chunk]) for chunk in missing]
    for fetch in jobs:
        fetch(work)
    return [float(one) for file in files for one in np.load(file, allow_pickle=False)]


def final_set(
    run: Run,
    sampler: Sampler,
    critic: Critic,
    name: str,
    per_class: int,
    inputs: Sequence[str],
    *,
    budget: int,
    pool: Sequence[Sample] = (),
    noise: str,
    student: str | None = None,
) -> list[Sample]:
    """An arm's synthetic set: `per_class` images of each class of `budget` in all, `pool` among them.

    Where there are more than are used, the critic that made the pairs picks, or, of what it is surest of, a `student`:
    the stage of a finished training. Sets of the same `noise` start from the
    same, so that two arms differ by their models, not by the luck of the draw. What is drawn here, and not from the
    pool, is listed in `drawn.jsonl`.
    """
    names, condition = sampler.space.asked, conditions_of(run.config, critic.train, "set")
    picks = budget > per_class * len(names)

    def make(folder: Path, progress: Progress) -> None:
        turns = [(names[i % len(names)], i // len(names)) for i in range(budget - len(pool))]
        requests = [(condition(label, turn % per_class), turn) for label, turn in turns]
        drawn = sampler.draw(folder, requests, f"set-{name}", progress, noise)
        samples = [*pool, *drawn]
        if picks:
            scores = scored(run, critic, samples, folder)
            new = None if student is None else surprises(run, student, samples, folder)
            forget_scores(run, folder)
            samples = select(samples, [s.value for s in scores], [s.right for s in scores], per_class, new)
        if run.team.leads:
            write_records(folder / "drawn.jsonl", drawn)
            write_records(folder / "samples.jsonl", samples)

    config = run.config
    settings = [
        *(budget, per_class, config.sampling.model_dump(mode="json"), config.layouts.model_dump(mode="json")),
        *(config.preferences.criterion, config.preferences.penalties, *sampler.settings),
    ]
    stages = [*inputs, *picks * ("critic", *filter(None, [student]))]
    folder = run.stage(f"evaluation/sets/{name}", make, settings=settings, inputs=stages, together=True)
    return read_records(folder / "samples.jsonl", Sample)


def unpicked(run: Run, arm: Arm, size: int) -> Arm:
    """A control: the first `size` of the images that the arm's last model drew for its set, as they come."""
    (stage,) = arm.inputs
    drawn = read_records(run.path(stage) / "drawn.jsonl", Sample)
    spared = len(drawn) - size
    passes = arm.passes - unet_passes(spared, run.config.sampling)
    return Arm("unpicked", tuple(drawn[:size]), arm.generated - spared, passes, (stage,))
