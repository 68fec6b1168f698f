"""The denoising objective as pure functions on tensors, for epsilon- and v-prediction alike.

x_t = a x_0 + s eps with a^2 = alpha_bar_t, s^2 = 1 - alpha_bar_t; v = a eps - s x_0 (Salimans & Ho, arXiv:2202.00512).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """`alpha_bar` [T] float32 and what the network predicts."""

    alpha_bar: Tensor
    prediction: str

    def signal(self, t: Tensor) -> Tensor:
        """alpha_bar at timesteps `t` [B], shaped [B, 1, 1, 1]."""
        return self.alpha_bar.to(t.device)[t].view(-1, 1, 1, 1)


def noised(schedule: Schedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t [B, C, H, W] of clean latents and unit noise at timesteps `t` [B]."""
    signal = schedule.signal(t)
    return signal.sqrt() * x0 + (1 - signal).sqrt() * noise


def target(schedule: Schedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the network should predict [B, C, H, W]."""
    if schedule.prediction == "epsilon":
        return noise
    signal = schedule.signal(t)
    return signal.sqrt() * noise - (1 - signal).sqrt() * x0


def epsilon_errors(schedule: Schedule, prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """||eps - eps_theta||^2 [B] float32, summed over the latent, whatever the network predicts.

    From v the implied noise is eps = a v + s x_t, so its error is a^2 = alpha_bar_t times v's.
    """
    error = (prediction.float() - target(schedule, x0.float(), noise.float(), t)).square().flatten(1).sum(1)
    return error if schedule.prediction == "epsilon" else error * schedule.signal(t).flatten()


def error_weight(schedule: Schedule, t: Tensor, kind: str) -> Tensor:
    """omega(lambda_t) [B] of an epsilon error: 1 for `epsilon`; for `v` what makes it the error of v, 1 / alpha_bar_t.

    An epsilon error is largest where there is least noise and only grain is left to guess; v's stays level up to pure
    noise, where it is decided what will be seen.
    """
    return torch.ones(len(t), device=t.device) if kind == "epsilon" else 1 / schedule.signal(t).flatten()


def stratified_timesteps(batch: int, total: int, generator: torch.Generator) -> Tensor:
    """Timesteps [B] of 0..total-1, logit-normal, one from each of B equally likely strata, in random order.

    Strata make the mean loss vary less; the logit-normal density (Esser et al., arXiv:2403.03206) spends the passes in
    the middle, where a shape is decided, rather than on the grain of tissue or on pure noise.
    """
    offset = torch.rand(batch, generator=generator)
    quantile = (torch.randperm(batch, generator=generator) + offset) / batch
    share = torch.sigmoid(torch.special.ndtri(quantile.double()))
    return (share * total).long().clamp(max=total - 1)
