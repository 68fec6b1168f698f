"""Criteria against their closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from saadi.errors import BadInput
from saadi.preferences import (
    CRITERIA,
    criterion,
    critic_loss,
    log_softmax,
    logit_margin,
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
    with pytest.raises(BadInput, match="nothing of the class that is asked for"):
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
