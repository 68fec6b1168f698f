"""What must hold for any data: invariances of the bootstrap, and of distances between feature sets."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import bootstrap
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from saadi.evaluation.fidelity import kid, precision_recall_coverage
from saadi.evaluation.memorisation import memorised_share, near_copies
from saadi.evaluation.metrics import (
    balanced_accuracy,
    calibration_error,
    confusion,
    macro_f1,
    rare_classes,
)
from saadi.evaluation.statistics import holm
from saadi.features import nearest

Ints = NDArray[np.int64]
quick = settings(max_examples=25, deadline=None, derandomize=True)
keys = st.integers(0, 2**32 - 1)
CLASSES = 4


def draw_arms(rng: np.random.Generator, seeds: int, groups: int) -> tuple[dict[str, Ints], Ints, Ints]:
    """Two arms of moderate accuracy on 80 images of at least one group."""
    labels, group = rng.integers(0, CLASSES, 80), rng.integers(0, groups, 80)
    arms = {}
    for name, accuracy in (("a", 0.5), ("b", 0.7)):
        right = rng.random((seeds, 80)) < accuracy
        arms[name] = np.where(right, labels, rng.integers(0, CLASSES, (seeds, 80)))
    return arms, labels, group


@quick
@given(keys, st.integers(1, 4), st.integers(2, 9))
def test_the_order_of_images_does_not_matter(key: int, seeds: int, groups: int) -> None:
    rng = np.random.default_rng(key)
    arms, labels, group = draw_arms(rng, seeds, groups)
    order = rng.permutation(80)
    one = bootstrap(arms, labels, group, CLASSES, 40, key)
    two = bootstrap({k: v[:, order] for k, v in arms.items()}, labels[order], group[order], CLASSES, 40, key)
    for arm in arms:
        np.testing.assert_array_equal(one.draws[arm], two.draws[arm])
        np.testing.assert_array_equal(one.point[arm], two.point[arm])


@quick
@given(keys, st.integers(2, 9))
def test_renaming_classes_permutes_recalls_and_leaves_their_mean(key: int, groups: int) -> None:
    rng = np.random.default_rng(key)
    arms, labels, group = draw_arms(rng, 2, groups)
    name = rng.permutation(CLASSES)
    one = bootstrap(arms, labels, group, CLASSES, 40, key)
    two = bootstrap({k: name[v] for k, v in arms.items()}, name[labels], group, CLASSES, 40, key)
    np.testing.assert_array_equal(one.draws["a"], two.draws["a"][:, name])
    assert one.difference("b", "a").interval == pytest.approx(two.difference("b", "a").interval)


@settings(quick, max_examples=10)
@given(keys)
def test_relabelling_seeds_in_all_arms_alike_changes_no_estimate(key: int) -> None:
    rng = np.random.default_rng(key)
    arms, labels, group = draw_arms(rng, 3, 6)
    order = rng.permutation(3)
    one = bootstrap(arms, labels, group, CLASSES, 3000, key)
    two = bootstrap({k: v[order] for k, v in arms.items()}, labels, group, CLASSES, 3000, key)
    assert one.difference("b", "a").mean == pytest.approx(two.difference("b", "a").mean)
    # The same distribution from other draws: equal but for the noise of resampling.
    assert one.difference("b", "a").interval == pytest.approx(two.difference("b", "a").interval, abs=0.03)


@quick
@given(keys, st.integers(1, 4), st.integers(1, 9))
def test_intervals_hold_the_point_estimate(key: int, seeds: int, groups: int) -> None:
    arms, labels, group = draw_arms(np.random.default_rng(key), seeds, groups)
    result = bootstrap(arms, labels, group, CLASSES, 400, key)
    for mean, (low, high) in (result.interval("a"), result.interval("b"), result.difference("b", "a")):
        assert low - 1e-9 <= mean <= high + 1e-9
    assert result.difference("b", "a").mean == -result.difference("a", "b").mean
    assert result.paired_p("a", "b") == result.paired_p("b", "a")
    assert 0 < result.paired_p("a", "b") <= 1


@quick
@given(keys, st.integers(1, 4), st.integers(1, 9))
def test_equal_arms_differ_by_exactly_zero(key: int, seeds: int, groups: int) -> None:
    arms, labels, group = draw_arms(np.random.default_rng(key), seeds, groups)
    result = bootstrap({**arms, "twin": arms["a"].copy()}, labels, group, CLASSES, 40, key)
    assert result.difference("a", "twin") == (0.0, (0.0, 0.0))
    assert result.paired_p("a", "twin") == 1.0


@quick
@given(keys, st.integers(1, 60))
def test_metrics_are_fractions(key: int, n: int) -> None:
    rng = np.random.default_rng(key)
    labels, probabilities = rng.integers(0, CLASSES, n), rng.dirichlet(np.full(CLASSES, 0.3), n)
    table = confusion(labels, probabilities.argmax(1), CLASSES)
    assert table.sum() == n
    for value in (balanced_accuracy(table), macro_f1(table), calibration_error(labels, probabilities)):
        assert 0 <= value <= 1


@quick
@given(st.dictionaries(st.integers(0, 99).map(str), st.integers(0, 9), min_size=1, max_size=9))
def test_no_other_class_is_rarer_than_the_rare(counts: dict[str, int]) -> None:
    rare = rare_classes(counts)
    assert len(rare) == -(-len(counts) // 3)
    assert all(counts[name] <= counts[other] for name in rare for other in counts.keys() - set(rare))


@quick
@given(st.dictionaries(st.integers(0, 9).map(str), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_only_raises(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    assert list(adjusted) == list(p_values)
    for name, p in p_values.items():
        assert p <= adjusted[name] <= min(1.0, len(p_values) * p)
        assert all(adjusted[name] <= adjusted[other] for other in p_values if p <= p_values[other])


@quick
@given(keys, st.integers(6, 40), st.integers(6, 40), st.integers(1, 50))
def test_chunks_and_sides_change_nothing(key: int, n: int, m: int, chunk: int) -> None:
    rng = np.random.default_rng(key)
    real, fake = rng.normal(size=(n, 5)), rng.normal(0.3, 1, (m, 5))
    whole = precision_recall_coverage(real, fake)
    assert precision_recall_coverage(real, fake, chunk=chunk) == whole
    assert all(0 <= share <= 1 for share in whole)
    swapped = precision_recall_coverage(fake, real)
    assert (swapped.precision, swapped.recall) == (whole.recall, whole.precision)
    assert kid(real, fake, chunk=chunk) == pytest.approx(kid(real, fake), abs=1e-9)
    assert kid(fake, real) == pytest.approx(kid(real, fake), abs=1e-9)
    for one, two in zip(nearest(fake, real, chunk), nearest(fake, real), strict=True):
        np.testing.assert_array_equal(one, two)


@quick
@given(keys, st.integers(6, 30))
def test_moving_both_sets_leaves_neighbourhoods(key: int, n: int) -> None:
    rng = np.random.default_rng(key)
    real, fake, turn = rng.normal(size=(n, 4)), rng.normal(size=(n, 4)), np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert precision_recall_coverage(real @ turn + 3, fake @ turn + 3) == precision_recall_coverage(real, fake)
    assert kid(real @ turn, fake @ turn) == pytest.approx(kid(real, fake), abs=1e-9)


@quick
@given(keys, st.integers(1, 200), st.floats(0.01, 0.99))
def test_fresh_images_score_the_quantile(key: int, n: int, quantile: float) -> None:
    yardstick = np.random.default_rng(key).random(n)
    share, threshold = memorised_share(yardstick, yardstick, quantile)
    assert abs(share - quantile) <= 1 / n
    nearer = memorised_share(yardstick * 0.9, yardstick, quantile)
    assert nearer.threshold == threshold
    assert nearer.share >= share
    assert near_copies(yardstick, threshold).mean() == share
