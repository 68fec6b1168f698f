"""Criteria against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.errors import BadInput
from saadi.preferences import (
    CRITERIA,
    criterion,
    critic_loss,
    influence,
    learnability,
    log_softmax,
    logit_margin,
    mean_gradient,
    mistaken,
    region_dice,
    region_iou,
    rivals,
    score,
)
from saadi.records import IGNORE

LOGITS = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 3.0], [0.0, 0.0, 0.0]])
LABELS = np.array([0, 1, 2])


def test_critic_loss_is_minus_the_cross_entropy_on_the_intended_label() -> None:
    expected = [
        2 - math.log(math.exp(2) + 2),
        1 - math.log(1 + math.e + math.exp(3)),
        -math.log(3),
    ]
    np.testing.assert_allclose(critic_loss(LOGITS, LABELS), expected)


def test_margin_is_the_own_logit_minus_the_best_other() -> None:
    np.testing.assert_allclose(logit_margin(LOGITS, LABELS), [2, -2, 0])
    np.testing.assert_allclose(logit_margin(LOGITS, np.array([1, 2, 0])), [-2, 2, 0])


def test_large_logits_do_not_overflow() -> None:
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 0.0]])), [[0, -1e4]])


def test_score_says_what_the_critic_saw_and_a_tie_is_not_right() -> None:
    first, second, third = score("critic-loss", list("abc"), LOGITS, LABELS)
    assert (first.right, second.right, third.right) == (True, False, False)
    assert first.sample == "a"
    assert first.value == pytest.approx(math.log(first.parts["probability"]))
    assert second.parts["seen"] == 2
    assert second.parts["seen_probability"] == pytest.approx(math.exp(3) / (1 + math.e + math.exp(3)))


def test_the_rival_is_the_likeliest_other_class_for_right_and_wrong_alike() -> None:
    logits = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 5.0, 9.0]])
    assert rivals(logits, np.array([0, 1, 2])).tolist() == [1, 0, 1]
    parts = [one.parts for one in score("margin", list("abc"), logits, np.array([0, 1, 2]))]
    assert [part["rival"] for part in parts] == [1, 0, 1]
    assert parts[1]["rival"] == parts[1]["seen"]  # what a wrong one is seen as


def test_right_does_not_depend_on_the_criterion() -> None:
    for name in ("critic-loss", "margin"):
        assert [one.right for one in score(name, list("abc"), LOGITS, LABELS)] == [True, False, False]


def test_unknown_criterion_is_bad_input_that_names_the_known_ones() -> None:
    with pytest.raises(
        BadInput,
        match=r"^preferences.criterion: unknown .taste.; one of critic-loss, influence, learn",
    ):
        score("taste", [], LOGITS, LABELS)


def test_criteria_register_under_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saadi.preferences.CRITERIA", dict(CRITERIA))
    criterion("own-logit")(lambda logits, labels: logits[np.arange(len(labels)), labels])
    values = [one.value for one in score("own-logit", list("abc"), LOGITS, LABELS)]
    assert values == [2, 1, 0]


# Regions and sets


def region(side: int = 4) -> NDArray[np.uint8]:
    """A request [8, 8]: a square of class 1 in a rim of background, and nothing asked beyond it."""
    out = np.full((8, 8), IGNORE, np.uint8)
    out[1 : side + 3, 1 : side + 3] = 0
    out[2 : side + 2, 2 : side + 2] = 1
    return out


def sees(ids: NDArray[np.int64], sure: float = 50.0) -> NDArray[np.float64]:
    """Logits [3, 8, 8] of a critic that sees these classes."""
    return np.where(ids == np.arange(3)[:, None, None], sure, 0.0)


def test_region_dice_of_a_square_that_is_shifted() -> None:
    ids = np.zeros((8, 8), int)
    ids[3:7, 2:6] = 1  # a row too low: 12 of 16 are found, and 4 in the rim are wrong
    logits, maps, asked = sees(ids)[None], region()[None], np.array([1])
    assert region_dice(logits, maps, asked) == pytest.approx(24 / 32)
    assert region_iou(logits, maps, asked) == pytest.approx(12 / 20)
    (judged,) = score("region-dice", ["a"], logits, maps, asked)
    assert judged.value == pytest.approx(0.75)
    assert judged.right
    parts = {"probability": 0.75, "seen": 1, "seen_probability": 0.75, "rival": 0, "agreement": 0.75}
    assert judged.parts == pytest.approx(parts)


def test_what_is_seen_beyond_the_rim_is_nobodys_business() -> None:
    ids = np.ones((8, 8), int)
    ids[1:7, 1:7] = region()[1:7, 1:7]
    assert region_dice(sees(ids)[None], region()[None], np.array([1])) == pytest.approx(1)


def test_the_surer_of_two_that_find_the_region_is_better_but_half_is_needed_to_be_right() -> None:
    maps, asked = np.stack([region()] * 4), np.full(4, 1)
    found = np.where(region() == 1, 1, 0)
    part, other = np.where(np.arange(8) < 3, found, 0), np.where(found == 1, 2, 0)
    logits = np.stack([sees(found), sees(found, 1.0), sees(part), sees(other)])
    scores = score("region-dice", list("abcd"), logits, maps, asked)
    assert [one.right for one in scores] == [True, True, False, False]  # 4 of 16: Dice 0.4
    values = [one.value for one in scores]
    assert values == sorted(values, reverse=True)
    assert values[2] == pytest.approx(2 * 4 / 20)
    assert [one.parts["rival"] for one in scores] == [0, 0, 0, 2]
    assert [one.parts["seen"] for one in scores] == [1, 1, 0, 2]


def test_a_request_for_nothing_is_bad_input() -> None:
    with pytest.raises(BadInput, match="map 0 shows nothing of class 2"):
        region_dice(np.zeros((1, 3, 8, 8)), region()[None], np.array([2]))


def test_a_set_is_right_when_all_of_it_is_seen_and_nothing_else() -> None:
    logits = np.array([[2.0, 1.0, -3.0], [2.0, 1.0, 0.5], [2.0, -1.0, -3.0], [-1.0, -2.0, -3.0]])
    sets = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]])
    scores = score("presence-loss", list("abcd"), logits, sets)
    assert [one.right for one in scores] == [True, False, False, True]
    likely = [1 / (1 + math.exp(-z)) for z in (2, 1, 3)]
    assert scores[0].value == pytest.approx(sum(math.log(p) for p in likely) / 3)
    assert scores[0].parts["probability"] == pytest.approx(math.prod(likely))
    # Too much of the third, too little of the second; the one that is nearest to being wrong.
    assert [one.parts["rival"] for one in scores] == [1, 2, 1, 0]
    assert [one.parts["seen"] for one in scores] == [0, 0, 0, 0]
    assert scores[3].parts["seen_probability"] == pytest.approx(1 / (1 + math.e))


def test_what_spills_over_its_mask_is_wrong_but_not_taken_for_background() -> None:
    """Of three frames asked for class 1 in two of sixteen pixels: all over the frame, background, just there."""
    maps = np.zeros((3, 4, 4), np.int64)
    maps[:, 0, :2] = 1
    logits = np.zeros((3, 2, 4, 4))
    logits[0, 1], logits[1, 0], logits[2, 1] = 4, 4, np.where(maps[2] == 1, 4, -4)
    scores = score("region-dice", ["over", "nothing", "there"], logits, maps, np.ones(3, np.int64))
    assert [one.right for one in scores] == [False, False, True]
    assert [mistaken("segmentation", one, 1) for one in scores] == [False, True, False]
    seen = score("critic-loss", ["wrong", "right"], np.array([[0.0, 2.0], [2.0, 0.0]]), np.array([0, 0]))
    assert [mistaken("classification", one, 0) for one in seen] == [True, False]


# Learnability and influence


def test_learnability_is_a_right_ones_entropy_and_a_wrong_ones_log_probability() -> None:
    sure, unsure = [9.0, 0.0, 0.0], [0.2, 0.0, 0.0]
    logits, labels = np.array([sure, unsure, [0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]), np.array([0, 0, 1, 2])
    found = learnability(logits, labels)
    p = np.exp(0.2) / (np.exp(0.2) + 2)
    q = (1 - p) / 2
    assert found[1] == pytest.approx(-p * math.log(p) - 2 * q * math.log(q))
    assert found[0] == pytest.approx(0, abs=3e-3)
    np.testing.assert_allclose(found[2:], critic_loss(logits, labels)[2:])
    assert found[1] > found[0] > found[3] > found[2]  # right but hard, right, a tie, wrong


def gradient_of(net: nn.Linear, features: NDArray[np.float64], labels: NDArray[np.int64]) -> Tensor:
    """The gradient [C, D] of the mean cross-entropy, by autograd."""
    loss = nn.functional.cross_entropy(net(torch.from_numpy(features)), torch.from_numpy(labels))
    (gradient,) = torch.autograd.grad(loss, [net.weight])
    return gradient


def test_influence_is_the_cosine_of_the_last_layers_gradients() -> None:
    rng, net = np.random.default_rng(0), nn.Linear(5, 3).double()
    features, labels = rng.normal(size=(6, 5)), rng.integers(0, 3, 6)
    with torch.no_grad():
        logits = net(torch.from_numpy(features)).numpy()
    real = gradient_of(net, features[2:], labels[2:])
    towards = mean_gradient(logits[2:], labels[2:], features[2:])
    np.testing.assert_allclose(towards, real.numpy())
    own = [gradient_of(net, features[i : i + 1], labels[i : i + 1]) for i in range(2)]
    expected = [float((one * real).sum() / one.norm() / real.norm()) for one in own]
    np.testing.assert_allclose(influence(logits[:2], labels[:2], features[:2], towards), expected)


def test_the_product_of_two_gradients_is_that_of_residuals_times_that_of_features() -> None:
    logits, labels, features = LOGITS[:2], LABELS[:2], np.array([[1.0, 2.0], [3.0, -1.0]])
    residuals = np.exp(log_softmax(logits)) - np.eye(3)[labels]
    product = (residuals[0] @ residuals[1]) * (features[0] @ features[1])
    lengths = np.prod(np.linalg.norm(residuals, axis=1)) * np.prod(np.linalg.norm(features, axis=1))
    towards = mean_gradient(logits[1:], labels[1:], features[1:])
    assert influence(logits[:1], labels[:1], features[:1], towards) == pytest.approx(product / lengths)


def test_a_sample_or_a_world_without_a_gradient_has_no_influence() -> None:
    logits, labels, towards = np.array([[800.0, 0.0]]), np.array([0]), np.ones((2, 2))
    assert influence(logits, labels, np.ones((1, 2)), towards).tolist() == [0]
    assert influence(np.zeros((1, 2)), labels, np.ones((1, 2)), 0 * towards).tolist() == [0]
    (scored,) = score("influence", ["a"], logits, labels, gradients=(np.ones((1, 2)), towards))
    assert scored.value == 0
    assert scored.right
