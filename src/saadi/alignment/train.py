"""Stage 3: fine-tune an adapter on preference pairs, watching pairs it never learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from saadi.alignment.objectives import OBJECTIVES, Errors, gradient_overlap, relative_margin, sft
from saadi.alignment.pairs import PairBatch, Pairs
from saadi.config import AlignmentConfig
from saadi.diffusion.lora import add_adapter, outer_weights
from saadi.diffusion.objective import Clean, Schedule, denoised, epsilon_errors, error_weight, residual
from saadi.errors import BadInput
from saadi.seeds import numpy_rng, seed_of, torch_rng
from saadi.shares import PLAIN, Resources
from saadi.training import Progress, Recipe, fit

_REFERENCE_BATCH, _CELLS = 64, 2**18
"""Images that a UNet is asked about at once where nothing is learnt, at most, and their latents' cells: 64 images of
Stable Diffusion at 512 px."""
WATCH_EVERY = 10
TRIED = 5
"""Lengths tried when extrapolating."""


def training_draws(config: AlignmentConfig, pairs: int) -> int:
    """(timestep, noise) draws of each training pair: enough that each is used about once, so that none is learnt."""
    return max(config.bank, -(-config.steps * config.pairs // max(pairs, 1)))


def alignment_passes(config: AlignmentConfig, train: int, held_out: int, steps: int, tried: int = 0) -> int:
    """UNet passes of one image in an alignment that took `steps` and `tried` so many extrapolations: the reference's
    bank, watching, training (x 3)."""
    bank = 2 * (train * training_draws(config, train) + held_out * config.bank)
    watching = 2 * held_out * config.bank * (-(-steps // WATCH_EVERY) + tried)
    return bank + watching + 3 * 2 * config.pairs * steps


@dataclass(frozen=True)
class Bank:
    """Fixed draws for each pair: timesteps [P, K], noise keys, and the reference's errors [P, K] on winner and loser.

    `weighting` says whose errors, `epsilon`'s or `v`'s. Winner and loser share timestep and noise. The reference is
    stated once, here, before any adapter exists, so it cannot drift: not by an adapter left on, nor by resuming from a
    half-trained model.
    """

    timesteps: Tensor
    seed: int
    weighting: str
    reference_winner: Tensor
    reference_loser: Tensor

    def noise(self, pairs: Tensor, draws: Tensor, shape: torch.Size) -> Tensor:
        """The noise of some (pair, draw), [B, C, h, w]."""
        drawn = [
            torch.randn(shape, generator=torch_rng(self.seed, int(p), int(k)))
            for p, k in zip(pairs, draws, strict=True)
        ]
        return torch.stack(drawn)


def pair_errors(
    unet: nn.Module, schedule: Schedule, pairs: PairBatch, noise: Tensor, t: Tensor, weighting: str = "epsilon"
) -> tuple[Tensor, Tensor, Tensor]:
    """Errors [B] on winners and on losers, and their `gradient_overlap` [B], from one batched pass at shared `noise`
    and timesteps `t` [B]."""
    both, twice = Clean.cat([pairs.winner, pairs.loser]), torch.cat([t, t])
    shared = torch.cat([noise, noise])
    embedding = torch.cat([pairs.embedding, pairs.loser_embedding])
    prediction = denoised(unet, schedule, both, shared, twice, embedding)
    errors = epsilon_errors(schedule, prediction, both.latents, shared, twice, both.focus)
    errors = errors * error_weight(schedule, twice, weighting)
    winner, loser = errors.chunk(2)
    # An error's gradient at the output, up to what the two of a pair share
    slope = residual(schedule, prediction.detach(), both.latents, shared, twice) * both.focus
    return winner, loser, gradient_overlap(*slope.chunk(2))


def bank_timesteps(pairs: int, draws: int, total: int, seed: int, earliest: float = 0.0) -> Tensor:
    """Timesteps [P, K] of 0..total-1, uniform over the schedule from the share `earliest` on, a pair's in strata."""
    offset = torch.rand(pairs, draws, generator=torch_rng(seed, "timesteps"))
    share = earliest + (1 - earliest) * (torch.arange(draws) + offset) / draws
    return (share * total).long().clamp(max=total - 1)


