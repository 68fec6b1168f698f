"""Each objective against its closed form: value, slope, what beta means, and the pitfalls that apply to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from small_diffusion import CONFIG, HELD_OUT, SHAPE, TRAIN, errors_of, normal, small_generator
from torch import Tensor, nn

from saadi.alignment.objectives import (
    OBJECTIVES,
    Errors,
    bounded_score,
    dpo,
    gradient_overlap,
    ipo,
    kto,
    loser_scale,
    mapo,
    sdpo,
)
from saadi.alignment.train import align, bank_errors, make_bank, pair_errors
from saadi.diffusion.generator import Generator
from saadi.diffusion.lora import add_adapter

AT_THE_REFERENCE = {"dpo": math.log(2), "sdpo": math.log(2), "ipo": 0.25, "kto": 0.5}
SLOPE = {"dpo": 0.5, "sdpo": 0.5, "ipo": 1.0, "kto": 0.125, "mapo": 0.5}
"""What a pair's loss gains for each unit of beta e_w, where neither side has an error worth naming."""


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


def slopes(name: str, winner: Tensor, loser: Tensor, beta: float, **more: Tensor | float) -> tuple[Tensor, Tensor]:
    """The gradients [B] of the summed losses with respect to winners' and losers' errors."""
    winner, loser = winner.clone().requires_grad_(), loser.clone().requires_grad_()
    loss = OBJECTIVES[name](errors_of(winner, loser, **more), beta).sum()  # type: ignore[arg-type]
    found = torch.autograd.grad(loss, [winner, loser])
    return found[0], found[1]


# All of them


