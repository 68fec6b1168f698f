"""What base model and adapters learn from: training images and samples as a denoiser meets them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.caches import batched, cached
from saadi.config import LABEL, RunConfig
from saadi.data import Dataset
from saadi.data.conditions import layout_of
from saadi.data.layouts import Pass
from saadi.diffusion.drawing import ENCODE_BATCH, encode_images, to_clean
from saadi.diffusion.generator import Generator
from saadi.diffusion.objective import Clean
from saadi.records import Condition, Sample
from saadi.seeds import numpy_rng
from saadi.team import ALONE, Team

LAYOUTS = 6000
"""Layouts the inpainting base learns from, at the most but one for each image and class: what is encoded once."""


def prompt_of(config: RunConfig, labels: Sequence[str]) -> str:
    """The prompt that asks for some classes, in the order of their names; none is asked for by "nothing". A text
    encoder knows words, so `vocal_folds` are vocal folds."""
    return config.base.prompt.replace(LABEL, " and ".join(sorted(labels)).replace("_", " ") or "nothing")


@dataclass(frozen=True)
class Lessons:
    """M images, the number of the prompt [M] each is learnt under, and the prompts."""

    images: Clean
    labels: NDArray[np.int64]
    prompts: list[str]


def own_conditions(train: Dataset) -> list[Condition]:
    """Every class of every training image, painted anew where it is, and a background region of each image."""
    names = train.space.names
    return [
        Condition(f"{row}-{label}", (label,), row, row)
        for row, frame in enumerate(train.frames)
        for label in (names[0], *frame.labels)
    ]


def painted(config: RunConfig, generator: Generator, passes: Sequence[Pass], images: NDArray[np.uint8]) -> Clean:
    """Images [N, S, S, 3] as an inpainting model meets them in one pass of each."""
    objects, regions = np.stack([one.object for one in passes]), np.stack([one.region for one in passes])
    return to_clean(generator, images, objects, regions, config.layouts.outside)


def _own_layouts(config: RunConfig, train: Dataset, cell: int) -> Iterator[tuple[Condition, Pass]]:
    """Several layouts of every class of every training image, and the pass each ends with."""
    own = own_conditions(train)
    for k in range(max(1, LAYOUTS // len(own))):
        for one in own:
            condition = replace(one, id=f"{one.id}-{k}")
            last = layout_of(config, train, condition, cell).passes[-1]
            if last.region.any():  # no background, no region of it
                yield condition, last


def lessons_of(
    config: RunConfig, generator: Generator, train: Dataset, folder: Path | None = None, team: Team = ALONE
) -> Lessons:
    """What stage 1 learns: each image under its prompt; for inpainting, several layouts of every class of it. Encoded
    once, and kept in `folder` as `cached` does."""
    space = train.space

    def painted_batches() -> Iterator[tuple[Tensor, ...]]:
        for some in batched(_own_layouts(config, train, generator.cell), ENCODE_BATCH):
            images = train.images[[condition.place[0] for condition, _ in some]]
            clean = painted(config, generator, [last for _, last in some], images)
            yield *clean.parts(), torch.tensor([space.id(condition.label) for condition, _ in some])

    def whole_batches() -> Iterator[tuple[Tensor, ...]]:
        for rows in batched(range(len(train.frames)), ENCODE_BATCH):
            yield Clean.whole(encode_images(generator, train.images[rows])).parts()

    if generator.inpaints:
        *parts, labelled = cached(folder, painted_batches, team)
        return Lessons(Clean(*parts), labelled.numpy(), [prompt_of(config, [name]) for name in space.names])
    shown = [frame.labels for frame in train.frames]
    sets: list[tuple[str, ...]] = [(name,) for name in space.names]
    if config.task == "presence":
        sets = sorted(set(shown))
    labels = np.array([sets.index(one) for one in shown])
    known = Clean(*cached(folder, whole_batches, team))
    return Lessons(known, labels, [prompt_of(config, one) for one in sets])


def sample_images(
    config: RunConfig, generator: Generator, train: Dataset, samples: Sequence[Sample], images: NDArray[np.uint8]
) -> Clean:
    """Samples [N, S, S, 3] as the model that drew them meets them: outside the last region they are what they were."""
    if generator.inpaints:
        layouts = [layout_of(config, train, sample.condition, generator.cell) for sample in samples]
        return painted(config, generator, [layout.passes[-1] for layout in layouts], images)
    return Clean.whole(encode_images(generator, images))


@dataclass(frozen=True)
class Anchors:
    """A real training images, what each is said to show, whose they are, and how a denoiser meets them."""

    rows: NDArray[np.int64]
    conditions: list[Condition]
    images: Clean


def anchors_of(config: RunConfig, generator: Generator, train: Dataset, *keys: int | str) -> Anchors:
    """`alignment.anchors` images of each class at random, repeated where it has fewer; of inpainting, its region."""
    rng, chosen = numpy_rng(config.seed, "anchors", *keys), list[tuple[int, str]]()
    for column, label in enumerate(train.space.asked):
        rows = rng.permutation(np.flatnonzero(train.presence[:, column]))
        chosen += [(int(row), label) for row in np.resize(rows, config.alignment.anchors)]
    rows = np.array([row for row, _ in chosen])
    if not generator.inpaints:
        conditions = [Condition(label, train.frames[row].labels) for row, label in chosen]
        return Anchors(rows, conditions, Clean.whole(encode_images(generator, train.images[rows])))
    name = "-".join(map(str, ("anchor", *keys)))
    conditions = [Condition(f"{name}-{k}", (label,), row, row) for k, (row, label) in enumerate(chosen)]
    passes = [layout_of(config, train, one, generator.cell).passes[-1] for one in conditions]
    return Anchors(rows, conditions, painted(config, generator, passes, train.images[rows]))
