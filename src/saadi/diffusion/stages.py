"""Stages 1 and 4 of the method in a run's folder: the base model, and drawing samples from any round's model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saadi.config import LABEL, RunConfig
from saadi.data import Dataset
from saadi.data.stages import read_data
from saadi.diffusion.base import prompt_table, train_denoiser
from saadi.diffusion.generator import (
    Generator,
    build_tiny,
    draw,
    encode_images,
    encode_prompts,
    learn_words,
    load_generator,
    save_generator,
)
from saadi.diffusion.lora import apply_adapter
from saadi.diffusion.objective import Clean
from saadi.foundation import foundation_folder
from saadi.records import LabelSpace, Sample
from saadi.runtime import device_of
from saadi.seeds import seed_of
from saadi.store import Run, file_digest
from saadi.training import Progress, Recipe, write_log
from saadi.workers import Context


def prompts_of(config: RunConfig, space: LabelSpace) -> list[str]:
    """The prompt of each class, in the order of the ids."""
    return [config.base.prompt.replace(LABEL, name) for name in space.names]


def start_folder(config: RunConfig) -> Path:
    """The folder of the model stage 1 starts from."""
    return foundation_folder() if config.base.model == "tiny" else Path(config.base.model)


def open_start(config: RunConfig, labels: Sequence[str]) -> Generator:
    """The model stage 1 starts from: a Stable Diffusion folder, or the foundation, to which `labels` are new words."""
    generator = load_generator(start_folder(config))
    # The stock pipeline draws at the size the UNet's configuration says: the run's, whatever the model was made for.
    generator.unet.register_to_config(sample_size=config.data.size // generator.cell)
    if config.base.model != "tiny":
        return generator
    if config.base.from_scratch:
        torch.manual_seed(seed_of(config.seed, "scratch"))
        fresh = build_tiny()
        generator.unet, generator.text_encoder = fresh.unet, fresh.text_encoder
        generator.tokenizer = fresh.tokenizer
    words = [word for name in labels for word in re.findall("[a-z]+", name.lower())]
    learn_words(generator, words, seed_of(config.seed, "words"))
    return generator


def train_base(run: Run, data: Dataset) -> None:
    """Stage 1 (SSD): fine-tune on the training images into `base/model`."""
    config = run.config

    def make(folder: Path, progress: Progress) -> None:
        generator = open_start(config, data.space.names).to(device_of(config))
        train = data.split("train")
        images = Clean.whole(encode_images(generator, train.images).cpu())
        rows = train_denoiser(
            generator,
            lambda index, _: images.take(torch.from_numpy(index)),
            train.labels,
            prompts_of(config, data.space),
            Recipe(config.base.steps, config.base.lr, ema=0.99, weight_decay=0.01),
            batch=config.base.batch,
            balance=config.base.balance,
            seed=seed_of(config.seed, "base"),
            checkpoint=folder / "checkpoint.safetensors",
            progress=progress,
        )
        save_generator(generator, folder / "model")
        write_log(folder / "log.jsonl", rows)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)

    # A user's own folder may be gone when a finished base is resumed; the shipped one comes with each installation.
    shipped = sorted(foundation_folder().glob("*/*.safetensors")) if config.base.model == "tiny" else []
    weights = [file_digest(path) for path in shipped]
    settings = [config.base.model_dump(mode="json"), config.seed, config.threads, weights]
    run.stage("base", make, settings=settings, inputs=["data"])


def model_at(root: Path, config: RunConfig, adapters: Sequence[str]) -> Generator:
    """The base model of the run in `root` with the adapters of some stages folded in, on the run's device."""
    generator = load_generator(root / "base" / "model")
    pipe = generator.pipeline()
    for stage in adapters:
        apply_adapter(pipe, root / stage)
    return generator.to(device_of(config))


@dataclass(frozen=True)
class Painter:
    """A model and its prompts, encoded: of each class [C, T, D], and the blank one [1, T, D]."""

    model: Generator
    embeddings: Tensor
    blank: Tensor

    @classmethod
    def open(cls, root: Path, config: RunConfig, adapters: Sequence[str]) -> Painter:
        """The model of the run in `root` with some adapters. Raises `BadInput` for prompts it cannot tell apart."""
        model = model_at(root, config, adapters)
        prompts = prompts_of(config, read_data(root / "data").space)
        prompt_table(model, prompts)
        embeddings = encode_prompts(model, [*prompts, ""])
        return cls(model, embeddings[:-1], embeddings[-1:])


def paint(
    context: Context, out: Path, *, adapters: list[str], labels: list[int], seeds: list[int], files: list[str]
) -> None:
    """A job: one micro-batch of images, of classes `labels` and each from its own seed, as PNG."""
    root, config = context.root, context.config
    painter = context.keep("painter", adapters, lambda: Painter.open(root, config, adapters))
    rows = torch.tensor(labels, device=painter.model.device)
    images = draw(painter.model, painter.embeddings[rows], painter.blank, seeds, config.sampling)
    for name, image in zip(files, images, strict=True):
        save_png(out / name, image)


class Sampler:
    """Draws labelled images from one model into a folder, in fixed micro-batches, each image from its own seed."""

    def __init__(self, run: Run, space: LabelSpace, adapters: Sequence[str], round_: int) -> None:
        self.run, self.space, self.round = run, space, round_
        self.adapters = tuple(adapters)

    def draw(
        self,
        folder: Path,
        requests: Sequence[tuple[str, int]],
        tag: str,
        progress: Progress,
        noise: str,
    ) -> list[Sample]:
        """Images for requests (label, index) as PNG; what is there already is kept.

        `tag` names the samples, `noise` the noise they start from.
        """
        config = self.run.config
        samples = [
            Sample(
                id=f"{tag}-{self.space.id(label):02d}-{index:05d}",
                label=label,
                round=self.round,
                seed=seed_of(config.seed, noise, label, index),
                file=str((folder / f"{self.space.id(label):02d}-{index:05d}.png").relative_to(self.run.folder)),
            )
            for label, index in requests
        ]
        size = config.sampling.batch
        chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
        missing = [chunk for chunk in chunks if not all((self.run.folder / one.file).exists() for one in chunk)]
        jobs = [
            self.run.crew.job(
                paint,
                adapters=list(self.adapters),
                labels=[self.space.id(sample.label) for sample in chunk],
                seeds=[sample.seed for sample in chunk],
                files=[Path(sample.file).name for sample in chunk],
            )
            for chunk in missing
        ]
        for done, fetch in enumerate(jobs, len(chunks) - len(missing) + 1):
            fetch(folder)
            progress(min(done * size, len(samples)), len(samples))
        self.run.crew.forget("painter")
        return samples


def save_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image [S, S, 3] so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    Image.fromarray(image).save(partial, format="PNG")
    partial.replace(path)


def read_images(root: Path, samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """The images [N, S, S, 3] of samples of a run."""
    return np.stack([np.asarray(Image.open(root / sample.file)) for sample in samples])
