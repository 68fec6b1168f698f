"""The crossed bootstrap: against slow and plain resampling, in degenerate cases, and on worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import bootstrap
from numpy.typing import NDArray

from saadi.errors import BadInput
from saadi.evaluation.metrics import Tally, balanced_accuracy, confusion
from saadi.evaluation.statistics import Bootstrap, crossed_bootstrap, holm
from saadi.seeds import numpy_rng

Ints = NDArray[np.int64]


def world(
    rng: np.random.Generator, groups: int = 12, seeds: int = 5, gains: tuple[float, ...] = (0.0, 0.05)
) -> tuple[dict[str, Ints], Ints, Ints]:
    """Arms whose true balanced accuracy is 0.7 + gain: groups, seeds and their effects on each arm drawn afresh."""
    labels = np.tile(np.arange(3), groups * 4)
    group = np.repeat(np.arange(groups), 12)
    hard, luck = rng.uniform(-0.1, 0.1, groups)[group], rng.uniform(-0.05, 0.05, (seeds, 1))
    predictions = {}
    for arm, gain in enumerate(gains):
        own = rng.uniform(-0.08, 0.08, groups)[group]
        right = rng.random((seeds, len(labels))) < 0.7 + gain + hard + luck + own
        predictions[f"arm-{arm}"] = np.where(right, labels, (labels + 1) % 3)
    return predictions, labels, group


def test_point_estimates_are_the_mean_over_seeds_of_the_metric() -> None:
    predictions, labels, groups = world(np.random.default_rng(0))
    result = bootstrap(predictions, labels, groups, 3, 50)
    for arm, ids in predictions.items():
        tables = [confusion(labels, row, 3) for row in ids]
        assert result.interval(arm).mean == pytest.approx(np.mean([balanced_accuracy(table) for table in tables]))
        rare = np.mean([balanced_accuracy(table, (1, 2)) for table in tables])
        assert result.interval(arm, (1, 2)).mean == pytest.approx(rare)
        assert result.interval(arm, (0,)).mean == pytest.approx(np.mean([row[labels == 0] == 0 for row in ids]))
    assert result.unit == "group"


def test_every_resample_equals_plain_resampling_of_images() -> None:
    rng = np.random.default_rng(1)
    labels, groups = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    predictions = {"a": rng.integers(0, 4, (3, 60)), "b": rng.integers(0, 4, (3, 60))}
    result = bootstrap(predictions, labels, groups, 4, 20, seed=7)
    picked_groups = numpy_rng(7, "bootstrap", "group").integers(5, size=(20, 5))
    picked_seeds = numpy_rng(7, "bootstrap", "seed").integers(3, size=(20, 3))
    for draw in range(20):
        weights = (groups[:, None] == picked_groups[draw]).sum(1)
        for arm, ids in predictions.items():
            scores = [
                balanced_accuracy(confusion(labels.repeat(weights), ids[s].repeat(weights), 4))
                for s in picked_seeds[draw]
            ]
            assert np.nanmean(result.draws[arm][draw]) == pytest.approx(np.mean(scores))


def test_draws_do_not_depend_on_which_arms_stand_beside() -> None:
    predictions, labels, groups = world(np.random.default_rng(2), gains=(0.0, 0.05, 0.1))
    together = bootstrap(predictions, labels, groups, 3, 300, seed=3)
    alone = bootstrap({"arm-2": predictions["arm-2"]}, labels, groups, 3, 300, seed=3)
    np.testing.assert_array_equal(alone.draws["arm-2"], together.draws["arm-2"])


def test_pairing_makes_differences_surer_than_levels() -> None:
    rng = np.random.default_rng(3)
    predictions, labels, groups = world(rng, groups=10, seeds=4, gains=(0.0,))
    base = predictions["arm-0"]
    better = np.where(rng.random(base.shape) < 0.3, labels, base)
    result = bootstrap({"base": base, "better": better}, labels, groups, 3, 500)
    low, high = result.interval("base").interval
    mean, (least, most) = result.difference("better", "base")
    assert 0 < least < mean < most
    assert most - least < 0.7 * (high - low)
    assert result.paired_p("better", "base") == pytest.approx(2 / 501)
    assert result.difference("base", "better").mean == -mean


def test_one_group_is_resampled_by_image_and_says_so() -> None:
    labels = np.repeat([0, 1], 200)
    right = np.arange(400) % 2 == 0
    ids = np.where(right, labels, 1 - labels)[None]
    result = bootstrap({"a": ids}, labels, np.full(400, "p1"), 2, 2000)
    assert result.unit == "image"
    mean, (low, high) = result.interval("a")
    assert mean == 0.5
    # Two classes of 200 images at one half: standard error sqrt(0.25 / 200 / 2).
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.25 / 400), rel=0.1)


def test_one_seed_leaves_the_groups_uncertainty() -> None:
    labels = np.zeros(40, np.int64)
    groups = np.repeat(np.arange(4), 10)
    ids = np.where(groups < 2, 0, 1)[None]
    result = bootstrap({"a": ids}, labels, groups, 2, 4000)
    # The number of right groups among four drawn is binomial(4, 1/2).
    shares = np.bincount((result.draws["a"][:, 0] * 4).round().astype(int), minlength=5) / 4000
    np.testing.assert_allclose(shares, np.array([1, 4, 6, 4, 1]) / 16, atol=0.03)


def test_seeds_are_resampled_too() -> None:
    labels, groups = np.zeros(40, np.int64), np.repeat(np.arange(4), 10)
    ids = np.stack([np.zeros(40, np.int64), np.ones(40, np.int64)])
    draws = bootstrap({"a": ids}, labels, groups, 2, 4000).draws["a"][:, 0]
    np.testing.assert_allclose([np.mean(draws == share) for share in (0, 0.5, 1)], [0.25, 0.5, 0.25], atol=0.03)


def test_classes_absent_from_a_resample_are_left_out() -> None:
    labels = np.array([0, 0, 1, 1])
    ids = np.array([[0, 0, 0, 0]])
    result = bootstrap({"a": ids}, labels, np.array(["x", "x", "y", "y"]), 3, 500)
    assert set(np.unique(result.draws["a"][:, 0][~np.isnan(result.draws["a"][:, 0])])) == {1.0}
    assert np.isnan(result.draws["a"][:, 0]).any()
    assert result.interval("a") == (0.5, (0.0, 1.0))
    assert result.interval("a", (0,)) == (1.0, (1.0, 1.0))
    nowhere = result.interval("a", (2,))
    assert np.isnan([nowhere.mean, *nowhere.interval]).all()
    assert result.paired_p("a", "a", (2,)) == 1.0


def test_p_value_counts_the_far_side_of_zero() -> None:
    draws = np.r_[np.full(97, 0.6), np.full(3, 0.4)][:, None]
    result = Bootstrap({"a": np.array([0.6]), "b": np.array([0.5])}, {"a": draws, "b": np.full((100, 1), 0.5)}, "group")
    assert result.paired_p("a", "b") == result.paired_p("b", "a") == pytest.approx(2 * 4 / 101)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    hits = {"level": 0, "gain": 0}
    for trial in range(150):
        predictions, labels, groups = world(np.random.default_rng([4, trial]), groups=20, seeds=6)
        result = bootstrap(predictions, labels, groups, 3, 300, seed=trial)
        low, high = result.interval("arm-0").interval
        hits["level"] += low <= 0.7 <= high
        low, high = result.difference("arm-1", "arm-0").interval
        hits["gain"] += low <= 0.05 <= high
    assert all(count >= 0.88 * 150 for count in hits.values()), hits


def test_no_gain_is_rarely_called_one() -> None:
    called = 0
    for trial in range(150):
        predictions, labels, groups = world(np.random.default_rng([5, trial]), groups=20, gains=(0.0, 0.0))
        called += bootstrap(predictions, labels, groups, 3, 300, seed=trial).paired_p("arm-0", "arm-1") < 0.05
    assert called <= 0.1 * 150


def test_holm_by_hand() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    with pytest.raises(BadInput, match="p-value of a"):
        holm({"a": float("nan")})


def test_data_that_do_not_fit_are_named() -> None:
    labels, groups, ids = np.array([0, 1]), np.array([0, 1]), np.array([[0, 1]])
    with pytest.raises(BadInput, match="at least one"):
        bootstrap({}, labels, groups, 2)
    with pytest.raises(BadInput, match="at least one"):
        bootstrap({"a": ids}, labels, groups, 2, resamples=0)
    with pytest.raises(BadInput, match="groups: 1 for 2 images"):
        bootstrap({"a": ids}, labels, groups[:1], 2)
    with pytest.raises(BadInput, match="tally of b"):
        bootstrap({"a": ids, "b": np.repeat(ids, 2, 0)}, labels, groups, 2)
    with pytest.raises(BadInput, match="tally of a"):
        crossed_bootstrap({"a": Tally(np.ones((1, 2)), np.ones((1, 2)))}, groups)
    with pytest.raises(BadInput, match="predictions: shape"):
        bootstrap({"a": ids[0]}, labels, groups, 2)
    with pytest.raises(BadInput, match="labels: ids"):
        bootstrap({"a": ids}, labels + 1, groups, 2)


def test_wholes_may_differ_between_arms_as_areas_do() -> None:
    """Dice of three images in two groups: twice the overlap by the areas' sum, over all images of a resample."""
    overlap = np.array([[[4.0], [0.0], [3.0]], [[2.0], [1.0], [3.0]]])
    areas = np.array([[[5.0], [6.0], [4.0]], [[4.0], [2.0], [6.0]]])
    groups = np.array(["p", "q", "q"])
    result = crossed_bootstrap({"a": Tally(2 * overlap, 2 * areas)}, groups, 400)
    assert result.interval("a").mean == pytest.approx((7 + 6) / (15 + 12))
    possible = {
        round(float((overlap * weights).sum() / (areas * weights).sum()), 9)
        for seeds in ((2, 0), (1, 1), (0, 2))
        for times in ((2, 0), (1, 1), (0, 2))
        for weights in [np.array(seeds)[:, None, None] * np.array([times[0], times[1], times[1]])[None, :, None]]
    }
    assert {round(float(draw), 9) for draw in result.draws["a"][:, 0]} == possible
