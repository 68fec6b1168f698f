"""Stage 3 in a run's folder: align the previous round's model; or, a rival, fine-tune the base on the winners alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from saadi.alignment.tables import encoded, kept_images, pair_table
from saadi.alignment.train import align, alignment_passes
from saadi.critics.judging import Critic
from saadi.data import Dataset
from saadi.diffusion.base import train_denoiser
from saadi.diffusion.generator import Generator
from saadi.diffusion.lessons import prompt_of
from saadi.diffusion.lora import add_adapter, outer_weights, save_adapter
from saadi.diffusion.stages import model_at, resources_of
from saadi.files import CHECKPOINT, SCRATCH
from saadi.pairing import hold_out
from saadi.records import Pair, Sample, Score, read_json, write_atomic
from saadi.seeds import seed_of
from saadi.store import Run
from saadi.training import Progress, Recipe, write_log

LEAST_PAIRS = 2
"""One to learn from and one to watch."""


def passes_of(run: Run, stage: str) -> int:
    """UNet passes of one image that went into an adapter."""
    return int(read_json(run.path(stage) / "summary.json")["unet_passes"])


def why_idle(run: Run, stage: str) -> str | None:
    """Why an adapter changes nothing, so that its round's model is the one before it; None of one that does."""
    summary = read_json(run.path(stage) / "summary.json")
    return None if summary.get("learnt", True) else str(summary["reason"])  # older summaries do not say


def _finish(
    run: Run, folder: Path, generator: Generator, rows: list[dict[str, float]], summary: dict[str, object]
) -> None:
    if not run.team.leads:
        return
    save_adapter(generator.unet, folder)
    write_log(folder / "log.jsonl", rows)
    learnt = any(bool(p.any()) for p in outer_weights(generator.unet))
    write_atomic(folder / "summary.json", json.dumps({**summary, "learnt": learnt}))


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
            reason = f"{len(pairs)} preference pairs, {LEAST_PAIRS} are needed"
            _finish(run, folder, generator, [], {"stopped_at": 0, "reason": reason, "unet_passes": 0})
            return
        # What is painted at one place in one frame, or starts from one image, is alike even where no image is shared
        places = {
            one.id: one.condition.id for one in samples if (one.condition.frame, one.condition.start) != (None, None)
        }
        kept, watched = hold_out(pairs, config.preferences.held_out, config.seed, "held-out", round_, places=places)
        reference = generator if config.alignment.reference == "previous" else model_at(run.folder, config, [])
        cache, known = folder / SCRATCH, (run, generator, data, critic, samples, scores)
        train = pair_table(*known, kept, cache / "train", round_=round_)
        held_out = pair_table(*known, watched, cache / "held-out")
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
        cost = alignment_passes(config.alignment, len(train), len(watched), steps, tried)
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
        cache = folder / SCRATCH
        winners = kept_images(run, encoded(run, generator, data.split("train"), chosen), cache / "images")
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
            cache=cache,
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
