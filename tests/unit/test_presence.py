"""Average precision and F1 of presence, against values by hand, another implementation and plain resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multilabel_average_precision

from saadi.errors import BadInput
from saadi.evaluation.metrics import mean_score, point
from saadi.evaluation.presence import Ranking, average_precision, rank, tally_f1
from saadi.evaluation.statistics import crossed_bootstrap
from saadi.seeds import numpy_rng

ONCE = np.ones((4, 1))


def test_average_precision_by_hand() -> None:
    shown, scores = np.array([True, False, True, False]), np.array([4.0, 3.0, 2.0, 1.0])
    assert average_precision(shown, scores, ONCE).tolist() == [(1 / 1 + 2 / 3) / 2]
    assert average_precision(~shown, scores, ONCE).tolist() == [(1 / 2 + 2 / 4) / 2]
    # All alike: precision is the share that shows the class.
    assert average_precision(shown, np.zeros(4), ONCE).tolist() == [0.5]
    # The second image is left out, the third drawn twice.
    assert average_precision(shown, scores, np.array([[1.0], [0], [2], [1]])).tolist() == [1.0]
    assert np.isnan(average_precision(shown, scores, np.array([[0.0], [3], [0], [1]]))).all()


def test_average_precision_is_that_of_torchmetrics_with_ties() -> None:
    rng = np.random.default_rng(0)
    sets, scores = rng.integers(0, 2, (40, 3)), rng.integers(0, 6, (2, 40, 3)) / 5
    by_class = [point(rank(sets, one[None])) for one in scores]
    for one, found in zip(scores, by_class, strict=True):
        expected = multilabel_average_precision(torch.from_numpy(one), torch.from_numpy(sets), 3, average="none")
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(point(rank(sets, scores)), np.mean(by_class, 0))


def test_only_the_order_of_scores_counts_and_classes_without_images_are_left_out() -> None:
    rng = np.random.default_rng(1)
    sets, logits = rng.integers(0, 2, (30, 2)), rng.normal(size=(1, 30, 2))
    sets[:, 1] = 0
    found = point(rank(sets, logits))
    np.testing.assert_allclose(found, point(rank(sets, 1 / (1 + np.exp(-logits)))))
    assert np.isnan(found[1])
    assert mean_score(found) == found[0]


def test_every_resample_is_ranked_as_plain_resampling_would() -> None:
    rng = np.random.default_rng(2)
    sets, groups = rng.integers(0, 2, (30, 2)), rng.integers(0, 5, 30)
    arms = {"a": rng.integers(0, 9, (3, 30, 2)) / 8, "b": rng.normal(size=(3, 30, 2))}
    result = crossed_bootstrap({name: rank(sets, one) for name, one in arms.items()}, groups, 20, seed=7)
    picked_groups = numpy_rng(7, "bootstrap", "group").integers(5, size=(20, 5))
    picked_seeds = numpy_rng(7, "bootstrap", "seed").integers(3, size=(20, 3))
    for draw in range(20):
        weights = (groups[:, None] == picked_groups[draw]).sum(1)
        for arm, scores in arms.items():
            again = [point(rank(sets.repeat(weights, 0), scores[[s]].repeat(weights, 1))) for s in picked_seeds[draw]]
            np.testing.assert_allclose(result.draws[arm][draw], np.mean(again, 0), rtol=1e-6)
    assert result.difference("a", "a") == (0.0, (0.0, 0.0))


def test_f1_by_hand() -> None:
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    said = np.array([[[1, 0, 0], [0, 1, 0], [1, 1, 0]]])
    np.testing.assert_allclose(point(tally_f1(sets, said)), [2 * 1 / (2 + 2), 2 * 1 / (1 + 2), np.nan])
    np.testing.assert_allclose(point(tally_f1(sets.astype(bool), said.astype(bool))), point(tally_f1(sets, said)))


def test_bad_sets_are_named() -> None:
    with pytest.raises(BadInput, match=r"sets: \(2, 3\) true, \(2, 3\) predicted; give \(N, C\) and"):
        rank(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(BadInput, match=r"sets: \(0, 3\) true"):
        tally_f1(np.zeros((0, 3)), np.zeros((1, 0, 3)))
    with pytest.raises(BadInput, match="other than 0 and 1"):
        rank(np.array([[2.0]]), np.zeros((1, 1, 1)))
    one, two = (Ranking(np.zeros((2, 3)), np.zeros((trainings, 2, 3))) for trainings in (1, 2))
    with pytest.raises(BadInput, match="tally of b"):
        crossed_bootstrap({"a": one, "b": two}, np.arange(2))
