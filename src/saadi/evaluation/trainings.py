"""Stage 4 in a run's folder: the downstream trainings of every arm, and what they predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from saadi.config import ClassifierConfig, RunConfig
from saadi.critics.architectures import contents
from saadi.critics.downstream import Labelled, Network, restore, train_network
from saadi.critics.judging import save_network
from saadi.critics.tasks import TASKS
from saadi.data import Dataset
from saadi.data.conditions import requests_of
from saadi.data.stages import data_of
from saadi.diffusion.painting import read_images, read_masks
from saadi.evaluation.arms import Arm
from saadi.files import save_array
from saadi.records import Sample, Split, to_record, write_atomic
from saadi.runtime import device_of
from saadi.seeds import seed_of
from saadi.store import Run, silent
from saadi.training import Progress
from saadi.workers import Context, Fetch


@dataclass(frozen=True)
class Training:
    """One downstream training: with `samples` as `share` of each batch. `recipe`: what differs from the configured."""

    recipe: dict[str, Any]
    samples: tuple[Sample, ...]
    share: float
    seed: int

    @classmethod
    def of(cls, values: dict[str, Any]) -> Training:
        """From what `dataclasses.asdict` made of one."""
        return cls(**{**values, "samples": tuple(to_record(sample, Sample) for sample in values["samples"])})


def stage_of(arm: str, share: float, seed: int) -> str:
    """The stage that a training is."""
    return f"evaluation/trainings/{arm}/mix-{share:g}/seed-{seed}"


def _recipe(config: RunConfig, other: dict[str, Any]) -> ClassifierConfig:
    return config.evaluation.classifier.model_copy(update=other)


def train(context: Context, out: Path, *, training: dict[str, Any]) -> None:
    """A job: a `Training`, as `dataclasses.asdict` has it: the model, and what the task keeps of its answers on val."""
    config, this = context.config, Training.of(training)
    data = data_of(context)
    real, val = data.split("train"), data.split("val")
    synthetic = None
    if this.samples:
        synthetic = Labelled(
            read_images(context.root, this.samples), targets_of(config, context.root, data, this.samples)
        )
    model = train_network(
        TASKS[config.task],
        _recipe(config, this.recipe),
        Labelled(real.images, real.targets(config.task)),
        len(data.space),
        seed_of(config.seed, "downstream", this.seed),
        synthetic=synthetic,
        share=this.share,
        device=device_of(config),
    )
    save_network(out / "model.safetensors", model)
    save_array(out / "val.npy", model.answers(val.images))


def targets_of(config: RunConfig, root: Path, data: Dataset, samples: Sequence[Sample]) -> NDArray[Any]:
    """What samples of a run were asked to show, as `Dataset.targets` has it of real images."""
    if config.task == "segmentation":
        return read_masks(root, samples)
    (wanted,) = requests_of(config, data, [sample.condition for sample in samples], None)
    return wanted


def train_arms(run: Run, jobs: Sequence[tuple[Arm, float, int]]) -> None:
    """Every training (arm, share, seed) that is not done, side by side."""
    report = run.begin("evaluation/trainings")
    todo: list[tuple[str, Fetch | None, list[Any], list[str]]] = []
    for arm, share, seed in jobs:
        stage = stage_of(arm.name, share, seed)
        recipe = _recipe(run.config, arm.recipe)
        settings = [recipe.model_dump(mode="json"), share, seed, run.config.seed, *contents(recipe.model)]
        inputs = ["data", *arm.inputs]
        fetch = None
        if not run.is_done(stage, settings=settings, inputs=inputs):
            fetch = run.crew.job(train, training=asdict(Training(arm.recipe, arm.samples, share, seed)))
        todo.append((stage, fetch, settings, inputs))
    for done, (stage, fetch, settings, inputs) in enumerate(todo, 1):

        def make(folder: Path, _: Progress, fetch: Fetch | None = fetch) -> None:
            assert fetch is not None  # or the stage would be done
            fetch(folder)

        run.stage(stage, make, settings=settings, inputs=inputs, progress=silent(stage), together=True)
        report(done, len(todo))


def val_answers(run: Run, arm: Arm, share: float, seed: int) -> NDArray[Any]:
    """What a finished training says of `val` [N, ...], see `Downstream.answer`."""
    values: NDArray[Any] = np.load(run.path(stage_of(arm.name, share, seed)) / "val.npy", allow_pickle=False)
    return values


def open_trained(context: Context, training: str, recipe: dict[str, Any]) -> Network:
    """The network of a finished training, by its stage and how its recipe differs from the configured."""
    config = context.config
    state, classes = load_file(context.root / training / "model.safetensors"), len(data_of(context).space)
    return restore(TASKS[config.task], _recipe(config, recipe), state, classes, 1.0, device_of(config))


def tell(context: Context, out: Path, *, trainings: list[str], recipe: dict[str, Any], split: Split) -> None:
    """A job: what an arm's finished trainings say of a split [T, N, ...], and the task's further figures of it."""
    data, task = data_of(context), TASKS[context.config.task]
    shown = data.split(split)
    answers = np.stack([open_trained(context, training, recipe).answers(shown.images) for training in trainings])
    save_array(out / "answers.npy", answers)
    further = task.extra(shown.targets(context.config.task), answers, len(data.space))
    write_atomic(out / "further.json", json.dumps(further))  # nan and all


def wonder(context: Context, out: Path, *, student: str, samples: list[dict[str, Any]]) -> None:
    """A job: how much some samples, as `dataclasses.asdict` has them, surprise the network of a finished training of
    the plain recipe, in the task's loss; named by the first."""
    task, wanted = TASKS[context.config.task], [to_record(values, Sample) for values in samples]
    model = context.keep("student", student, lambda: open_trained(context, student, {}))
    asked = targets_of(context.config, context.root, data_of(context), wanted)
    found = []
    for rows, logits in model.pieces(read_images(context.root, wanted)):
        pairs = zip(torch.from_numpy(logits)[:, None], torch.from_numpy(asked[rows])[:, None], strict=True)
        found += [float(task.surprise(*one)) for one in pairs]  # each by itself
    save_array(out / f"{wanted[0].id}-surprise.npy", np.array(found))