@pytest.mark.parametrize("name", AT_THE_REFERENCE)
def test_the_loss_at_step_0_is_known(name: str, generator: Generator) -> None:
    unet = deepcopy(generator.unet)
    bank = make_bank(unet, generator.schedule, TRAIN, 1, seed=1)
    add_adapter(unet, 2, seed=2)
    errors = bank_errors(unet, generator.schedule, TRAIN, bank, torch.arange(4), torch.zeros(4, dtype=torch.long))
    loss = OBJECTIVES[name](errors, 0.1)
    torch.testing.assert_close(loss, torch.full((4,), AT_THE_REFERENCE[name]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SLOPE)
def test_beta_scales_the_slope_and_the_slope_is_of_summed_errors(name: str) -> None:
    zero = torch.full((3,), 1e-3, dtype=torch.float64)
    for beta in (0.1, 0.4):
        up, down = slopes(name, zero, zero, beta, reference_winner=zero, reference_loser=zero, size=64)
        torch.testing.assert_close(up, torch.full_like(up, SLOPE[name] * beta), rtol=1e-3, atol=0)
        torch.testing.assert_close(down, -up, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_losses_are_taken_per_pair_not_on_batch_means(name: str) -> None:
    """Two pairs whose margins cancel. Only the reference point of `kto` is a batch's, and here it is 0."""
    winner, loser = torch.tensor([1.0, 30.0]), torch.tensor([30.0, 1.0])
    both = errors_of(winner, loser, 20.0, 20.0, size=4)
    losses = OBJECTIVES[name](both, 1.0)
    assert losses.shape == (2,)
    alone = [OBJECTIVES[name](errors_of(winner[i : i + 1], loser[i : i + 1], 20.0, 20.0, size=4), 1.0) for i in (0, 1)]
    torch.testing.assert_close(losses, torch.cat(alone))
    assert losses[0] < losses[1]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_trains_an_adapter_on_one_code_path(name: str, generator: Generator) -> None:
    unet = deepcopy(generator.unet)
    config = CONFIG.model_copy(update={"objective": name, "steps": 3, "sft": 0.25})
    rows, _ = align(unet, unet, generator.schedule, TRAIN, HELD_OUT, config, 1)
    assert math.isfinite(rows[-1]["logit"])
    assert any(bool(p.detach().any()) for key, p in unet.named_parameters() if "lora_B" in key)


# Diffusion-SDPO


def test_the_scale_is_the_largest_at_which_the_winner_still_improves_enough() -> None:
    """min(1, (1 - kept) |g_w|^2 / <g_w, g_l>), and 1 where the gradients oppose each other."""
    g_w, g_l = torch.tensor([[3.0, 4.0]]).repeat(4, 1), torch.tensor([[6.0, 8.0], [3.0, 4.0], [-4.0, 3.0], [-3.0, 0.0]])
    overlap = gradient_overlap(g_w, g_l)
    torch.testing.assert_close(overlap, torch.tensor([2.0, 1.0, 0.0, -9 / 25]))
    torch.testing.assert_close(loser_scale(overlap, 0.0), torch.tensor([0.5, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(loser_scale(overlap, 0.9), torch.tensor([0.05, 0.1, 1.0, 1.0]))
    assert torch.equal(gradient_overlap(0 * g_w, g_l), torch.zeros(4))


class Shifted(nn.Module):
    """Predicts a shift of its own for each pair, for losers it and `apart` times what it was: a step moves both outputs
    alike."""

    def __init__(self, pairs: int, apart: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(normal(pairs, *SHAPE, seed=3))
        self.apart = apart * self.shift.detach().clone()

    def forward(self, x: Tensor, t: Tensor, embedding: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.cat([self.shift, self.shift + self.apart]))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_no_pair_lets_its_winners_error_rise_to_first_order(prediction: str, generator: Generator) -> None:
    """`dpo` does, where the loser's gradient is the longer one. Each place may count differently on either side."""
    schedule, net = replace(generator.schedule, prediction=prediction), Shifted(4, apart=2)
    winner, loser = (
        replace(side, weight=normal(4, 1, 4, 4, seed=seed).abs())
        for side, seed in ((TRAIN.winner, 1), (TRAIN.loser, 2))
    )
    pairs = replace(TRAIN, winner=winner, loser=loser)
    noise, t = normal(4, *SHAPE, seed=5), torch.tensor([300, 500, 700, 900])

    def change(loss_of: Callable[[Errors], Tensor]) -> Tensor:
        """The winners' errors' rate of change along a descending step, over what it would be without losers."""
        winner, loser, overlap = pair_errors(net, schedule, pairs, noise, t)
        errors = Errors(winner, loser, winner.detach(), loser.detach(), overlap, size=64)
        (step,) = torch.autograd.grad(loss_of(errors).sum(), net.shift, retain_graph=True)
        (own,) = torch.autograd.grad(winner.sum(), net.shift)
        return -(step * own).flatten(1).sum(1) / (0.5 * 0.1 * own.square().flatten(1).sum(1))

    unsafe = change(lambda errors: dpo(errors, 0.1))
    assert bool((unsafe > 0).any())
    for kept in (0.0, 0.5, 0.9):
        safe = change(partial(sdpo, beta=0.1, kept=kept))
        torch.testing.assert_close(safe, torch.minimum(unsafe, torch.tensor(-kept)), rtol=1e-4, atol=1e-5)


def test_the_safeguard_leaves_the_value_and_the_winners_gradient_alone() -> None:
    winner, loser = normal(5, seed=1).abs(), normal(5, seed=2).abs()
    overlap = torch.tensor([-1.0, 0, 0.5, 1, 4])
    errors = errors_of(winner, loser, overlap=overlap)
    assert torch.equal(sdpo(errors, 0.7), dpo(errors, 0.7))
    (up, down), (up_dpo, down_dpo) = (slopes(name, winner, loser, 0.7, overlap=overlap) for name in ("sdpo", "dpo"))
    assert torch.equal(up, up_dpo)
    torch.testing.assert_close(down / down_dpo, torch.tensor([1.0, 1.0, 0.2, 0.1, 0.025]))


def test_the_safeguard_is_per_pair_in_float32_and_without_a_gradient(generator: Generator) -> None:
    """One scale for a batch would let an easy pair pay for another."""
    net, t = Shifted(4).bfloat16(), torch.tensor([300, 500, 700, 900])
    _, _, overlap = pair_errors(net, generator.schedule, TRAIN, normal(4, *SHAPE, seed=5), t)
    assert overlap.dtype == torch.float32
    assert not overlap.requires_grad
    assert len(set(overlap.tolist())) == 4


def test_one_image_under_two_prompts_keeps_a_tenth_of_the_losers_gradient(generator: Generator) -> None:
    """At the reference, and where prompts say nothing yet, both sides' gradients are one and the same."""
    same = replace(TRAIN, loser=TRAIN.winner)
    _, _, overlap = pair_errors(
        Shifted(4), generator.schedule, same, normal(4, *SHAPE, seed=5), torch.tensor([500] * 4)
    )
    torch.testing.assert_close(overlap, torch.ones(4))
    torch.testing.assert_close(loser_scale(overlap, 0.9), torch.full((4,), 0.1))


# IPO


def test_ipo_draws_the_margin_to_half_the_inverse_of_beta() -> None:
    """beta^2 (margin - 1 / (2 tau))^2 with tau = beta; the loss rises again beyond it."""
    beta, margins = 0.1, torch.tensor([0.0, 2.5, 5.0, 7.5, 10.0])
    losses = ipo(errors_of(torch.zeros(5), margins), beta)
    torch.testing.assert_close(losses, beta**2 * (margins - 1 / (2 * beta)).square())
    torch.testing.assert_close(losses, torch.tensor([0.25, 0.0625, 0.0, 0.0625, 0.25]))


# KTO


def test_kto_is_the_mean_loss_of_a_desirable_and_an_undesirable_sample() -> None:
    """Rewards 1 and 3 of the winners, -1 and 1 of the losers: their mean, 1, is the reference point."""
    errors = errors_of([9.0, 7.0], [11.0, 9.0], 10.0, 10.0)
    s = torch.sigmoid(torch.tensor([0.0, 1.0, 1.0, 0.0]))  # beta (r - z) of winners, beta (z - r) of losers
    torch.testing.assert_close(kto(errors, 0.5), (2 - s[:2] - s[2:]) / 2)
    weighted = kto(errors, 0.5, desirable=1.0, undesirable=4 / 3)
    torch.testing.assert_close(weighted, (1 - s[:2] + 4 / 3 * (1 - s[2:])) / 2)


def test_ktos_reference_point_is_never_below_zero() -> None:
    """Where everything got worse, it is not the mean of -3 that a sample is measured against."""
    losses = kto(errors_of([12.0], [14.0], 10.0, 10.0), 1.0)
    expected = 1 - torch.sigmoid(torch.tensor([-2.0, 4.0])).mean()
    assert float(losses) == pytest.approx(float(expected))


def test_ktos_reference_point_has_no_gradient() -> None:
    """Each sample's slope is that of its own sigmoid at a fixed reference point, which here is 1."""
    up, down = slopes(
        "kto", torch.tensor([9.0, 7.0]), torch.tensor([11.0, 9.0]), 0.5, reference_winner=10.0, reference_loser=10.0
    )
    s = torch.sigmoid(torch.tensor([0.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(torch.cat([up, -down]), 0.5 * 0.5 * s * (1 - s))


# MaPO


def test_the_bounded_score_is_that_of_its_equation() -> None:
    x = torch.tensor([0.0, 1e-3, 0.1, 1.0, 20.0, 500.0])
    exact = x.double() / torch.expm1(x.double())
    exact[0] = 1.0
    torch.testing.assert_close(bounded_score(x), exact.float(), rtol=1e-5, atol=1e-7)
    assert bool(bounded_score(x).isfinite().all())


def test_mapo_is_the_published_margin_term_with_its_factor_t_as_beta() -> None:
    size, total = 3072, 1000
    winner, loser = torch.tensor([300.0, 620.0]), torch.tensor([320.0, 600.0])
    scores = [e / size / torch.expm1(e / size) for e in (winner.double(), loser.double())]
    expected = -torch.nn.functional.logsigmoid(total * (scores[0] - scores[1]))
    losses = mapo(errors_of(winner, loser, size=size), total / (2 * size))
    torch.testing.assert_close(losses.double(), expected, rtol=1e-3, atol=0)


def test_mapo_needs_no_reference() -> None:
    """Any reference gives the same, and equal errors ln 2 wherever the reference is."""
    one, other = (
        errors_of([30.0, 5.0], [20.0, 5.0], size=48),
        errors_of([30.0, 5.0], [20.0, 5.0], 7.0, math.nan, size=48),
    )
    assert torch.equal(mapo(one, 0.3), mapo(other, 0.3))
    assert float(mapo(one, 0.3)[1]) == pytest.approx(math.log(2))
    assert float(mapo(one, 0.3)[0]) > math.log(2)
