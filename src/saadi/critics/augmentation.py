"""How training images are varied, as functions of a batch, a generator and the maps that move along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

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


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Torchvision's transforms draw from torch's own state: lent a seed of `generator`, then as it was."""
    key = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        yield


def randaugment(x: Tensor, generator: torch.Generator, maps: Tensor | None = None) -> Augmented:
    """Mirrored at random, then two operations of RandAugment (Cubuk et al., arXiv:1909.13719) at its usual strength on
    each image of x [N, 3, S, S]. It moves no `maps`: raises `ValueError` for them."""
    if maps is not None:
        raise ValueError("RandAugment does not move maps along")
    x, _ = mirror(x, generator)
    operations = v2.RandAugment()
    with _drawing_from(generator):
        varied = [operations(image) for image in (x * 255 + 0.5).to(torch.uint8)]
    return torch.stack(varied).float() / 255, None


def mix(kind: str, x: Tensor, labels: Tensor, classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images x [N, 3, S, S] and `labels` [N] mixed within the batch: `mixup` (Zhang et al., arXiv:1710.09412, alpha
    0.2) or `cutmix` (Yun et al., arXiv:1905.04899). Labels become shares of the classes [N, C]."""
    mixes = {"mixup": v2.MixUp(alpha=0.2, num_classes=classes), "cutmix": v2.CutMix(num_classes=classes)}
    with _drawing_from(generator):
        mixed: tuple[Tensor, Tensor] = mixes[kind](x, labels)
    return mixed


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator, Tensor | None], Augmented]] = {
    "full": augment,
    "mirror": mirror,
    "randaugment": randaugment,
}
"""By the name that the configuration uses."""
