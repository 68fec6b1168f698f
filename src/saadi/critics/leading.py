"""The critic leads the sampler while it draws: feedback-guided sampling (Askari-Hemmat et al., arXiv:2310.00158)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.config import RunConfig
from saadi.critics.downstream import Network
from saadi.critics.judging import read_networks
from saadi.data.conditions import requests_of
from saadi.diffusion.drawing import Feedback, at_once
from saadi.diffusion.generator import Generator
from saadi.diffusion.painting import Painter, Sampler, paint_with
from saadi.records import Condition, Sample, to_record
from saadi.workers import Context


def towards(generator: Generator, members: Sequence[Network], wanted: Tensor, strength: float) -> Feedback:
    """Leads a sampler to images in which the critic sees what was asked for, `wanted` [N, ...] as the task has it.

    After each step the clean image that the model expected is decoded and shown to all members; the latents move down
    the gradient of their mean surprise at it, by `strength` in root mean square for each unit of noise that is left.
    Through the decoder, not through the UNet: a draw costs no more UNet passes than one without.
    """

    def slope(x0: Tensor, asked: Tensor) -> Tensor:
        with torch.enable_grad():
            x0.requires_grad_()
            scale = generator.vae.config.scaling_factor
            pixels = generator.vae.decode((x0 / scale).to(generator.vae.dtype)).sample.float()
            shown = (pixels.clamp(-1, 1) + 1) / 2
            losses = [
                member.task.surprise(*one)  # each image's own: what else is in the batch must not matter
                for member in members
                for one in zip(member.calibrated(shown)[:, None], asked[:, None], strict=True)
            ]
            # Only its direction is asked for: in half precision the slope of a sure critic would vanish, unscaled
            for factor in (2.0**16, 2.0**8, 1.0) if generator.vae.dtype == torch.float16 else (1.0,):
                (found,) = torch.autograd.grad(factor * torch.stack(losses).sum(), x0, retain_graph=factor > 1)
                if found.isfinite().all():
                    break
        return found

    def feedback(expected: Tensor, noise_left: float, rows: slice) -> Tensor:
        x0, asked = expected.detach().float(), wanted[rows].to(expected.device)
        few = at_once(x0.shape[-1] * generator.cell)  # a decoder's gradients are a lot of memory
        slopes = torch.cat([slope(*some) for some in zip(torch.split(x0, few), torch.split(asked, few), strict=True)])
        size = slopes.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        return -strength * noise_left * slopes / size

    return feedback


def open_led(root: Path, config: RunConfig, adapters: Sequence[str]) -> Painter:
    """The model of the run in `root` with some adapters, led by the run's critic, `sampling.lead` strong."""
    painter = Painter.open(root, config, adapters)
    members, _ = read_networks(root / "critic", config, len(painter.train.space))

    def lead(model: Generator, conditions: Sequence[Condition], maps: NDArray[np.uint8] | None) -> Feedback:
        wanted, *_ = requests_of(config, painter.train, conditions, maps)
        return towards(model, members, torch.from_numpy(wanted), config.sampling.lead)

    return replace(painter, lead=lead)


def paint_led(context: Context, out: Path, *, adapters: list[str], samples: list[dict[str, Any]]) -> None:
    """A job: as `paint`, led by the critic."""
    painter = context.keep("painter", ["led", *adapters], lambda: open_led(context.root, context.config, adapters))
    paint_with(painter, [to_record(values, Sample) for values in samples], out)


class LedSampler(Sampler):
    """Draws as `Sampler` does, from the same noise, led by the critic."""

    job: Callable[..., None] = staticmethod(paint_led)

    @property
    def settings(self) -> list[Any]:
        return [*super().settings, "led"]
