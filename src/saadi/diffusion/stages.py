"""Stages 1 and 4 of the method in a run's folder: the base model, and drawing samples from any round's model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import __version__

from saadi.config import RunConfig
from saadi.data import Dataset
from saadi.diffusion.base import train_denoiser
from saadi.diffusion.generator import Generator, build_tiny, learn_words, load_generator, save_generator
from saadi.diffusion.hub import folder_of
from saadi.diffusion.lessons import lessons_of
from saadi.diffusion.lora import add_adapter, apply_adapter, save_adapter
from saadi.files import CHECKPOINT, SCRATCH, file_digest
from saadi.foundation import foundation_folder
from saadi.runtime import device_of, precision_of
from saadi.seeds import seed_of
from saadi.shares import Resources
from saadi.store import Run
from saadi.training import Progress, Recipe, write_log


def start_folder(config: RunConfig) -> Path:
    """The folder of the model stage 1 starts from."""
    if config.base.model == "tiny":
        return foundation_folder(inpainting=config.task == "segmentation")
    return folder_of(config.base.model)


def tunes_all(config: RunConfig) -> bool:
    """Whether stage 1 trains all weights of UNet and text encoder, or an adapter."""
    return config.base.tune == "full" or (config.base.tune == "auto" and config.base.model == "tiny")


def resources_of(run: Run) -> Resources:
    """What the trainings of a run's diffusion model have to do with."""
    compute = run.config.compute
    return Resources(run.team, compute.micro, precision_of(run.config), compute.eight_bit)


def open_start(config: RunConfig, labels: Sequence[str]) -> Generator:
    """The model stage 1 starts from: a Stable Diffusion folder, or the foundation, to which `labels` are new words."""
    generator = load_generator(start_folder(config))
    if config.compute.checkpointing:
        generator.unet.enable_gradient_checkpointing()
    # The stock pipeline draws at the size the UNet's configuration says: the run's, whatever the model was made for.
    # Of a configuration that an old diffusers wrote, such as 1.5's, it would take no size below 64.
    generator.unet.register_to_config(sample_size=config.data.size // generator.cell, _diffusers_version=__version__)
    if config.base.model != "tiny":
        return generator
    if config.base.from_scratch:
        torch.manual_seed(seed_of(config.seed, "scratch"))
        fresh = build_tiny(inpainting=generator.inpaints)
        generator.unet, generator.text_encoder = fresh.unet, fresh.text_encoder
        generator.tokenizer = fresh.tokenizer
    words = [word for name in labels for word in re.findall("[a-z]+", name.lower())]
    learn_words(generator, words, seed_of(config.seed, "words"))
    return generator


def train_base(run: Run, data: Dataset) -> None:
    """Stage 1 (SSD): fine-tune on the training images into `base/model`.

    An adapter is kept in `base/adapter` and folded into the model: so that the model is stage 1 itself, to the bit, to
    whatever adapters come later.
    """
    config, device = run.config, device_of(run.config)

    def make(folder: Path, progress: Progress) -> None:
        generator = open_start(config, data.space.names)
        cache = folder / SCRATCH
        lessons = lessons_of(config, generator.to(device), data.split("train"), cache / "images", run.team)
        if not tunes_all(config):
            generator.to(device, precision_of(config)).text_encoder.requires_grad_(False)
            add_adapter(generator.unet, config.base.rank, seed_of(config.seed, "base"))
        rows = train_denoiser(
            generator,
            lambda index, _: lessons.images.take(torch.from_numpy(index)),
            lessons.labels,
            lessons.prompts,
            Recipe(config.base.steps, config.base.lr, ema=0.99, weight_decay=0.01),
            batch=config.base.batch,
            balance=config.base.balance,
            seed=seed_of(config.seed, "base"),
            checkpoint=folder / CHECKPOINT,
            cache=cache,
            progress=progress,
            resources=resources_of(run),
        )
        if not run.team.leads:
            return
        if not tunes_all(config):
            save_adapter(generator.unet, folder / "adapter")
            generator = open_start(config, data.space.names)
            apply_adapter(generator.pipeline(), folder / "adapter")
        save_generator(generator, folder / "model")
        write_log(folder / "log.jsonl", rows)

    # A user's own folder may be gone when a finished base is resumed; the shipped one comes with each installation.
    shipped = sorted(start_folder(config).glob("*/*.safetensors")) if config.base.model == "tiny" else []
    weights = [file_digest(path) for path in shipped]
    settings = [
        *(part.model_dump(mode="json") for part in (config.base, config.layouts)), config.seed, config.threads, weights
    ]  # fmt: skip
    run.stage("base", make, settings=settings, inputs=["data"], together=True)


def model_at(root: Path, config: RunConfig, adapters: Sequence[str]) -> Generator:
    """The base model of the run in `root` with the adapters of some stages folded in, on the run's device."""
    generator = load_generator(root / "base" / "model")
    pipe = generator.pipeline()
    for stage in adapters:
        apply_adapter(pipe, root / stage)
    if config.compute.checkpointing:
        generator.unet.enable_gradient_checkpointing()
    return generator.to(device_of(config), precision_of(config))
