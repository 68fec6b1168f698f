"""Nearest training images, and the share of near-copies against a yardstick of fresh images."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.errors import BadInput
from saadi.evaluation.memorisation import memorised_by_class, memorised_share, near_copies
from saadi.features import nearest, nearest_mirrored


def test_nearest_by_hand_and_ties_go_to_the_first() -> None:
    keys = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = nearest(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), keys)
    np.testing.assert_allclose(found.distance, [0, 0, np.sqrt(2)])
    assert found.key.tolist() == [0, 1, 1]


def test_a_copy_is_found_at_distance_zero() -> None:
    keys = np.random.default_rng(0).normal(size=(50, 8))
    found = nearest(keys[[3, 41]], keys)
    assert found.distance.tolist() == [0.0, 0.0]
    assert found.key.tolist() == [3, 41]


def test_a_mirrored_copy_is_a_copy() -> None:
    images = np.random.default_rng(1).normal(size=(6, 4, 4))
    keys, mirrored = images.reshape(6, -1), images[:, :, ::-1].reshape(6, -1)
    queries = np.stack([mirrored[2], keys[4]])
    assert nearest(queries, keys).distance[0] > 0
    found = nearest_mirrored(queries, keys, mirrored)
    assert found.distance.tolist() == [0.0, 0.0]
    assert found.key.tolist() == [2, 4]
    with pytest.raises(BadInput, match="mirrored 5"):
        nearest_mirrored(queries, keys, mirrored[:5])


def test_the_yardstick_scores_its_own_quantile() -> None:
    yardstick = np.random.default_rng(2).random(400)
    result = memorised_share(yardstick, yardstick)
    assert result.share == 0.05
    assert result.threshold == np.quantile(yardstick, 0.05)


def test_copies_score_one_and_strangers_zero() -> None:
    yardstick = np.linspace(0.2, 0.4, 100)
    assert memorised_share(np.zeros(10), yardstick).share == 1.0
    assert memorised_share(np.ones(10), yardstick).share == 0.0
    assert memorised_share(np.repeat([0.0, 1.0], [3, 7]), yardstick).share == 0.3


def test_each_class_is_held_to_its_own_yardstick() -> None:
    # Class 0 is uniform (fresh images at 0.1), class 1 varied (at 0.5); 0.3 is near only for the second.
    yardstick, labels = np.repeat([0.1, 0.5], 20), np.repeat([0, 1], 20)
    shares, thresholds = memorised_by_class(np.full(4, 0.3), np.array([0, 0, 1, 2]), yardstick, labels, 4)
    np.testing.assert_array_equal(shares, [0.0, 1.0, np.nan, np.nan])
    np.testing.assert_allclose(thresholds, [0.1, 0.5, np.nan, np.nan])


def test_near_copies_take_one_threshold_or_one_each_and_hold_back_what_is_unknown() -> None:
    distances = np.array([0.1, 0.2, 0.3])
    assert near_copies(distances, 0.2).tolist() == [True, False, False]
    assert near_copies(distances, np.array([0.1, 0.3, np.nan])).tolist() == [False, True, True]


def test_bad_input_is_named() -> None:
    some = np.array([0.5])
    with pytest.raises(BadInput, match="0 fresh images"):
        memorised_share(some, some[:0])
    with pytest.raises(BadInput, match="0 samples"):
        memorised_share(some[:0], some)
    with pytest.raises(BadInput, match="quantile: 0"):
        memorised_share(some, some, quantile=0.0)
    with pytest.raises(BadInput, match="yardstick labels: 2 for 1"):
        memorised_by_class(some, np.array([0]), some, np.array([0, 1]), 2)
    with pytest.raises(BadInput, match="training features"):
        nearest(np.ones((2, 3)), np.ones((0, 3)))
    with pytest.raises(BadInput, match="wide"):
        nearest(np.ones((2, 3)), np.ones((2, 4)))
