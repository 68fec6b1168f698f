"""Stage 4 in a run's folder: the ways of using images that are compared, and the rival that picks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saadi.critics.stages import Critic
from saadi.diffusion.stages import Sampler
from saadi.records import Sample, by_label, read_records, write_records
from saadi.store import Run
from saadi.training import Progress


@dataclass(frozen=True)
class Arm:
    """One way of using images. `generated`: images drawn to get the set, with pools; `passes`: UNet passes behind it.

    `inputs`: the stages the set came from. `model`: another downstream model than the configured one.
    """

    name: str
    samples: tuple[Sample, ...] = ()
    generated: int = 0
    passes: int = 0
    inputs: tuple[str, ...] = ()
    model: str | None = None


def control_arm(model: str) -> Arm:
    """What the pretext world alone is worth: `real` with its backbone, or without it where all arms start from it.

    The generator has seen that world, so a classifier that has not is at a disadvantage no synthetic image should be
    praised for making up.
    """
    if model == "pretext-cnn":
        return Arm("real-scratch", model="small-cnn")
    return Arm("real-pretrained", model="pretext-cnn")


def select_best(
    samples: Sequence[Sample], values: Sequence[float], right: Sequence[bool], per_class: int
) -> list[Sample]:
    """Rejection sampling: the `per_class` best of each class, right ones first; ties by id."""
    rank = {s.id: (not r, -v, s.id) for s, v, r in zip(samples, values, right, strict=True)}
    chosen: list[Sample] = []
    for members in by_label(list(samples)).values():
        chosen += sorted(members, key=lambda sample: rank[sample.id])[:per_class]
    return chosen


def rejection_set(
    run: Run,
    sampler: Sampler,
    critic: Critic,
    pool: Sequence[Sample],
    budget: int,
    per_class: int,
    inputs: Sequence[str],
) -> list[Sample]:
    """The best of `budget` images of the unaligned model, `pool` among them, by the critic that made the pairs."""
    names = sampler.space.names

    def make(folder: Path, progress: Progress) -> None:
        extra = max(0, budget - len(pool))
        requests = [(names[i % len(names)], i // len(names)) for i in range(extra)]
        samples = [*pool, *sampler.draw(folder, requests, "rejection", progress)]
        scores = critic.scores(run, samples)
        chosen = select_best(samples, [s.value for s in scores], [s.right for s in scores], per_class)
        write_records(folder / "samples.jsonl", chosen)

    settings = [budget, per_class, run.config.sampling.model_dump(mode="json"), critic.criterion]
    folder = run.stage("evaluation/sets/rejection", make, settings=settings, inputs=inputs)
    return read_records(folder / "samples.jsonl", Sample)
