"""The table of tasks: losses against their closed forms, what images show, what a temperature is fitted on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from saadi.critics.tasks import GRID, TASKS, label_loss, map_loss, set_loss
from saadi.diffusion.base import sampling_probabilities
from saadi.evaluation.metrics import Tally, mean_score, point
from saadi.preferences import CRITERIA, READINGS, critic_loss
from saadi.records import IGNORE

MAPS = torch.tensor([[[0, 0, 0, 1], [0, 0, 2, IGNORE]]], dtype=torch.uint8)  # areas 5, 1, 1 and nothing of class 3


def test_every_task_can_be_read_and_has_a_criterion() -> None:
    assert set(TASKS) == set(READINGS) == {one.task for one in CRITERIA.values()}
    assert all(task.name == name for name, task in TASKS.items())


def test_map_loss_of_a_network_that_knows_nothing() -> None:
    """All probabilities are 1/4: the Dice score of a class of area T among 7 pixels is 2 (T/4) / (7/4 + T)."""
    dice = [2 * (area / 4) / (7 / 4 + area) for area in (5, 1, 1)]
    expected = 0.5 * math.log(4) + 0.5 * (1 - sum(dice) / 3)
    assert float(map_loss(torch.zeros(1, 4, 2, 4), MAPS)) == pytest.approx(expected)


def test_map_loss_vanishes_where_all_is_right_and_is_about_the_known_alone() -> None:
    sure = 50.0 * functional.one_hot(MAPS.long() % IGNORE, 4).movedim(-1, 1)
    assert float(map_loss(sure, MAPS)) == pytest.approx(0, abs=1e-6)
    logits = torch.randn(1, 4, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(map_loss(logits, MAPS), logits)
    assert (gradient[0, :, 1, 3] == 0).all()
    assert (gradient[0].abs().sum(0)[MAPS[0] != IGNORE] > 0).all()


def test_map_loss_is_half_cross_entropy_half_dice_of_the_batch() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    maps = torch.randint(0, 2, (2, 4, 4), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    p = logits.softmax(1)
    dice = [2 * float(p[:, c][maps == c].sum()) / float(p[:, c].sum() + (maps == c).sum()) for c in (0, 1)]
    expected = 0.5 * float(functional.cross_entropy(logits, maps.long())) + 0.5 * (1 - sum(dice) / 2)
    assert float(map_loss(logits, maps)) == pytest.approx(expected)


def test_the_other_losses_by_hand() -> None:
    assert float(set_loss(torch.zeros(2, 3), torch.tensor([[1, 0, 1], [0, 0, 0]]))) == pytest.approx(math.log(2))
    sure = torch.tensor([[40.0, 0.0]])  # the true class is smoothed to 0.975
    assert float(label_loss(sure, torch.tensor([0]))) == pytest.approx(0.025 * 40)


def test_what_images_show() -> None:
    maps = np.array([[[0, 0], [0, IGNORE]], [[0, 2], [2, 1]]], np.uint8)
    assert TASKS["segmentation"].shows(maps, 4).tolist() == [[True, False, False, False], [True, True, True, False]]
    assert TASKS["classification"].shows(np.array([1, 0]), 3).tolist() == [[False, True, False], [True, False, False]]
    assert TASKS["presence"].shows(np.array([[0, 1]]), 2).tolist() == [[False, True]]


def test_an_image_is_worth_as_much_as_the_rarest_class_it_shows() -> None:
    shown = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1]], bool)  # by 5, 3 and 1 images
    weights = np.array([1 / 5, 1 / 5, 1 / 3, 1 / 3, 1])
    np.testing.assert_allclose(sampling_probabilities(shown, 1.0), weights / weights.sum())
    np.testing.assert_allclose(sampling_probabilities(shown, 0.5), weights**0.5 / (weights**0.5).sum())
    np.testing.assert_allclose(sampling_probabilities(shown, 0.0), 0.2)


def test_images_that_show_nothing_count_as_a_class() -> None:
    shown = np.array([[1, 0], [1, 0], [1, 0], [0, 0]], bool)
    np.testing.assert_allclose(sampling_probabilities(shown, 1.0), [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_answers_are_scored_by_class() -> None:
    maps = np.array([[[0, 1], [1, 1]]], np.uint8)
    logits = np.zeros((1, 2, 2, 2))
    logits[0, 1, :, 1] = 1.0  # says 1 in the right column
    task = TASKS["segmentation"]
    answers = task.answer(logits)
    assert answers.tolist() == [[[0, 1], [0, 1]]]
    np.testing.assert_allclose(point(task.scored(maps, answers[None], 2)), [2 / 3, 4 / 5])
    labels = TASKS["classification"].scored(np.array([0, 1]), np.log([[[0.9, 0.1], [0.8, 0.2]]]), 2)
    assert isinstance(labels, Tally)
    assert point(labels).tolist() == [1, 0]
    sets = TASKS["presence"].scored(np.array([[1, 0], [0, 0]]), np.array([[[0.0, 3.0], [1.0, 2.0]]]), 2)
    assert mean_score(point(sets)) == 0.5  # the class that no image shows is left out


@pytest.mark.parametrize("side", [8, 64, 80])
def test_a_temperature_is_fitted_on_a_grid_of_known_pixels(side: int) -> None:
    rng = np.random.default_rng(0)
    logits, maps = rng.normal(size=(2, 3, side, side)), rng.integers(0, 3, (2, side, side)).astype(np.uint8)
    maps[0] = IGNORE
    rows, ids = TASKS["segmentation"].witnesses(logits, maps)
    assert rows.shape == (min(side, GRID) ** 2, 3)
    assert ids.shape == rows.shape[:1]
    everywhere = {(*logits[1, :, i, j].tolist(), int(maps[1, i, j])) for i in range(side) for j in range(side)}
    assert {(*row.tolist(), int(c)) for row, c in zip(rows, ids, strict=True)} <= everywhere
    assert critic_loss(rows, ids).shape == ids.shape