def make_bank(
    reference: nn.Module,
    schedule: Schedule,
    pairs: Pairs,
    draws: int,
    seed: int,
    *,
    weighting: str = "epsilon",
    earliest: float = 0.0,
    resources: Resources = PLAIN,
) -> Bank:
    """Draw `draws` noises and stratified timesteps for each pair and compute the reference's errors, once."""
    timesteps = bank_timesteps(len(pairs), draws, len(schedule.alpha_bar), seed, earliest)
    bank = Bank(timesteps, seed, weighting, torch.zeros(timesteps.shape), torch.zeros(timesteps.shape))
    winner, loser, _ = _every_error(reference, schedule, pairs, bank, resources)
    return replace(bank, reference_winner=winner.view(timesteps.shape), reference_loser=loser.view(timesteps.shape))


def _every_error(
    unet: nn.Module, schedule: Schedule, pairs: Pairs, bank: Bank, resources: Resources
) -> tuple[Tensor, Tensor, Tensor]:
    """Errors on winners and losers and their overlaps at all draws of all pairs of a bank, each [P x K], pair by pair.
    The team's processes share them out, in pieces that memory allows."""
    order = torch.cartesian_prod(torch.arange(len(pairs)), torch.arange(bank.timesteps.shape[1]))
    found, team = torch.zeros(3, len(order)), resources.team

    def errors_at(rows: Tensor) -> Tensor:
        return torch.stack(_bank_errors(unet, schedule, pairs, bank, *order[rows].unbind(1))).cpu()

    with torch.no_grad():
        at_once = min(_REFERENCE_BATCH, _CELLS // pairs.shape[-2:].numel()) // 2
        at_once = max(1, min(at_once, resources.micro or at_once))
        for number, rows in enumerate(torch.split(torch.arange(len(order)), at_once)):
            if number % team.size == team.rank:
                found[:, rows] = _in_pieces(errors_at, rows)
    team.add([found])
    winner, loser, overlap = found
    return winner, loser, overlap


def _in_pieces(errors_at: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """`errors_at` some rows, [3, B], in halves where there is no memory for all of them at once."""
    try:
        return errors_at(rows)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
    # Not within the handler, where the error still holds what was computed so far
    if len(rows) == 1:
        raise BadInput("alignment: no memory for a pair; use a smaller model, data.size or precision")
    return torch.cat([_in_pieces(errors_at, half) for half in rows.chunk(2)], 1)


def _bank_errors(
    unet: nn.Module, schedule: Schedule, pairs: Pairs, bank: Bank, p: Tensor, k: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    device = next(unet.parameters()).device
    noise = bank.noise(p, k, pairs.shape).to(device)
    return pair_errors(unet, schedule, pairs.take(p).to(device), noise, bank.timesteps[p, k].to(device), bank.weighting)


def bank_errors(
    unet: nn.Module, schedule: Schedule, pairs: Pairs, bank: Bank, p: Tensor, k: Tensor, rows: slice = slice(None)
) -> Errors:
    """Policy and reference errors [B] at the `rows` of pairs `p` and draws `k` of a bank, all of which are a batch."""
    usual = float(bank.reference_winner[p, k].mean())
    p, k = p[rows], k[rows]
    winner, loser, overlap = _bank_errors(unet, schedule, pairs, bank, p, k)
    base_winner, base_loser = (one[p, k].to(winner.device) for one in (bank.reference_winner, bank.reference_loser))
    size = pairs.shape.numel()
    return Errors(winner, loser, base_winner, base_loser, overlap, size=size, usual=usual)


def align(
    unet: UNet2DConditionModel,
    reference: nn.Module,
    schedule: Schedule,
    train: Pairs,
    held_out: Pairs,
    config: AlignmentConfig,
    seed: int,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    resources: Resources = PLAIN,
) -> tuple[list[dict[str, float]], str]:
    """Add an adapter to `unet` and train it in place; returns the log and why training ended.

    `reference` may be `unet` itself (the previous round): its errors are taken before the adapter exists; another model
    is then moved to main memory. Held-out
    pairs, on fixed draws, give pair accuracy and the winner's and the loser's change of error apart, since a growing
    margin can hide that both get worse (likelihood displacement). `train` and `held_out` hold a pair each at least.
    The adapter is float32 whatever the type of the UNet's own weights.
    Raises `BadInput` for an unknown objective.
    """
    if config.objective not in OBJECTIVES:
        raise BadInput(f"alignment.objective: unknown {config.objective!r}; one of {', '.join(sorted(OBJECTIVES))}")
    unet.eval()
    draws = training_draws(config, len(train))
    bank, watched = (
        make_bank(
            reference,
            schedule,
            pairs,
            count,
            seed_of(seed, key),
            weighting=config.weighting,
            earliest=config.earliest,
            resources=resources,
        )
        for pairs, count, key in ((train, draws, "train"), (held_out, config.bank, "held-out"))
    )
    if reference is not unet:
        reference.to("cpu")  # not asked again
    add_adapter(unet, config.rank, seed_of(seed, "adapter"))
    loss_of = OBJECTIVES[config.objective]

    def loss_at(step: int, rows: slice) -> Tensor:
        rng = numpy_rng(seed, "pairs", step)
        p = torch.from_numpy(rng.choice(len(train), config.pairs, replace=len(train) < config.pairs))
        k = torch.from_numpy(rng.integers(0, draws, config.pairs))
        errors = bank_errors(unet, schedule, train, bank, p, k, rows)
        loss = loss_of(errors, config.beta)
        return (loss + config.sft * sft(errors, config.beta)).mean()

    def watch(step: int) -> dict[str, float]:
        winner, loser, _ = _every_error(unet, schedule, held_out, watched, resources)
        base_winner, base_loser = watched.reference_winner.flatten(), watched.reference_loser.flatten()
        margin = relative_margin(winner, loser, base_winner, base_loser)
        return {
            "pair_accuracy": float((margin > 0).float().mean()),
            "winner_change": float(winner.mean() / base_winner.mean() - 1),
            "loser_change": float(loser.mean() / base_loser.mean() - 1),
            "logit": float((config.beta * margin).mean()),
        }

    def stop(row: dict[str, float]) -> str | None:
        if row["winner_change"] <= config.stop_rise:
            return None
        # What is not a number is not below any limit either
        return f"the held-out winners' error rose {row['winner_change']:.1%} above the reference's"

    recipe = Recipe(config.steps, config.lr, warmup=0.1, floor=0.1, eight_bit=resources.eight_bit)
    rows, reason = fit(
        {"unet": unet}, loss_at, recipe, shares=resources.shares(config.pairs), seed=seed, what="alignment",
        checkpoint=checkpoint, every=WATCH_EVERY, progress=progress, watch=watch, stop=stop,
    )  # fmt: skip
    if config.extrapolation > 1 and any(p.any() for p in outer_weights(unet)):
        row = extrapolate(unet, config.extrapolation, watch, stop)
        rows.append({"step": rows[-1]["step"], **row})
        reason += f"; taken {row['extrapolation']:g} times as far"
    return rows, reason


def extrapolate(
    unet: UNet2DConditionModel,
    most: float,
    watch: Callable[[int], dict[str, float]],
    stop: Callable[[dict[str, float]], str | None],
) -> dict[str, float]:
    """Go on in the direction an adapter has learnt, up to `most` times as far; returns what is then watched.

    Few pairs give a sound direction long before they give a long step (Zheng et al., arXiv:2404.16792). Of `most` and
    the smaller steps down to 1 the first is taken at which training would not have stopped.
    """
    learnt = [p.detach().clone() for p in outer_weights(unet)]
    for tried, factor in enumerate(np.linspace(most, 1, TRIED), 1):
        for p, value in zip(outer_weights(unet), learnt, strict=True):
            p.data.copy_(float(factor) * value)
        row = {"extrapolation": float(factor), "tried": float(tried), **watch(0)}
        if stop(row) is None:
            break
    return row
