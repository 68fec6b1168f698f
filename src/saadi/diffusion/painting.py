"""Drawing samples from any round's model, in a run's folder: micro-batches of images, each from a seed of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saadi.config import RunConfig
from saadi.data import Dataset
from saadi.data.conditions import layout_of
from saadi.data.stages import read_data
from saadi.data.starts import starts_of
from saadi.diffusion.base import prompt_table
from saadi.diffusion.drawing import Canvas, Feedback, draw
from saadi.diffusion.generator import Generator, encode_prompts
from saadi.diffusion.lessons import prompt_of
from saadi.diffusion.stages import model_at
from saadi.records import Condition, LabelSpace, Sample, to_record
from saadi.seeds import seed_of
from saadi.store import Run
from saadi.training import Progress
from saadi.workers import Context

Lead = Callable[[Generator, Sequence[Condition], "NDArray[np.uint8] | None"], Feedback]
"""From a model, what N images are to show, and, of painted frames, their id maps [N, S, S] as far as they are known
(`IGNORE` elsewhere), to what moves their latents there."""


@dataclass(frozen=True)
class Painter:
    """A model and its prompts, encoded [T, D] when first needed, the blank one [1, T, D], and what leads it, if any."""

    config: RunConfig
    train: Dataset
    model: Generator
    known: dict[str, Tensor]
    blank: Tensor
    lead: Lead | None = None

    @classmethod
    def open(cls, root: Path, config: RunConfig, adapters: Sequence[str]) -> Painter:
        """The model of the run in `root` with some adapters. Raises `BadInput` for prompts it cannot tell apart."""
        model = model_at(root, config, adapters)
        data = read_data(root / "data")
        prompts = [prompt_of(config, [name]) for name in data.space.names]
        prompt_table(model, prompts)
        *embeddings, blank = encode_prompts(model, [*prompts, ""])
        return cls(config, data.split("train"), model, dict(zip(prompts, embeddings, strict=True)), blank[None])

    def _draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        conditions: Sequence[Condition],
        starts: NDArray[np.uint8] | None,
        canvas: Canvas | None = None,
        maps: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        for prompt in {prompt for prompt in prompts if prompt not in self.known}:
            self.known[prompt] = encode_prompts(self.model, [prompt])[0]
        embeddings = torch.stack([self.known[prompt] for prompt in prompts])
        config, feedback = self.config.sampling, self.lead and self.lead(self.model, conditions, maps)
        return np.stack(list(draw(self.model, embeddings, self.blank, seeds, config, canvas, starts, feedback)))

    def paint(self, samples: Sequence[Sample]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """The images [N, S, S, 3] of some samples and, from an inpainting model, the id maps [N, S, S] asked for.

        Of an object of several classes all but the last are painted with noise that is the condition's: the samples of
        one condition differ in the last pass alone.
        """
        names, seeds = self.train.space.names, [sample.seed for sample in samples]
        edits, conditions = self.config.sampling.strength < 1, [sample.condition for sample in samples]
        if not self.model.inpaints:
            starts = starts_of(self.train, conditions, [None] * len(samples)) if edits else None
            return self._draw(
                [prompt_of(self.config, one.labels) for one in conditions], seeds, conditions, starts
            ), None
        layouts = [layout_of(self.config, self.train, one, self.model.cell) for one in conditions]
        images = np.stack([self.train.images[one.place[0]] for one in conditions])
        starts = starts_of(self.train, conditions, layouts) if edits else None
        for number in range(max(len(layout.passes) for layout in layouts)):
            rows = [row for row, layout in enumerate(layouts) if number < len(layout.passes)]
            passes = [layouts[row].passes[number] for row in rows]
            last = [number == len(layouts[row].passes) - 1 for row in rows]
            noise = [
                seeds[row] if ends else seed_of(self.config.seed, "pass", number, samples[row].condition.id)
                for row, ends in zip(rows, last, strict=True)
            ]
            parts = ([getattr(one, name) for one in passes] for name in ("object", "region", "alpha"))
            canvas = Canvas(images[rows], *(np.stack(part) for part in parts))
            prompts = [prompt_of(self.config, [names[one.label]]) for one in passes]
            begin = None if starts is None else (images if number else starts)[rows]
            maps = np.stack([layouts[row].shown_after(number) for row in rows])
            images[rows] = self._draw(prompts, noise, [conditions[row] for row in rows], begin, canvas, maps)
        return images, np.stack([layout.target for layout in layouts])


def paint(context: Context, out: Path, *, adapters: list[str], samples: list[dict[str, Any]]) -> None:
    """A job: one micro-batch of samples, as `dataclasses.asdict` has them, as PNG."""
    root, config = context.root, context.config
    painter = context.keep("painter", adapters, lambda: Painter.open(root, config, adapters))
    paint_with(painter, [to_record(values, Sample) for values in samples], out)


def paint_with(painter: Painter, samples: Sequence[Sample], out: Path) -> None:
    """Paint one micro-batch of samples into a folder, as PNG."""
    images, masks = painter.paint(samples)
    for row, sample in enumerate(samples):
        if masks is not None and sample.mask is not None:
            save_png(out / Path(sample.mask).name, masks[row])
        save_png(out / Path(sample.file).name, images[row])


class Sampler:
    """Draws labelled images from one model into a folder, in fixed micro-batches, each image from its own seed."""

    job: Callable[..., None] = staticmethod(paint)

    def __init__(self, run: Run, space: LabelSpace, adapters: Sequence[str], round_: int) -> None:
        self.run, self.space, self.round = run, space, round_
        self.adapters = tuple(adapters)

    @property
    def settings(self) -> list[Any]:
        """What its images depend on, beside the configuration."""
        return [list(self.adapters)]

    def draw(
        self,
        folder: Path,
        requests: Sequence[tuple[Condition, int]],
        tag: str,
        progress: Progress,
        noise: str,
    ) -> list[Sample]:
        """Images for requests (condition, number within its class) as PNG; what is there already is kept.

        `tag` names the samples, `noise` the noise they start from. Where a condition has a frame, masks are kept, too.
        """
        config, root = self.run.config, folder.relative_to(self.run.folder)
        samples = []
        for condition, index in requests:
            name = f"{self.space.id(condition.label):02d}-{index:05d}"
            mask = None if condition.frame is None else str(root / f"{name}-mask.png")
            seed = seed_of(config.seed, noise, condition.label, index)
            samples.append(Sample(f"{tag}-{name}", condition, self.round, seed, str(root / f"{name}.png"), mask))
        size = config.sampling.batch
        chunks = [samples[start : start + size] for start in range(0, len(samples), size)]
        missing = self.run.team.lacking(chunks, lambda chunk: all(_is_whole(self.run.folder, one) for one in chunk))
        jobs = [
            self.run.crew.job(self.job, adapters=list(self.adapters), samples=[asdict(sample) for sample in chunk])
            for chunk in missing
        ]
        for done, fetch in enumerate(jobs, len(chunks) - len(missing) + 1):
            fetch(folder)
            progress(min(done * size, len(samples)), len(samples))
        self.run.crew.forget("painter")
        return samples


def _is_whole(root: Path, sample: Sample) -> bool:
    """Whether a sample was drawn, in a run that was stopped: what the power took may be there and hold nothing."""
    try:
        for file in filter(None, (sample.file, sample.mask)):
            with Image.open(root / file) as image:
                image.load()
    except Exception:  # whatever Pillow says of half a file
        return False
    return True


def save_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image [S, S, 3] or an id map [S, S] so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    Image.fromarray(image).save(partial, format="PNG")
    partial.replace(path)


def read_images(root: Path, samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """The images [N, S, S, 3] of samples of a run."""
    return _read([root / sample.file for sample in samples])


def read_masks(root: Path, samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """The id maps [N, S, S] that samples of a run were asked to show."""
    return _read([root / str(sample.mask) for sample in samples])


def _read(files: Sequence[Path]) -> NDArray[np.uint8]:
    """Images of one size, each straight into its row: a list of them beside the array would be as much memory again."""
    first = np.asarray(Image.open(files[0]))
    found = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(files):
        found[row] = np.asarray(Image.open(file))
    return found
