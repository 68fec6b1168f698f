"""Can one tell from the diffusion model which images it learnt from? Before alignment and after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.config import RunConfig
from saadi.data import Dataset
from saadi.data.conditions import layout_of
from saadi.data.phantom import fresh_images
from saadi.diffusion.drawing import encode_images
from saadi.diffusion.generator import Generator, encode_prompts
from saadi.diffusion.lessons import painted, prompt_of
from saadi.diffusion.objective import Clean, denoised, epsilon_errors, error_weight
from saadi.diffusion.stages import model_at
from saadi.evaluation.audits import auc, interval
from saadi.records import Condition, Frame, write_atomic
from saadi.seeds import numpy_rng, torch_rng
from saadi.store import Run
from saadi.training import Progress

IMAGES = 160
"""Training images, and others, that are compared, at most."""
TIMES = (0.1, 0.3, 0.5, 0.7)
"""Shares of the schedule at which an image's error is asked for: memory shows where there is little to guess."""
AT_ONCE = 32


def others_of(config: RunConfig, data: Dataset, members: Dataset) -> tuple[Dataset, str]:
    """Images that the model has not learnt from, as like the training images `members` as can be had, and what they
    are. Fresh images of the phantom are as many of each class: some classes are harder than others to denoise."""
    if config.data.source != "phantom" or config.task != "classification":
        return data.split("val"), "validation images, which show other patients"
    train, wanted = data.split("train"), np.bincount(members.labels)
    patients = set(train.groups.tolist())
    images, labels, groups = fresh_images(
        config.data.phantom, config.data.size, config.seed, patients, int(wanted.max())
    )
    rows = np.concatenate([np.flatnonzero(labels == k)[:count] for k, count in enumerate(wanted)])
    frames = tuple(
        Frame(f"fresh-{row}", (train.space.names[label],), str(group), "val")
        for row, label, group in zip(rows, labels[rows], groups[rows], strict=True)
    )
    return replace(train, frames=frames, images=images[rows]), "fresh images of the training patients"


def errors_of(config: RunConfig, generator: Generator, images: Dataset) -> NDArray[np.float64]:
    """How far the model misses each image [N], under its own prompt: the mean of v's error over a few timesteps, of
    noise that is the row's."""
    conditions = [Condition(f"audit-{row}", frame.labels[:1], row, row) for row, frame in enumerate(images.frames)]
    shown = [frame.labels[:1] if generator.inpaints else frame.labels for frame in images.frames]
    names = sorted({prompt_of(config, one) for one in shown})
    told = encode_prompts(generator, names)[[names.index(prompt_of(config, one)) for one in shown]]
    total = torch.zeros(len(images.frames))
    schedule, device = generator.schedule, generator.device
    for start in range(0, len(total), AT_ONCE):
        rows = range(start, min(start + AT_ONCE, len(total)))
        pixels = np.asarray(images.images[rows.start : rows.stop])
        if generator.inpaints:
            layouts = [layout_of(config, images, conditions[row], generator.cell) for row in rows]
            clean = painted(config, generator, [layout.passes[-1] for layout in layouts], pixels)
        else:
            clean = Clean.whole(encode_images(generator, pixels))
        for time in TIMES:
            t = torch.full((len(rows),), int(time * len(schedule.alpha_bar)), device=device)
            shape = clean.latents.shape[1:]
            drawn: list[Tensor] = [
                torch.randn(shape, generator=torch_rng(config.seed, "audit", row, int(100 * time))) for row in rows
            ]
            noise = torch.stack(drawn).to(device)
            with torch.no_grad():
                guess = denoised(generator.unet, schedule, clean, noise, t, told[rows.start : rows.stop].to(device))
            missed = epsilon_errors(schedule, guess, clean.latents, noise, t, clean.focus)
            total[rows.start : rows.stop] += (missed * error_weight(schedule, t, "v")).cpu()
    return (total / len(TIMES)).double().numpy()


def _some(images: Dataset, seed: int) -> Dataset:
    """At most `IMAGES` that show something, at random."""
    rows = np.flatnonzero([bool(frame.labels) for frame in images.frames])
    return images.take(np.sort(numpy_rng(seed, "audit").permutation(rows)[:IMAGES]))


def audit_membership(run: Run, data: Dataset, adapters: Sequence[str]) -> None:
    """How well an image's error tells training images from others, by the base model and after the last adapter, into
    `evaluation/membership`: areas under the ROC (0.5: not at all), with intervals over images, and who the others are.
    """
    config = run.config

    def make(folder: Path, progress: Progress) -> None:
        members = _some(data.split("train"), config.seed)
        others, against = others_of(config, data, members)
        strangers = _some(others, config.seed)
        models = {"base": [], "aligned": list(adapters)} if adapters else {"base": list[str]()}
        told: dict[str, Any] = {"against": against, "n": [len(members.frames), len(strangers.frames)]}
        for done, (name, stages) in enumerate(models.items(), 1):
            generator = model_at(run.folder, config, stages)
            known, unknown = (errors_of(config, generator, images) for images in (members, strangers))
            area = auc(unknown, known)
            told[name] = {"auc": area, "ci95": list(interval(area, len(unknown), len(known)))}
            progress(done, len(models))
        write_atomic(folder / "membership.json", json.dumps(told, indent=1))

    settings = [IMAGES, list(TIMES), config.seed, config.base.prompt, config.layouts.model_dump(mode="json")]
    run.stage("evaluation/membership", make, settings=settings, inputs=["data", "base", *adapters])
