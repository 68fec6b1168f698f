"""With as many threads, and more than one, what is learnt is the same to the last bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from saadi.diffusion.base import train_denoiser
from saadi.diffusion.generator import build_tiny
from saadi.diffusion.objective import Clean
from saadi.training import Recipe


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_text_encoder_learns_the_same_with_two_threads() -> None:
    latents = torch.randn(16, 12, 16, 16, generator=torch.Generator().manual_seed(0))

    def pick(index: NDArray[np.int64], _: np.random.Generator) -> Clean:
        return Clean.whole(latents[index])

    def learnt() -> list[torch.Tensor]:
        torch.manual_seed(0)
        generator = build_tiny()
        labels, prompts = np.arange(16) % 2, ["a hook", "a grasper"]
        recipe = Recipe(steps=2, lr=1e-3)
        train_denoiser(generator, pick, labels, prompts, recipe, batch=32, balance=0.0, seed=0)
        return [p.detach() for p in generator.text_encoder.parameters()]

    assert all(torch.equal(one, two) for one, two in zip(learnt(), learnt(), strict=True))
