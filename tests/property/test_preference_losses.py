"""What must hold of preference objectives for any errors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saadi.alignment.objectives import OBJECTIVES, Errors, dpo, gradient_overlap, implicit_margin, kto, loser_scale

quick = settings(max_examples=60, deadline=None, derandomize=True)
betas = st.floats(0.01, 2)
LEARNS = sorted(set(OBJECTIVES) - {"ipo"})
"""Those whose loss falls with the winner's error, however good it is already."""


@st.composite
def errors(draw: st.DrawFn) -> Errors:
    rows = draw(st.lists(st.tuples(*[st.floats(0.01, 50)] * 4, st.floats(-2, 2)), min_size=1, max_size=5))
    return Errors(*torch.tensor(rows, dtype=torch.float64).unbind(1), size=draw(st.sampled_from([16, 64])))


def swapped(one: Errors) -> Errors:
    return Errors(one.loser, one.winner, one.reference_loser, one.reference_winner, one.overlap, size=one.size)


@quick
@given(errors(), betas)
def test_dpo_falls_with_the_margin_and_swapping_the_pair_turns_it(drawn: Errors, beta: float) -> None:
    margin = implicit_margin(drawn)
    torch.testing.assert_close(dpo(drawn, beta) - dpo(swapped(drawn), beta), -beta * margin)
    told = margin.abs() > 1e-9  # a smaller margin drowns in the rounding of ln 2
    torch.testing.assert_close((dpo(drawn, beta) < math.log(2))[told], (margin > 0)[told])


@pytest.mark.parametrize("name", LEARNS)
@quick
@given(errors(), betas)
def test_a_better_winner_never_costs_and_a_worse_loser_never_does(name: str, drawn: Errors, beta: float) -> None:
    winner, loser = drawn.winner.clone().requires_grad_(), drawn.loser.clone().requires_grad_()
    loss = OBJECTIVES[name](replace(drawn, winner=winner, loser=loser), beta)
    assert bool((loss >= 0).all())
    up, down = torch.autograd.grad(loss.sum(), [winner, loser], allow_unused=True)
    assert bool((up >= 0).all())
    assert down is None or bool((down <= 0).all())


@quick
@given(errors(), betas)
def test_kto_does_not_care_which_loser_a_winner_is_paired_with(drawn: Errors, beta: float) -> None:
    turned = replace(drawn, loser=drawn.loser.roll(1), reference_loser=drawn.reference_loser.roll(1))
    torch.testing.assert_close(kto(turned, beta).mean(), kto(drawn, beta).mean())


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(0, 0.99))
def test_a_scaled_loser_leaves_the_winner_the_share_that_is_kept(key: int, longer: float, kept: float) -> None:
    rng = torch.Generator().manual_seed(key)
    g_w, g_l = (torch.randn(6, 3, 2, dtype=torch.float64, generator=rng) for _ in range(2))
    g_l = longer * (g_l + g_w)
    scale = loser_scale(gradient_overlap(g_w, g_l), kept)
    assert bool(((scale > 0) & (scale <= 1)).all())
    progress = ((g_w - scale.view(-1, 1, 1) * g_l) * g_w).sum((1, 2)) / g_w.square().sum((1, 2))
    assert bool((progress >= kept - 1e-9).all())
    assert bool(((progress <= kept + 1e-9) | (scale == 1)).all())  # and no smaller than it has to be
