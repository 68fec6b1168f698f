"""The denoising objective against its closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saadi.diffusion.objective import Schedule, epsilon_errors, error_weight, noised, target

ALPHA_BAR = torch.tensor([0.9, 0.5, 0.1])
EPSILON, VELOCITY = Schedule(ALPHA_BAR, "epsilon"), Schedule(ALPHA_BAR, "v_prediction")
T = torch.tensor([0, 1, 2])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


X0, NOISE, OFF = draw(3, 4, 5, 5, seed=1), draw(3, 4, 5, 5, seed=2), draw(3, 4, 5, 5, seed=3)


def test_noised_mixes_by_the_roots_of_alpha_bar() -> None:
    one = torch.ones(3, 1, 1, 1)
    expected = ALPHA_BAR.sqrt() * 2 + (1 - ALPHA_BAR).sqrt() * 3
    torch.testing.assert_close(noised(EPSILON, 2 * one, 3 * one, T).flatten(), expected)


def test_velocity_target_gives_back_image_and_noise() -> None:
    v, x_t = target(VELOCITY, X0, NOISE, T), noised(VELOCITY, X0, NOISE, T)
    a, s = VELOCITY.signal(T).sqrt(), (1 - VELOCITY.signal(T)).sqrt()
    torch.testing.assert_close(a * x_t - s * v, X0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a * v + s * x_t, NOISE, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", [EPSILON, VELOCITY])
def test_exact_prediction_has_no_error(schedule: Schedule) -> None:
    exact = target(schedule, X0, NOISE, T)
    assert torch.equal(epsilon_errors(schedule, exact, X0, NOISE, T), torch.zeros(3))


def test_velocity_error_times_alpha_bar_is_the_epsilon_error() -> None:
    velocity = target(VELOCITY, X0, NOISE, T) + OFF
    own = OFF.square().flatten(1).sum(1)
    torch.testing.assert_close(epsilon_errors(VELOCITY, velocity, X0, NOISE, T), ALPHA_BAR * own)
    # The same network said in epsilon: eps = a v + s x_t. It must have the same error.
    a, s = VELOCITY.signal(T).sqrt(), (1 - VELOCITY.signal(T)).sqrt()
    implied = a * velocity + s * noised(VELOCITY, X0, NOISE, T)
    torch.testing.assert_close(
        epsilon_errors(EPSILON, implied, X0, NOISE, T), epsilon_errors(VELOCITY, velocity, X0, NOISE, T)
    )


def test_weights_turn_the_errors_of_either_kind_of_network_into_those_of_v() -> None:
    velocity = target(VELOCITY, X0, NOISE, T) + OFF
    own = OFF.square().flatten(1).sum(1)
    a, s = VELOCITY.signal(T).sqrt(), (1 - VELOCITY.signal(T)).sqrt()
    implied = a * velocity + s * noised(VELOCITY, X0, NOISE, T)
    for schedule, said in ((VELOCITY, velocity), (EPSILON, implied)):
        errors = epsilon_errors(schedule, said, X0, NOISE, T) * error_weight(schedule, T, "v")
        torch.testing.assert_close(errors, own, rtol=1e-4, atol=0)
    assert torch.equal(error_weight(VELOCITY, T, "epsilon"), torch.ones(3))


@pytest.mark.parametrize("side", [2, 4])
def test_errors_are_summed_over_the_latent_not_averaged(side: int) -> None:
    nothing = torch.zeros(3, 4, side, side)
    errors = epsilon_errors(EPSILON, nothing + 0.5, nothing, nothing, T)
    torch.testing.assert_close(errors, torch.full((3,), 0.25 * 4 * side * side))


@pytest.mark.parametrize("schedule", [EPSILON, VELOCITY])
def test_errors_are_float32_even_for_bfloat16_inputs(schedule: Schedule) -> None:
    x0, noise, said = (draw(3, 4, 16, 16, seed=seed, dtype=torch.bfloat16) for seed in (4, 5, 6))
    errors = epsilon_errors(schedule, said, x0, noise, T)
    assert errors.dtype == torch.float32
    exact = Schedule(ALPHA_BAR.double(), schedule.prediction)
    off = said.double() - target(exact, x0.double(), noise.double(), T)
    scale = 1.0 if schedule is EPSILON else ALPHA_BAR.double()
    expected = off.square().flatten(1).sum(1) * scale
    torch.testing.assert_close(errors.double(), expected, rtol=1e-5, atol=0)
