"""Metrics against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.errors import BadInput
from saadi.evaluation.metrics import (
    balanced_accuracy,
    calibration_error,
    confusion,
    macro_f1,
    mean_score,
    rare_classes,
    ratio,
    recalls,
)

LABELS = np.array([0, 0, 0, 0, 1, 1])
PREDICTED = np.array([0, 0, 0, 1, 1, 3])


def test_confusion_has_the_truth_in_its_rows() -> None:
    table = confusion(LABELS, PREDICTED, 4)
    assert table.tolist() == [[3, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_class_without_images_has_no_recall_and_is_left_out_of_the_mean() -> None:
    table = confusion(LABELS, PREDICTED, 4)
    np.testing.assert_array_equal(recalls(table), [0.75, 0.5, np.nan, np.nan])
    assert balanced_accuracy(table) == 0.625
    assert balanced_accuracy(table, among=(1, 2)) == 0.5
    assert np.isnan(balanced_accuracy(table, among=(2, 3)))


def test_f1_charges_for_a_class_that_is_only_predicted() -> None:
    # F1 by class: 2*3/(4+3), 2*1/(2+2), absent from both (left out), predicted only (0).
    assert macro_f1(confusion(LABELS, PREDICTED, 4)) == pytest.approx((6 / 7 + 1 / 2 + 0) / 3)


def test_a_perfect_classifier_scores_one() -> None:
    table = confusion(LABELS, LABELS, 3)
    assert balanced_accuracy(table) == macro_f1(table) == 1.0


def test_ratio_and_mean_are_nan_without_warning_where_there_is_nothing() -> None:
    np.testing.assert_array_equal(ratio(np.array([[1], [0]]), np.array([2, 0])), [[0.5, np.nan], [0, np.nan]])
    rows = np.array([[0.2, np.nan, 0.4], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(mean_score(rows), [0.3, np.nan])


def test_calibration_error_by_hand() -> None:
    # Two images at 0.9 (one right), two at 0.6 (both right): |0.5 - 0.9| and |1 - 0.6|, half the images each.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert calibration_error(np.array([0, 1, 1, 1]), probabilities) == pytest.approx(0.4)


def test_opposite_errors_cancel_within_a_bin_only() -> None:
    within = np.array([[0.70, 0.30], [0.72, 0.28]])  # one bin, (10/15, 11/15]
    assert calibration_error(np.array([0, 1]), within) == pytest.approx(abs(0.5 - 0.71))
    across = np.array([[0.70, 0.30], [0.95, 0.05]])
    assert calibration_error(np.array([0, 1]), across) == pytest.approx((0.3 + 0.95) / 2)


def test_certain_and_right_is_calibrated() -> None:
    assert calibration_error(LABELS, np.eye(4)[LABELS]) == 0.0
    assert calibration_error(np.array([0, 1]), np.full((2, 2), 0.5)) == 0.0


def test_rare_classes_are_the_rarest_third_rounded_up() -> None:
    assert rare_classes({"hook": 40, "clip": 5, "bag": 5, "needle": 9}) == ("bag", "clip")
    assert rare_classes({"b": 1, "a": 1, "c": 0}) == ("c",)
    assert rare_classes({"only": 3}) == ("only",)


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 3], [0, 0], "labels: ids from 0 to 3"),
        ([0, 1], [0, -1], "predictions: ids from -1"),
        ([0, 1], [0], "1 for 2 labels"),
        ([], [], "labels: found"),
        ([0.5], [0.5], "labels: found float64"),
    ],
)
def test_bad_ids_are_named(labels: list[int], predicted: list[int], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        confusion(np.array(labels), np.array(predicted), 3)
    assert "\n" not in str(caught.value)


def test_bad_probabilities_and_counts_are_named() -> None:
    with pytest.raises(BadInput, match="softmax"):
        calibration_error(np.array([0, 1]), np.array([[3.0, -1.0], [0.2, 4.0]]))
    with pytest.raises(BadInput, match="softmax"):
        calibration_error(np.array([0]), np.array([[np.nan, 1.0]]))
    with pytest.raises(BadInput, match="one row for each image"):
        calibration_error(np.array([0, 1]), np.array([[0.5, 0.5]]))
    with pytest.raises(BadInput, match="no class"):
        rare_classes({})
