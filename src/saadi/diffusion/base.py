"""Stage 1 (SSD): the denoising objective on labelled latents. The foundation and every fine-tuning go through here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.diffusion.generator import Generator, encode_ids, kept_prompts, token_ids
from saadi.diffusion.objective import Clean, denoised, residual, stratified_timesteps
from saadi.errors import BadInput
from saadi.seeds import numpy_rng, torch_rng
from saadi.shares import PLAIN, Resources
from saadi.training import Progress, Recipe, fit

DROP_PROMPT = 0.1
"""Share of images trained with the empty prompt, which guidance needs."""


def class_probabilities(labels: NDArray[np.int64], balance: float) -> NDArray[np.float64]:
    """Sampling probabilities [N]: classes as frequent as in the data at `balance` 0, equally frequent at 1."""
    return sampling_probabilities(labels[:, None] == np.unique(labels), balance)


def sampling_probabilities(shown: NDArray[np.bool_], balance: float) -> NDArray[np.float64]:
    """Sampling probabilities [N] of images that show the classes `shown` [N, C], any number of them each.

    An image is worth as much as the rarest class it shows: it weighs max over these of (1 / n_c) ** balance, if n_c
    images show class c. Those that show none count as a class of their own. All are equal at `balance` 0.
    """
    every = np.column_stack([shown, ~shown.any(1)])
    rarity = (1.0 / every.sum(0).clip(1)) ** balance
    weights = np.where(every, rarity, 0.0).max(1)
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def prompt_table(generator: Generator, prompts: Sequence[str]) -> Tensor:
    """Token ids [C + 1, T] of the class prompts, the empty prompt last. Raises `BadInput` if two become one."""
    ids, known = token_ids(generator, [*prompts, ""]), dict[tuple[int, ...], str]()
    for prompt, row in zip([*prompts, ""], ids.tolist(), strict=True):
        if (key := tuple(row)) in known:
            raise BadInput(f"prompts {known[key]!r} and {prompt!r} are the same to the text encoder; rename a class")
        known[key] = prompt
    return ids


def train_denoiser(
    generator: Generator,
    images: Callable[[NDArray[np.int64], np.random.Generator], Clean],
    labels: NDArray[np.int64],
    prompts: Sequence[str],
    recipe: Recipe,
    *,
    batch: int,
    balance: float,
    seed: int,
    what: str = "base model",
    checkpoint: Path | None = None,
    cache: Path | None = None,
    every: int = 50,
    progress: Progress | None = None,
    resources: Resources = PLAIN,
) -> list[dict[str, float]]:
    """Train UNet and text encoder in place, what of them asks for gradients; returns the log.

    `images(index, rng)` gives images `index` [B], whose classes are `labels` [N], named by `prompts` [C]; `rng` is for
    what it decides at random. Weights that learn have to be float32, those of an adapter too. `cache`: a folder for
    what the prompts say to an encoder that does not learn; None: it is held in memory.
    """
    precision = resources.precision
    device, schedule = generator.device, generator.schedule
    total = len(schedule.alpha_bar)
    ids = prompt_table(generator, prompts)
    probabilities = class_probabilities(labels, balance)
    learns = any(p.requires_grad for p in generator.text_encoder.parameters())
    known = None if learns else kept_prompts(generator, [*prompts, ""], cache and cache / "prompts", resources.team)

    def loss_at(step: int, rows: slice) -> Tensor:
        rng, trng = numpy_rng(seed, "batch", step), torch_rng(seed, "noise", step)
        index = rng.choice(len(labels), batch, p=probabilities)
        x0 = images(index, rng)
        t = stratified_timesteps(batch, total, trng)[rows].to(device)
        noise = torch.randn(x0.latents.shape, generator=trng)[rows].to(device)
        asked = np.where(rng.random(batch) < DROP_PROMPT, len(prompts), labels[index])[rows]
        mean, x0 = x0.weight.mean().to(device), x0.take(rows).to(device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            if known is None:
                seen, inverse = np.unique(asked, return_inverse=True)
                # Not table[rows]: two threads sum its gradient in whatever order they come to it.
                embeddings = encode_ids(generator, ids[seen]).index_select(0, torch.from_numpy(inverse).to(device))
            else:
                embeddings = known[torch.from_numpy(asked)].to(device)
            prediction = denoised(generator.unet, schedule, x0, noise, t, embeddings)
        missed = residual(schedule, prediction, x0.latents, noise, t)
        return (missed.square() * (x0.weight / mean)).mean()  # alike at all t, as Stable Diffusion was trained

    generator.unet.train()
    generator.text_encoder.train()
    log, _ = fit(
        {"unet": generator.unet, "text": generator.text_encoder},
        loss_at,
        replace(recipe, eight_bit=resources.eight_bit),
        shares=resources.shares(batch),
        seed=seed,
        what=what,
        checkpoint=checkpoint,
        every=every,
        progress=progress,
    )
    generator.unet.eval()
    generator.text_encoder.eval()
    return log
