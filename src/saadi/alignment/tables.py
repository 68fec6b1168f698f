"""What a round learns from, in a run's folder: images and prompts, encoded once into files, and which is preferred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from saadi.alignment.focus import focused
from saadi.alignment.pairs import PairTable, Preference, between_prompts
from saadi.caches import batched, cached
from saadi.config import RunConfig
from saadi.critics.judging import Critic
from saadi.data import Dataset
from saadi.diffusion.drawing import ENCODE_BATCH
from saadi.diffusion.generator import Generator, kept_prompts
from saadi.diffusion.lessons import anchors_of, prompt_of, sample_images
from saadi.diffusion.objective import Clean
from saadi.diffusion.painting import read_images, read_masks
from saadi.preferences import mistaken, taken_for
from saadi.records import Condition, Pair, Sample, Score
from saadi.store import Run


def _rival(config: RunConfig, data: Dataset, condition: Condition, verdict: Score) -> str:
    """The prompt of the classes that an image is, or nearly was, taken to show."""
    return prompt_of(config, taken_for(config.task, condition.labels, data.space.names[int(verdict.parts["rival"])]))


@dataclass(frozen=True)
class Anchored:
    """A real images, the prompt of each, and the one that fits it less well."""

    images: Clean
    asked: list[str]
    rivals: list[str]


def anchored(config: RunConfig, generator: Generator, train: Dataset, critic: Critic, round_: int) -> Anchored:
    """Real images, each better under its own prompt than under the one that a member of the critic which never saw its
    patient finds nearest."""
    found = anchors_of(config, generator, train, round_)
    real = train.take(found.rows)
    verdicts = critic.verdicts(real.images, found.conditions, real.masks, real.groups)
    shown = found.images
    if config.alignment.focus == "saliency":
        where = critic.saliency(real.images, found.conditions, real.masks, real.groups)
        shown = focused(shown, torch.from_numpy(where))
    return Anchored(
        shown,
        [prompt_of(config, one.labels) for one in found.conditions],
        [_rival(config, train, one, verdict) for one, verdict in zip(found.conditions, verdicts, strict=True)],
    )


def encoded(
    run: Run, generator: Generator, train: Dataset, samples: Sequence[Sample], critic: Critic | None = None
) -> Iterator[Clean]:
    """Samples as the model that drew them meets them, some at a time; with a `critic`, by what the configuration says
    of focus, errors count more where it looks."""
    config = run.config
    for some in batched(samples, ENCODE_BATCH):
        images = read_images(run.folder, some)
        clean = sample_images(config, generator, train, some, images)
        if critic is not None and config.alignment.focus == "saliency":
            maps = read_masks(run.folder, some) if config.task == "segmentation" else None
            conditions = [sample.condition for sample in some]
            groups = critic.groups_of(critic.embedder.embed(images), conditions)
            where = critic.saliency(images, conditions, maps, groups)
            clean = focused(clean, torch.from_numpy(where))
        yield clean


def kept_images(run: Run, batches: Iterable[Clean], folder: Path) -> Clean:
    """Images, kept in `folder` as `cached` does."""
    return Clean(*cached(folder, lambda: (clean.parts() for clean in batches), run.team))


def pair_table(
    run: Run,
    generator: Generator,
    data: Dataset,
    critic: Critic,
    samples: Sequence[Sample],
    scores: Sequence[Score],
    pairs: Sequence[Pair],
    folder: Path,
    *,
    round_: int | None = None,
) -> PairTable:
    """What pairs say of two images. Those that a `round_` learns from also say it of two prompts for one image, and
    come with the round's anchors, if the configuration wants them. Images and prompts are kept in `folder`."""
    config, of = run.config, {sample.id: sample for sample in samples}
    train, verdict = data.split("train"), {score.sample: score for score in scores}
    winners, losers = [of[pair.winner] for pair in pairs], [of[pair.loser] for pair in pairs]
    asked = [prompt_of(config, sample.condition.labels) for sample in winners]
    preferred: list[Preference] = [(k, prompt, len(pairs) + k, prompt) for k, prompt in enumerate(asked)]
    anchors = list[Clean]()

    def taken(some: Sequence[Sample]) -> list[str]:
        return [_rival(config, data, sample.condition, verdict[sample.id]) for sample in some]

    if round_ is not None and config.alignment.prompts:
        wrong = [mistaken(config.task, verdict[one.id], data.space.id(one.label)) for one in losers]
        preferred += between_prompts(preferred, taken(winners), taken(losers), wrong)
    if round_ is not None and config.alignment.anchors:
        real = anchored(config, generator, train, critic, round_)
        numbers = range(2 * len(pairs), 2 * len(pairs) + len(real.images))
        preferred += zip(numbers, real.asked, numbers, real.rivals, strict=True)
        anchors = [real.images]

    def batches() -> Iterator[Clean]:
        for some in (winners, losers):
            yield from encoded(run, generator, train, some, critic)
        yield from anchors

    prompts = sorted({prompt for _, one, _, two in preferred for prompt in (one, two)})
    number = {prompt: row for row, prompt in enumerate(prompts)}
    rows = [(better, number[one], worse, number[two]) for better, one, worse, two in preferred]
    embeddings: Tensor = kept_prompts(generator, prompts, folder / "prompts", run.team)
    return PairTable(kept_images(run, batches(), folder / "images"), embeddings, torch.tensor(rows))
