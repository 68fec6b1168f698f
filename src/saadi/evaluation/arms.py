"""Stage 4 in a run's folder: the ways of using images that are compared, and the critic's pick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saadi.config import EvaluationConfig
from saadi.critics.judging import Critic, forget_scores, scored
from saadi.data.conditions import conditions_of
from saadi.diffusion.drawing import unet_passes
from saadi.diffusion.painting import Sampler
from saadi.records import Sample, by_condition, by_label, read_records, write_records
from saadi.store import Run
from saadi.training import Progress


@dataclass(frozen=True)
class Arm:
    """One way of using images. `generated`: images drawn to get the set, with pools; `passes`: UNet passes behind it.

    `inputs`: the stages the set came from. `recipe`: how its trainings differ from `evaluation.classifier`.
    """

    name: str
    samples: tuple[Sample, ...] = ()
    generated: int = 0
    passes: int = 0
    inputs: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)


RIVALS: dict[str, dict[str, Any]] = {
    "randaugment": {"augment": "randaugment"},
    "mixup": {"mix": "mixup"},
    "cutmix": {"mix": "cutmix"},
}
"""By the names of `evaluation.rivals` that need no diffusion model, how their trainings differ."""


def real_arms(config: EvaluationConfig, *, dense: bool) -> list[Arm]:
    """`real`, and what else can be had without a synthetic image: what the configuration names, and two that are always
    there.

    The pretext world's backbone, or none where all arms start from it: the generator has seen that world, so a
    classifier that has not is at a disadvantage no synthetic image should be praised for making up. And, where the arms
    do without, full augmentation.
    """
    kind, classifier = "unet" if dense else "cnn", config.classifier
    arms = [Arm("real")]
    if classifier.augment != "full":
        arms.append(Arm("real-augmented", recipe={"augment": "full"}))
    arms += [Arm(f"real-{name}", recipe=RIVALS[name]) for name in config.rivals]
    if config.strong:
        arms.append(Arm("real-strong", recipe=config.strong.model_dump()))
    if classifier.model == f"pretext-{kind}":
        return [*arms, Arm("real-scratch", recipe={"model": f"small-{kind}"})]
    return [*arms, Arm("real-pretrained", recipe={"model": f"pretext-{kind}"})]


def select_best(
    samples: Sequence[Sample], values: Sequence[float], right: Sequence[bool], per_class: int
) -> list[Sample]:
    """The critic's pick (rejection sampling): the `per_class` best of each class, right ones first; ties by id.

    Where a class has several conditions, the pick is within each, as pairs are, and takes the same share of each, at
    least its best, in the order the conditions came in: what is asked for stays as it was. Easy layouts, which score
    well however they are drawn, must not push out the others, nor may rare sets of classes push out the frequent.
    """
    rank = {s.id: (not r, -v, s.id) for s, v, r in zip(samples, values, right, strict=True)}
    chosen: list[Sample] = []
    for members in by_label(list(samples)).values():
        turn: dict[str, tuple[int, int, int]] = {}
        for number, own in enumerate(by_condition(members).values()):
            due = max(1, round(len(own) * per_class / len(members)))
            for k, sample in enumerate(sorted(own, key=lambda one: rank[one.id])):
                turn[sample.id] = (k // due, k, number)
        chosen += sorted(members, key=lambda sample: turn[sample.id])[:per_class]
    return chosen


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
) -> list[Sample]:
    """An arm's synthetic set: `per_class` images of each class of `budget` in all, `pool` among them.

    Where there are more than are used, the critic that made the pairs picks. Sets of the same `noise` start from the
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
            forget_scores(run, folder)
            samples = select_best(samples, [s.value for s in scores], [s.right for s in scores], per_class)
        if run.team.leads:
            write_records(folder / "drawn.jsonl", drawn)
            write_records(folder / "samples.jsonl", samples)

    config = run.config
    settings = [
        *(budget, per_class, config.sampling.model_dump(mode="json"), config.layouts.model_dump(mode="json")),
        *(config.preferences.criterion, config.preferences.penalties, *sampler.settings),
    ]
    stages = ["critic", *inputs] if picks else inputs
    folder = run.stage(f"evaluation/sets/{name}", make, settings=settings, inputs=stages, together=True)
    return read_records(folder / "samples.jsonl", Sample)


def unpicked(run: Run, arm: Arm, size: int) -> Arm:
    """A control: the first `size` of the images that the arm's last model drew for its set, as they come."""
    (stage,) = arm.inputs
    drawn = read_records(run.path(stage) / "drawn.jsonl", Sample)
    spared = len(drawn) - size
    passes = arm.passes - unet_passes(spared, run.config.sampling)
    return Arm("unpicked", tuple(drawn[:size]), arm.generated - spared, passes, (stage,))
