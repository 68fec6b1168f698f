"""The critic leads the sampler: towards what it takes for the class, by a step of known length."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_diffusion import small_generator
from torch import Tensor, nn

from saadi.config import SamplingConfig
from saadi.critics.architectures import Architecture
from saadi.critics.downstream import Network
from saadi.critics.leading import towards
from saadi.critics.tasks import TASKS, map_loss
from saadi.diffusion.drawing import decode_latents, draw
from saadi.diffusion.generator import Generator, encode_prompts
from saadi.preferences import log_softmax
from saadi.records import IGNORE

COUNT = 4
STEPS = SamplingConfig(steps=4, batch=2)
MADE = Architecture("brightness", lambda classes: Brightness(), (0.5, 0.5, 0.5), (1, 1, 1))


class Brightness(nn.Module):
    """Two classes: dark and bright images."""

    def forward(self, x: Tensor) -> Tensor:
        bright = 10 * x.mean((1, 2, 3))
        return torch.stack([-bright, bright], 1)


def _member() -> Network:
    return Network(TASKS["classification"], Brightness(), MADE)


def _drawn(generator: Generator, label: int | list[int] | None, strength: float = 0.5) -> NDArray[np.uint8]:
    told, blank = encode_prompts(generator, ["a hook", ""])[:, None]
    led = None
    if label is not None:
        wanted = torch.tensor(label).expand(COUNT)
        led = towards(generator, [_member(), _member()], wanted, strength)
    images = draw(generator, told.expand(COUNT, -1, -1), blank, range(COUNT), STEPS, feedback=led)
    return np.stack(list(images)).astype(float)


def test_images_are_led_to_what_the_critic_takes_for_their_class() -> None:
    generator = small_generator()
    dark, plain, bright = (_drawn(generator, label).mean() for label in (0, None, 1))
    assert dark < plain < bright


def test_no_strength_leads_nowhere_and_an_image_is_led_by_itself() -> None:
    generator = small_generator()
    assert np.array_equal(_drawn(generator, 1, 0.0), _drawn(generator, None))
    beside = _drawn(generator, [1, 0, 0, 1])  # others in its batch, to other ends
    assert np.abs(beside[[0, 3]] - _drawn(generator, 1)[[0, 3]]).max() <= 1
    assert np.abs(beside[[1, 2]] - _drawn(generator, 1)[[1, 2]]).max() > 1


def test_a_step_has_the_length_it_is_told_whatever_the_gradients() -> None:
    generator = small_generator()
    latents = torch.randn(COUNT, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    led = towards(generator, [_member()], torch.tensor([0, 1, 0, 1]), 0.2)
    moved = led(latents, 0.5, slice(0, COUNT))
    assert torch.allclose(moved.square().mean((1, 2, 3)).sqrt(), torch.full((COUNT,), 0.1), atol=1e-6)
    assert torch.allclose(led(latents[2:], 0.5, slice(2, COUNT)), moved[2:], atol=1e-5)
    # Down the gradient: a small step lowers the loss of each image on its class
    logits = [_member().logits(decode_latents(generator, clean)) for clean in (latents, latents + moved)]
    before, after = (-log_softmax(one)[np.arange(COUNT), [0, 1, 0, 1]] for one in logits)
    assert (after < before).all()


class Pixels(nn.Module):
    """Two classes of pixels: dark and bright."""

    def forward(self, x: Tensor) -> Tensor:
        bright = 10 * x.mean(1)
        return torch.stack([-bright, bright], 1)


def test_a_dense_critic_leads_where_something_is_asked_for() -> None:
    generator = small_generator()
    member = Network(TASKS["segmentation"], Pixels(), MADE)
    maps = torch.full((COUNT, 16, 16), IGNORE, dtype=torch.uint8)
    maps[:2, 8:], maps[2:, 8:] = 0, 1  # below, the first two are to be dark and the others bright
    latents = torch.randn(COUNT, 4, 4, 4, generator=torch.Generator().manual_seed(0))

    def losses(clean: Tensor) -> list[float]:
        logits = torch.from_numpy(member.logits(decode_latents(generator, clean)))
        return [float(map_loss(*one)) for one in zip(logits[:, None], maps[:, None], strict=True)]

    moved = towards(generator, [member], maps, 0.2)(latents, 1.0, slice(0, COUNT))
    before, after = losses(latents), losses(latents + moved)
    assert all(less < more for less, more in zip(after, before, strict=True))


def test_large_images_are_led_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = _drawn(small_generator(), 1)
    monkeypatch.setattr("saadi.diffusion.drawing.PIXELS", 1)
    assert np.abs(_drawn(small_generator(), 1) - at_once).max() <= 1


def test_nothing_is_moved_once_no_noise_is_left() -> None:
    generator, left = small_generator(), list[float]()

    def feedback(expected: Tensor, noise_left: float, rows: slice) -> Tensor:
        left.append(noise_left)
        return torch.zeros_like(expected)

    told, blank = encode_prompts(generator, ["a hook", ""])[:, None]
    list(draw(generator, told, blank, [0], STEPS, feedback=feedback))
    assert len(left) == STEPS.steps - 1
    assert all(1 > more > less > 0 for more, less in pairwise(left))


def test_it_takes_no_more_unet_passes() -> None:
    generator, calls = small_generator(), [0]
    generator.unet.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    _drawn(generator, None)
    plain, calls[0] = calls[0], 0
    _drawn(generator, 1)
    assert calls[0] == plain


def test_in_half_precision_a_sure_critic_still_leads() -> None:
    """Where its surprise is small, so is the slope: below what half precision holds, if it were not scaled up."""
    generator, half = small_generator(), small_generator().to(torch.device("cpu"), torch.float16)
    latents = torch.randn(COUNT, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    sure = replace(_member(), temperature=0.25)
    moved, likewise = (
        towards(one, [sure], torch.full((COUNT,), 1), 0.2)(latents, 0.5, slice(0, COUNT)) for one in (generator, half)
    )
    assert torch.nn.functional.cosine_similarity(moved.flatten(1), likewise.flatten(1)).min() > 0.99
