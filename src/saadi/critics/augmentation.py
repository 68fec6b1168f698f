"""How training images are varied, as functions of a batch, a generator and the maps that move along."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Augmented = tuple[Tensor, Tensor | None]


def mirror(x: Tensor, generator: torch.Generator, maps: Tensor | None = None) -> Augmented:
    """Half of the images x [N, 3, S, S], at random, left to right, and their `maps` [N, S, S]: the set stays finite."""
    turned = torch.rand(len(x), generator=generator) < 0.5
    if maps is not None:
        maps = torch.where(turned[:, None, None], maps.flip(-1), maps)
    return torch.where(turned[:, None, None, None], x.flip(-1), x), maps


def augment(x: Tensor, generator: torch.Generator, maps: Tensor | None = None) -> Augmented:
    """Random mirror images, rotations to 30 degrees, zooms of 20 %, shifts of 8 %, colour casts of x [N, 3, S, S].

    `maps` [N, S, S] uint8 move along, by nearest neighbours. What comes into view is reflected, in image and map alike:
    a reflected tool is labelled as what it looks like.
    """
    n = len(x)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    angle, zoom = uniform(n) * (torch.pi / 6), 1 + 0.2 * uniform(n)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    shift = 0.16 * uniform(n, 2)
    affine = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )
    grid = nn.functional.affine_grid(affine, list(x.shape), align_corners=False)

    def moved(pixels: Tensor, mode: str) -> Tensor:
        return nn.functional.grid_sample(pixels, grid, mode=mode, padding_mode="reflection", align_corners=False)

    if maps is not None:
        maps = moved(maps[:, None].float(), "nearest")[:, 0].to(maps.dtype)
    gain, bias = 1 + 0.15 * uniform(n, 3, 1, 1) + 0.1 * uniform(n, 1, 1, 1), 0.08 * uniform(n, 1, 1, 1)
    return (moved(x, "bilinear") * gain + bias).clamp(0, 1), maps


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator, Tensor | None], Augmented]] = {
    "full": augment,
    "mirror": mirror,
}
"""By the name that the configuration uses."""
