"""The rival that asks the critic while it draws: feedback-guided sampling (Askari-Hemmat et al., arXiv:2310.00158)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saadi.critics.downstream import Network
from saadi.critics.judging import read_networks
from saadi.diffusion.drawing import Feedback
from saadi.diffusion.generator import Generator
from saadi.diffusion.painting import Painter, Sampler, paint_with
from saadi.records import Sample, to_record
from saadi.workers import Context

STRENGTH = 0.05
"""How far a step is led, of the noise that is left: see `towards`."""


def towards(generator: Generator, members: Sequence[Network], labels: Tensor, strength: float = STRENGTH) -> Feedback:
    """Leads a sampler to images in which the critic sees their class, `labels` [N].

    At each step the clean image that the model expects is decoded and shown to all members; the latents move down the
    gradient of the mean loss, by `strength` in root mean square for each unit of noise that is left. Through the
    decoder, not through the UNet: a draw costs no more UNet passes than one without.
    """

    def feedback(expected: Tensor, noise_left: float, rows: slice) -> Tensor:
        with torch.enable_grad():
            x0 = expected.detach().float().requires_grad_()
            scale = generator.vae.config.scaling_factor
            pixels = generator.vae.decode((x0 / scale).to(generator.vae.dtype)).sample.float()
            shown = (pixels.clamp(-1, 1) + 1) / 2
            wanted = labels[rows].to(x0.device)
            losses = [
                torch.nn.functional.cross_entropy(
                    member.net((shown - member.mean) / member.std) / member.temperature, wanted, reduction="sum"
                )
                for member in members
            ]
            (slope,) = torch.autograd.grad(torch.stack(losses).mean(), x0)
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        return -strength * noise_left * slope / size

    return feedback


def paint_led(context: Context, out: Path, *, adapters: list[str], samples: list[dict[str, Any]]) -> None:
    """A job: as `paint`, led by the critic's members."""
    root, config = context.root, context.config
    painter = context.keep("painter", adapters, lambda: Painter.open(root, config, adapters))
    space = painter.train.space
    members = context.keep("members", "", lambda: read_networks(root / "critic", config, len(space))[0])
    wanted = [to_record(values, Sample) for values in samples]
    labels = torch.tensor([space.id(sample.label) for sample in wanted])
    paint_with(replace(painter, feedback=towards(painter.model, members, labels)), wanted, out)


class LedSampler(Sampler):
    """Draws as `Sampler` does, from the same noise, led by the critic."""

    job: Callable[..., None] = staticmethod(paint_led)

    @property
    def settings(self) -> list[Any]:
        return [*super().settings, STRENGTH]
