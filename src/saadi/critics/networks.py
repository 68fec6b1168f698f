"""The small networks: a classifier and a U-Net around one encoder, both from scratch in seconds on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Widths = tuple[int, int, int]
WIDTHS: Widths = (20, 36, 72)
"""Feature maps at a half, a quarter and an eighth of the image's side."""


def _layer(fan_in: int, fan_out: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(fan_in, fan_out, 3, stride, 1, bias=False), nn.BatchNorm2d(fan_out), nn.ReLU(inplace=True)]


def _encoder(widths: Widths) -> nn.Sequential:
    """Five 3x3 convolutions with batch norm, [N, 3, H, W] to [N, c, H / 8, W / 8]."""
    a, b, c = widths
    return nn.Sequential(*_layer(3, a, 2), *_layer(a, b, 2), *_layer(b, b, 1), *_layer(b, c, 2), *_layer(c, c, 1))


class SmallCNN(nn.Module):
    """Five 3x3 convolutions with batch norm: 10 million multiply-adds at 64 px, from scratch, in seconds."""

    def __init__(self, classes: int, widths: Widths = WIDTHS) -> None:
        super().__init__()
        self.features = _encoder(widths)
        self.head = nn.Linear(2 * widths[-1], classes)

    def embed(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in about [-2, 2] to [N, 2c]: the mean and the peak of each feature map."""
        maps = self.features(x)
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


class SmallUNet(nn.Module):
    """SmallCNN's encoder and a light decoder that adds its features back, coarse to fine.

    19 million multiply-adds at 64 px. [N, 3, H, W] in about [-2, 2] to logits [N, C, H, W], for sides that are
    multiples of 8. Logits are made at half resolution and interpolated: with a layer at full resolution, training took
    half as long again on a CPU, and the phantom's tools were found no better.
    """

    def __init__(self, classes: int, widths: Widths = WIDTHS, width: int = 32) -> None:
        super().__init__()
        a, b, c = widths
        self.features = _encoder(widths)
        self.to_quarter, self.mix_quarter = nn.Conv2d(c, b, 1), nn.Sequential(*_layer(b, b, 1))
        self.to_half, self.mix_half = nn.Conv2d(b, a, 1), nn.Sequential(*_layer(a, width, 1))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.features[:3](x)
        quarter = self.features[3:9](half)
        eighth = self.features[9:](quarter)
        quarter = self.mix_quarter(quarter + _twice(self.to_quarter(eighth)))
        half = self.mix_half(half + _twice(self.to_half(quarter)))
        return nn.functional.interpolate(self.head(half), scale_factor=2.0, mode="bilinear")


def _twice(maps: Tensor) -> Tensor:
    """Twice as high and wide."""
    return nn.functional.interpolate(maps, scale_factor=2.0)
