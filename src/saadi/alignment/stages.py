"""Stage 3 in a run's folder: align the previous round's model; or, a rival, fine-tune the base on the winners alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saadi.alignment.focus import focused
from saadi.alignment.train import PairBatch, align, between_prompts, unet_passes
from saadi.config import RunConfig
from saadi.critics.judging import Critic
from saadi.data import Dataset
from saadi.diffusion.base import train_denoiser
from saadi.diffusion.generator import Generator, encode_prompts
from saadi.diffusion.lessons import anchors_of, prompt_of, sample_images
from saadi.diffusion.lora import add_adapter, save_adapter
from saadi.diffusion.objective import Clean
from saadi.diffusion.painting import read_images, read_masks
from saadi.diffusion.stages import model_at, resources_of
from saadi.pairing import hold_out
from saadi.preferences import taken_for
from saadi.records import Condition, Pair, Sample, Score, write_atomic
from saadi.seeds import seed_of
from saadi.store import CHECKPOINT, Run
from saadi.training import Progress, Recipe, write_log

LEAST_PAIRS = 2
"""One to learn from and one to watch."""


def _prompts(config: RunConfig, generator: Generator, prompts: Sequence[Sequence[str]]) -> Tensor:
    """Embeddings [N, T, D] of the prompts that ask for some classes each."""
    texts = [prompt_of(config, labels) for labels in prompts]
    distinct = sorted(set(texts))
    return encode_prompts(generator, distinct)[[distinct.index(text) for text in texts]]


def _rival(config: RunConfig, data: Dataset, condition: Condition, verdict: Score) -> tuple[str, ...]:
    """The classes that an image is, or nearly was, taken to show."""
    return taken_for(config.task, condition.labels, data.space.names[int(verdict.parts["rival"])])


def _batches(
    run: Run,
    generator: Generator,
    data: Dataset,
    critic: Critic,
    samples: Sequence[Sample],
    scores: Sequence[Score],
    pairs: Sequence[Pair],
) -> tuple[PairBatch, PairBatch]:
    """What pairs say of two images, and of two prompts for one; latents and embeddings computed once."""
    config, of = run.config, {sample.id: sample for sample in samples}
    verdict = {score.sample: score for score in scores}
    train = data.split("train")

    def seen(ids: Sequence[str]) -> Clean:
        chosen = [of[i] for i in ids]
        images = read_images(run.folder, chosen)
        clean = sample_images(config, generator, train, chosen, images)
        if config.alignment.focus == "none":
            return clean
        maps = read_masks(run.folder, chosen) if config.task == "segmentation" else None
        conditions, groups = (
            [sample.condition for sample in chosen],
            critic.nearest_groups(critic.embedder.embed(images)),
        )
        return focused(clean, torch.from_numpy(critic.saliency(images, conditions, maps, groups)))

    def taken_for(ids: Sequence[str]) -> Tensor:
        return _prompts(config, generator, [_rival(config, data, of[i].condition, verdict[i]) for i in ids])

    winners, losers = [pair.winner for pair in pairs], [pair.loser for pair in pairs]
    own = _prompts(config, generator, [of[i].condition.labels for i in winners])
    images = PairBatch(seen(winners), seen(losers), own, own)
    wrong = torch.tensor([not verdict[i].right for i in losers], device=own.device)
    return images, between_prompts(images, taken_for(winners), taken_for(losers), wrong)


def anchor_pairs(config: RunConfig, generator: Generator, train: Dataset, critic: Critic, round_: int) -> PairBatch:
    """Real images, each better under its own prompt than under the one that a member of the critic which never saw its
    patient finds nearest."""
    found = anchors_of(config, generator, train, round_)
    real = train.take(found.rows)
    verdicts = critic.verdicts(real.images, found.conditions, real.masks, real.groups)
    own = _prompts(config, generator, [one.labels for one in found.conditions])
    rivals = [_rival(config, train, one, verdict) for one, verdict in zip(found.conditions, verdicts, strict=True)]
    other = _prompts(config, generator, rivals)
    shown = found.images
    if config.alignment.focus == "saliency":
        where = critic.saliency(real.images, found.conditions, real.masks, real.groups)
        shown = focused(shown, torch.from_numpy(where))
    return PairBatch(shown, shown, own, other)


def passes_of(run: Run, stage: str) -> int:
    """UNet passes of one image that went into an adapter."""
    summary = json.loads((run.path(stage) / "summary.json").read_text(encoding="utf-8"))
    return int(summary["unet_passes"])


def _finish(
    run: Run, folder: Path, generator: Generator, rows: list[dict[str, float]], summary: dict[str, object]
) -> None:
    if not run.team.leads:
        return
    save_adapter(generator.unet, folder)
    write_log(folder / "log.jsonl", rows)
    write_atomic(folder / "summary.json", json.dumps(summary))


def align_round(
    run: Run,
    data: Dataset,
    critic: Critic,
    samples: Sequence[Sample],
    scores: Sequence[Score],
    pairs: Sequence[Pair],
    round_: int,
) -> str:
    """Train round `round_`'s adapter on top of the rounds before; returns the stage's name.

    With fewer than two pairs there is nothing to align to: the adapter stays at zero, and the summary says why.
    """
    config = run.config
    before = [f"round-{k}/adapter" for k in range(1, round_)]

    def make(folder: Path, progress: Progress) -> None:
        generator = model_at(run.folder, config, before)
        if len(pairs) < LEAST_PAIRS:
            add_adapter(generator.unet, config.alignment.rank, seed_of(config.seed, "align", round_))
            reason = f"{len(pairs)} preference pairs, {LEAST_PAIRS} are needed: the model stays as it was"
            _finish(run, folder, generator, [], {"stopped_at": 0, "reason": reason, "unet_passes": 0})
            return
        kept, watched = hold_out(pairs, config.preferences.held_out, config.seed, "held-out", round_)
        reference = generator if config.alignment.reference == "previous" else model_at(run.folder, config, [])
        (train, prompts), (held_out, _) = (
            _batches(run, generator, data, critic, samples, scores, part) for part in (kept, watched)
        )
        if config.alignment.prompts:
            train = train + prompts
        if config.alignment.anchors:
            train = train + anchor_pairs(config, generator, data.split("train"), critic, round_)
        rows, reason = align(
            generator.unet,
            reference.unet,
            generator.schedule,
            train,
            held_out,
            config.alignment,
            seed_of(config.seed, "align", round_),
            checkpoint=folder / CHECKPOINT,
            progress=progress,
            resources=resources_of(run),
        )
        steps, tried = int(rows[-1]["step"]), int(rows[-1].get("tried", 0))
        cost = unet_passes(config.alignment, len(train), len(watched), steps, tried)
        _finish(run, folder, generator, rows, {"stopped_at": steps, "reason": reason, "unet_passes": cost})

    name = f"round-{round_}/adapter"
    settings = [config.alignment.model_dump(mode="json"), config.preferences.held_out, config.seed]
    run.stage(
        name,
        make,
        settings=settings,
        inputs=["base", "critic", f"round-{round_}/scores", f"round-{round_}/pairs", *before],
        together=True,
    )
    return name


def train_on_winners(run: Run, data: Dataset, samples: Sequence[Sample], pairs: Sequence[Pair]) -> str:
    """The rival `winners`: the base's adapter trained to denoise round 1's winners, in as many training passes."""
    config = run.config
    batch = 2 * config.alignment.pairs

    def make(folder: Path, progress: Progress) -> None:
        generator = model_at(run.folder, config, [])
        if not pairs:
            add_adapter(generator.unet, config.alignment.rank, seed_of(config.seed, "winners"))
            _finish(run, folder, generator, [], {"stopped_at": 0, "reason": "no winners", "unet_passes": 0})
            return
        of = {sample.id: sample for sample in samples}
        chosen = [of[pair.winner] for pair in pairs]
        winners = sample_images(config, generator, data.split("train"), chosen, read_images(run.folder, chosen)).to(
            "cpu"
        )
        prompts = [prompt_of(config, sample.condition.labels) for sample in chosen]
        distinct = sorted(set(prompts), key=prompts.index)
        add_adapter(generator.unet, config.alignment.rank, seed_of(config.seed, "winners"))
        generator.text_encoder.requires_grad_(False)
        rows = train_denoiser(
            generator,
            lambda index, _: winners.take(torch.from_numpy(index)),
            np.array([distinct.index(prompt) for prompt in prompts]),
            distinct,
            Recipe(config.alignment.steps, config.alignment.lr, warmup=0.1, floor=0.1),
            batch=batch,
            balance=1.0,
            seed=seed_of(config.seed, "winners"),
            what="winners",
            checkpoint=folder / CHECKPOINT,
            progress=progress,
            resources=resources_of(run),
        )
        steps = config.alignment.steps
        _finish(
            run, folder, generator, rows,
            {"stopped_at": steps, "reason": "all steps done", "unet_passes": 3 * batch * steps},
        )  # fmt: skip

    settings = [config.alignment.model_dump(mode="json"), config.seed]
    run.stage("winners/adapter", make, settings=settings, inputs=["base", "round-1/pairs"], together=True)
    return "winners/adapter"
