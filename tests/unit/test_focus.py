"""Where an image's error counts: the critic's saliency, its way to a weight, and what the weight does to errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_diffusion import SHAPE, TRAIN, normal
from torch import Tensor, nn

from saadi.alignment.focus import LEAST, focused, saliency_weight
from saadi.critics.architectures import Architecture
from saadi.critics.crossfit import CrossFitted
from saadi.critics.downstream import Network
from saadi.critics.tasks import TASKS
from saadi.diffusion.objective import Clean, Schedule, epsilon_errors


def test_the_weight_of_a_spot_is_spread_over_it_and_its_neighbours() -> None:
    """One of 16 cells, in a corner: it and its three neighbours average over 4, 6, 6 and 9 cells."""
    saliency = torch.zeros(1, 8, 8)
    saliency[0, :2, :2] = 3.0
    expected = torch.zeros(4, 4)
    expected[:2, :2] = torch.tensor([[1 / 4, 1 / 6], [1 / 6, 1 / 9]])
    expected = LEAST + (1 - LEAST) * expected / expected.mean()
    torch.testing.assert_close(saliency_weight(saliency, (4, 4))[0, 0], expected)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-12, 1.0, 1e6]), st.floats(0, 1))
def test_weights_have_mean_one_a_floor_and_no_unit(key: int, unit: float, least: float) -> None:
    saliency = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(key)).pow(8)
    weight = saliency_weight(unit * saliency, (4, 4), least)
    assert weight.shape == (3, 1, 4, 4)
    torch.testing.assert_close(weight.mean((1, 2, 3)), torch.ones(3))
    assert float(weight.min()) >= least - 1e-6
    torch.testing.assert_close(weight, saliency_weight(saliency, (4, 4), least))


def test_an_image_that_moves_nothing_counts_evenly() -> None:
    assert torch.equal(saliency_weight(torch.zeros(2, 8, 8), (4, 4)), torch.ones(2, 1, 4, 4))


def test_errors_heed_the_focus_and_a_painted_region_multiplies_it() -> None:
    schedule, noise, t = Schedule(torch.tensor([0.5]), "epsilon"), normal(4, *SHAPE, seed=1), torch.zeros(4).long()
    saliency, off = normal(4, 16, 16, seed=2).abs(), normal(4, *SHAPE, seed=3)
    weight = saliency_weight(saliency, (4, 4))
    seen = focused(TRAIN.winner, saliency)
    assert seen.latents is TRAIN.winner.latents
    errors = epsilon_errors(schedule, noise + off, seen.latents, noise, t, seen.focus)
    torch.testing.assert_close(errors, (off.square() * weight).sum((1, 2, 3)))
    even = focused(TRAIN.winner, torch.zeros(4, 16, 16))
    assert torch.equal(even.focus.expand(4, 1, 4, 4), TRAIN.winner.focus.expand(4, 1, 4, 4))
    region = normal(4, 1, 4, 4, seed=4).abs()
    painted = focused(replace(TRAIN.winner, weight=region), saliency)
    torch.testing.assert_close(painted.weight, region * weight)
    assert len(Clean.cat([painted, seen])) == 8


class Linear(nn.Module):
    """Logits that are weighted sums of the pixels."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ncij,kcij->nk", x, self.weight)


def network(seed: int, task: str = "presence") -> tuple[Network, Tensor]:
    weight = normal(2, 3, 4, 4, seed=seed)
    made = Architecture("linear", lambda classes: Linear(weight), (0, 0, 0), (0.5, 0.5, 0.5))
    return Network(TASKS[task], Linear(weight).eval(), made), weight


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)


def test_saliency_is_each_images_own_gradient() -> None:
    """Of binary cross-entropy: the mean over classes of (sigmoid(logit) - target) times the class's weights."""
    model, weight = network(1)
    sets = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0]])
    x = torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 / 0.5
    miss = torch.sigmoid(model.net(x)) - torch.from_numpy(sets)
    expected = torch.einsum("nk,kcij->ncij", miss / 2 / 0.5, weight).abs().sum(1)
    found = model.saliency(IMAGES, sets)
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), expected)
    np.testing.assert_allclose(model.saliency(IMAGES[2:3], sets[2:3]), found[2:3], rtol=1e-5)  # no matter the company


@pytest.mark.parametrize("task", ["classification", "presence"])
def test_it_is_the_saliency_of_the_member_that_never_saw_the_nearest_group(task: str) -> None:
    members = tuple(network(seed, task)[0] for seed in (1, 2))
    targets = np.array([0, 1, 0, 1, 0]) if task == "classification" else np.eye(2, dtype=np.int64)[[0, 1, 0, 1, 0]]
    groups = np.array(["anna", "ben", "ben", "anna", "ben"])
    found = CrossFitted(members, {"anna": 1, "ben": 0}).saliency(IMAGES, targets, groups)
    for row, fold in enumerate([1, 0, 0, 1, 0]):
        own = members[fold].saliency(IMAGES[[row]], targets[[row]])
        np.testing.assert_allclose(found[[row]], own, rtol=1e-5)
