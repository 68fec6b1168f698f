"""Stage 4 in a run's folder: the downstream trainings of every arm, and what they predict."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from saadi.config import ClassifierConfig, RunConfig
from saadi.critics.classifier import Labelled, restore, train_classifier
from saadi.critics.stages import save_classifier
from saadi.data import Dataset
from saadi.diffusion.stages import device_of, read_images
from saadi.evaluation.arms import Arm
from saadi.preferences import log_softmax
from saadi.records import Sample, Split
from saadi.seeds import seed_of
from saadi.store import Run, save_array, silent
from saadi.training import Progress
from saadi.workers import MOST, Workers

Make = Callable[[Path, Progress], None]


@dataclass(frozen=True)
class Training:
    """One downstream training of an arm: with its samples as `share` of each batch."""

    arm: str
    model: str | None
    samples: tuple[Sample, ...]
    share: float
    seed: int

    @classmethod
    def of(cls, values: dict[str, Any]) -> Training:
        """From what `dataclasses.asdict` made of one."""
        return cls(**{**values, "samples": tuple(Sample(**sample) for sample in values["samples"])})

    @property
    def stage(self) -> str:
        """The name of its stage."""
        return _stage(self.arm, self.share, self.seed)


def _stage(arm: str, share: float, seed: int) -> str:
    return f"evaluation/trainings/{arm}/mix-{share:g}/seed-{seed}"


def _recipe(config: RunConfig, model: str | None) -> ClassifierConfig:
    configured = config.evaluation.classifier
    return configured.model_copy(update={"model": model}) if model else configured


def train(
    root: Path, config: RunConfig, data: Dataset, training: Training, out: Path, progress: Progress | None = None
) -> None:
    """Do one training of the run in `root`: the model, and its log-probabilities on val, go into `out`."""
    real, val = data.split("train"), data.split("val")
    synthetic = None
    if training.samples:
        labels = np.array([data.space.id(sample.label) for sample in training.samples])
        synthetic = Labelled(read_images(root, training.samples), labels)
    model = train_classifier(
        _recipe(config, training.model),
        Labelled(np.array(real.images), real.labels),
        len(data.space),
        seed_of(config.seed, "downstream", training.seed),
        synthetic=synthetic,
        share=training.share,
        device=device_of(config),
        progress=progress,
    )
    out.mkdir(parents=True, exist_ok=True)
    save_classifier(out / "model.safetensors", model)
    save_array(out / "val.npy", log_softmax(model.logits(val.images)))


def train_arms(run: Run, data: Dataset, jobs: Sequence[tuple[Arm, float, int]]) -> None:
    """Every training (arm, share, seed) that is not done: side by side in processes of one thread, on a GPU or with a
    single thread here and in turn. A CPU's results depend on neither the processes' number nor their order."""
    parts, report = run.folder / ".trainings", run.begin("evaluation/trainings")
    shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed
    threads = torch.get_num_threads() if device_of(run.config).type == "cpu" else 1
    count = min(threads, MOST) if threads > 1 else 0
    with Workers("saadi.evaluation.worker", [str(run.folder)], count) as workers:
        todo: list[tuple[str, Make, list[Any], list[str]]] = []
        for arm, share, seed in jobs:
            training = Training(arm.name, arm.model, arm.samples, share, seed)
            settings = [_recipe(run.config, arm.model).model_dump(mode="json"), share, seed, run.config.seed]
            inputs = ["data", *arm.inputs]
            make: Make = partial(_train_here, run, data, training)
            if count and not run.is_done(training.stage, settings=settings, inputs=inputs):
                # A worker may outlive a parent that was killed: it must not write where the next parent's do.
                part = parts / f"{os.getpid()}-{len(todo)}"
                answer = workers.submit({"training": asdict(training), "out": str(part)})
                make = partial(_fetch, run, part, answer, count)
            todo.append((training.stage, make, settings, inputs))
        for done, (stage, make, settings, inputs) in enumerate(todo, 1):
            run.stage(stage, make, settings=settings, inputs=inputs, progress=silent(stage))
            report(done, len(todo))
    shutil.rmtree(parts, ignore_errors=True)


def _train_here(run: Run, data: Dataset, training: Training, folder: Path, progress: Progress) -> None:
    train(run.folder, run.config, data, training, folder, progress)


def _fetch(run: Run, part: Path, answer: Future[dict[str, Any]], count: int, folder: Path, _: Progress) -> None:
    """Wait for a worker's training and take what it has written."""
    run.note_memory(count * int(answer.result()["peak_memory"]))
    for path in part.iterdir():
        path.replace(folder / path.name)


def predict(run: Run, data: Dataset, arm: Arm, share: float, seed: int, split: Split) -> NDArray[np.float64]:
    """Log-probabilities [N, C] of a finished training on `val` (kept) or `test` (computed now)."""
    folder = run.path(_stage(arm.name, share, seed))
    if split == "val":
        values: NDArray[np.float64] = np.load(folder / "val.npy", allow_pickle=False)
        return values
    state = load_file(folder / "model.safetensors")
    model = restore(_recipe(run.config, arm.model), state, len(data.space), 1.0, device_of(run.config))
    return log_softmax(model.logits(data.split(split).images))
