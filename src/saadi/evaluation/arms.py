"""Stage 4 in a run's folder: the synthetic set of each arm, and the downstream trainings on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from saadi.config import ClassifierConfig
from saadi.critics.classifier import Labelled, restore, train_classifier
from saadi.critics.stages import Critic, save_classifier
from saadi.data import Dataset
from saadi.diffusion.stages import Sampler, device_of, read_images
from saadi.preferences import log_softmax
from saadi.records import Sample, Split, by_label, read_records, write_records
from saadi.seeds import seed_of
from saadi.store import Run, save_array
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


def training_stage(arm: Arm, share: float, seed: int) -> str:
    """The stage of one downstream training."""
    return f"evaluation/trainings/{arm.name}/mix-{share:g}/seed-{seed}"


def _recipe(run: Run, arm: Arm) -> ClassifierConfig:
    configured = run.config.evaluation.classifier
    return configured.model_copy(update={"model": arm.model}) if arm.model else configured


def train_arm(run: Run, data: Dataset, arm: Arm, share: float, seed: int) -> None:
    """One downstream training of an arm, and its log-probabilities on val."""
    recipe, device, classes = _recipe(run, arm), device_of(run.config), len(data.space)

    def make(folder: Path, progress: Progress) -> None:
        train, val = data.split("train"), data.split("val")
        synthetic = None
        if arm.samples:
            labels = np.array([data.space.id(sample.label) for sample in arm.samples])
            synthetic = Labelled(read_images(run.folder, arm.samples), labels)
        model = train_classifier(
            recipe,
            Labelled(np.array(train.images), train.labels),
            classes,
            seed_of(run.config.seed, "downstream", seed),
            synthetic=synthetic,
            share=share,
            device=device,
            progress=progress,
        )
        save_classifier(folder / "model.safetensors", model)
        save_array(folder / "val.npy", log_softmax(model.logits(val.images)))

    settings = [recipe.model_dump(mode="json"), share, seed, run.config.seed, run.config.threads]
    run.stage(training_stage(arm, share, seed), make, settings=settings, inputs=["data", *arm.inputs])


def predict(run: Run, data: Dataset, arm: Arm, share: float, seed: int, split: Split) -> NDArray[np.float64]:
    """Log-probabilities [N, C] of a finished training on `val` (kept) or `test` (computed now)."""
    folder = run.path(training_stage(arm, share, seed))
    if split == "val":
        values: NDArray[np.float64] = np.load(folder / "val.npy", allow_pickle=False)
        return values
    state = load_file(folder / "model.safetensors")
    model = restore(_recipe(run, arm), state, len(data.space), 1.0, device_of(run.config))
    return log_softmax(model.logits(data.split(split).images))
