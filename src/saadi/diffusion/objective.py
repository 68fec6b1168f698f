"""The denoising objective as pure functions on tensors, for epsilon- and v-prediction alike.

x_t = a x_0 + s eps with a^2 = alpha_bar_t, s^2 = 1 - alpha_bar_t; v = a eps - s x_0 (Salimans & Ho, arXiv:2202.00512).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """`alpha_bar` [T] float32 and what the network predicts."""

    alpha_bar: Tensor
    prediction: str

    def signal(self, t: Tensor) -> Tensor:
        """alpha_bar at timesteps `t` [B], shaped [B, 1, 1, 1]."""
        return self.alpha_bar.to(t.device)[t].view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Clean:
    """Images as a denoiser meets them: `latents` [B, C, h, w], and what it is told beside the prompt.

    `given` [B, K, h, w]: input channels beside the noisy latents. None (K = 0) for text to image; for inpainting the
    mask and the latents of what is not blank. `weight` [B, 1, h, w] or [B, 1, 1, 1]: how much the error of a place
    counts, up to a factor.
    """

    latents: Tensor
    given: Tensor
    weight: Tensor

    @classmethod
    def whole(cls, latents: Tensor) -> Clean:
        """All of an image is to be made, and all of it counts."""
        return cls(latents, latents[:, :0], latents.new_ones(len(latents), 1, 1, 1))

    @classmethod
    def cat(cls, batches: Sequence[Clean]) -> Clean:
        return cls(*(torch.cat(parts) for parts in zip(*(batch.parts() for batch in batches), strict=True)))

    def __len__(self) -> int:
        return len(self.latents)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.latents, self.given, self.weight

    @property
    def focus(self) -> Tensor:
        """The weight scaled to a mean of 1 in each image, float32: a small region's error is as large as a whole
        image's, and beta means the same."""
        weight = self.weight.float()
        return weight / weight.mean((1, 2, 3), keepdim=True)

    def take(self, index: Tensor | slice) -> Clean:
        return Clean(*(part[index] for part in self.parts()))

    def to(self, device: torch.device | str) -> Clean:
        return Clean(*(part.to(device) for part in self.parts()))


def denoised(unet: nn.Module, schedule: Schedule, x0: Clean, noise: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
    """What the network predicts [B, C, h, w] for images noised to timesteps `t` [B], under prompts [B, T, D].

    It is shown numbers of the type of its own weights.
    """
    kind = next((p.dtype for p in unet.parameters()), torch.float32)
    seen = torch.cat([noised(schedule, x0.latents, noise, t), x0.given], 1)
    prediction: Tensor = unet(seen.to(kind), t, embedding.to(kind)).sample
    return prediction


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


def residual(schedule: Schedule, prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """By how much a prediction misses its target [B, C, H, W], float32 whatever the network's precision."""
    return prediction.float() - target(schedule, x0.float(), noise.float(), t)


def epsilon_errors(
    schedule: Schedule, prediction: Tensor, x0: Tensor, noise: Tensor, t: Tensor, weight: Tensor | float = 1.0
) -> Tensor:
    """||eps - eps_theta||^2 [B] float32, summed over the latent, whatever the network predicts.

    From v the implied noise is eps = a v + s x_t, so its error is a^2 = alpha_bar_t times v's. `weight` [B, 1, h, w]
    scales the squares of each place.
    """
    squares = residual(schedule, prediction, x0, noise, t).square() * weight
    error = squares.flatten(1).sum(1)
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
