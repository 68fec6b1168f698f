"""Where an image's error counts: more where the critic looks, since a label lives in a small region."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from saadi.diffusion.objective import Clean

LEAST = 0.25
"""Share of the mean weight that every latent cell has at least: an error must not be free where the critic is blind."""


def saliency_weight(saliency: Tensor, side: tuple[int, int], least: float = LEAST) -> Tensor:
    """Weights [B, 1, h, w] of latent cells, mean 1 in each image and nowhere below `least` (0 .. 1), float32.

    `saliency` [B, S, S], not negative: how much each pixel moves the critic's loss, in any unit. It is averaged over
    cells, and over each cell and its neighbours, since gradients are grainy. An image that moves nothing counts evenly.
    """
    cells = adaptive_avg_pool2d(saliency.float()[:, None], side)
    smooth = avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    mean = smooth.mean((1, 2, 3), keepdim=True)
    even = torch.where(mean > 0, smooth / mean.clamp_min(torch.finfo(mean.dtype).tiny), torch.ones_like(smooth))
    return least + (1 - least) * even


def focused(images: Clean, saliency: Tensor) -> Clean:
    """Images whose error counts by `saliency` [B, S, S] beside what it counted by before, such as a painted region."""
    height, width = images.latents.shape[2:]
    weight = saliency_weight(saliency, (height, width)).to(images.weight)
    return replace(images, weight=images.weight * weight)
