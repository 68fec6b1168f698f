"""Overlap and surface distance of segmentation, against closed forms and another implementation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.segmentation import dice_score, hausdorff_distance

from saadi.errors import BadInput
from saadi.evaluation.maps import (
    image_mean,
    pixel_tables,
    surface_distances,
    tally_dice,
    tally_iou,
    tally_surface,
)
from saadi.evaluation.metrics import mean_score, point
from saadi.evaluation.statistics import crossed_bootstrap
from saadi.records import IGNORE


def square(top: int, left: int, side: int = 4, value: int = 1, size: int = 12) -> NDArray[np.uint8]:
    """A map of one square on background."""
    out = np.zeros((size, size), np.uint8)
    out[top : top + side, left : left + side] = value
    return out


def dice(true: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], classes: int = 2) -> list[float]:
    scores: list[float] = point(tally_dice(pixel_tables(true[None], predicted[None, None], classes))).tolist()
    return scores


def test_dice_and_iou_of_shifted_squares() -> None:
    true, predicted = square(2, 2), square(3, 4)  # 3 x 2 of 16 pixels in common
    assert dice(true, predicted)[1] == pytest.approx(2 * 6 / 32)
    iou = point(tally_iou(pixel_tables(true[None], predicted[None, None], 2)))
    assert iou[1] == pytest.approx(6 / 26)
    d = np.array(dice(true, predicted))
    np.testing.assert_allclose(iou, d / (2 - d))
    assert dice(true, true) == [1.0, 1.0]
    assert dice(true, square(8, 8)) == [pytest.approx(2 * 112 / 256), 0.0]


def test_pixels_that_are_ignored_count_for_nothing() -> None:
    true, predicted = square(2, 2), square(3, 4)
    plain = pixel_tables(true[None], predicted[None, None], 2)
    hidden = true.copy()
    hidden[predicted != true] = IGNORE
    tables = pixel_tables(hidden[None], predicted[None, None], 2)
    assert plain[0, 0].sum() == 144
    assert tables[0, 0].tolist() == [[144 - 26, 0], [0, 6]]
    wild = predicted.copy()
    wild[hidden == IGNORE] = 200  # whatever is said there
    np.testing.assert_array_equal(pixel_tables(hidden[None], wild[None, None], 2), tables)
    nothing = point(tally_dice(pixel_tables(np.full((1, 4, 4), IGNORE, np.uint8), np.zeros((1, 1, 4, 4), np.uint8), 2)))
    assert np.isnan(nothing).all()


def test_empty_classes() -> None:
    """Missed: 0. Not in the truth: no score, predicted or not; so a stray pixel does not move the mean by a class."""
    empty = np.zeros((12, 12), np.uint8)
    scores = dice(square(2, 2), square(2, 2, value=2), 4)
    np.testing.assert_array_equal(scores, [1.0, 0.0, np.nan, np.nan])
    assert mean_score(np.array(scores)) == 0.5
    assert mean_score(np.array(scores), range(1, 4)) == 0.0  # without the background
    np.testing.assert_array_equal(dice(empty, empty), [1.0, np.nan])


def test_a_class_has_a_score_in_a_resample_only_if_it_shows_it() -> None:
    true = np.stack([square(0, 0, 4), square(0, 0, 0)])
    said = np.stack([square(0, 0, 4), square(0, 0, 1)])[None]  # of the second image's one pixel is wrong
    for tally in (tally_dice(pixel_tables(true, said, 2)), tally_surface(true, said, 2)):
        scores = tally.scoring(np.array([0, 1]))
        drawn = scores(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]), np.ones((3, 1)))[:, 1]
        assert np.isnan(drawn).tolist() == [False, False, True]


def test_dice_pools_the_images_and_the_mean_over_images_does_not() -> None:
    true = np.stack([square(0, 0, 8), square(0, 0, 2), square(0, 0, 0), square(0, 0, 0)])
    said = np.stack([square(0, 0, 8), square(0, 4, 2), square(0, 0, 0), square(0, 0, 1)])[None]
    tally = tally_dice(pixel_tables(true, said, 2))
    assert point(tally)[1] == pytest.approx(2 * 64 / (64 + 64 + 4 + 4 + 0 + 1))
    # Found; missed; in neither, which is left out; and a false alarm.
    np.testing.assert_allclose(image_mean(tally, [1]), [(1 + 0 + 0) / 3])
    backgrounds = [1, 2 * 136 / 280, 1, 2 * 143 / (144 + 143)]
    np.testing.assert_allclose(image_mean(tally, [0]), [np.mean(backgrounds)])
    halves = [1, backgrounds[1] / 2, 1, backgrounds[3] / 2]
    np.testing.assert_allclose(image_mean(tally), [np.mean(halves)])
    assert np.isnan(image_mean(tally_dice(pixel_tables(true[2:3], said[:, 2:3], 2)), [1])).all()


def test_dice_is_that_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    true, said = rng.integers(0, 4, (3, 9, 7)), rng.integers(0, 4, (2, 3, 9, 7))
    tables = pixel_tables(true, said, 4)
    for one, table in zip(said, tables, strict=True):
        expected = dice_score(
            torch.from_numpy(one), torch.from_numpy(true), 4, average="none", input_format="index",
            aggregation_level="global",
        )  # fmt: skip
        np.testing.assert_allclose(point(tally_dice(table[None])), expected[0], rtol=1e-6)


def test_the_bootstrap_pools_a_resample_as_it_pools_the_data() -> None:
    rng = np.random.default_rng(1)
    true, said = rng.integers(0, 3, (4, 6, 6)), rng.integers(0, 3, (2, 4, 6, 6))
    result = crossed_bootstrap({"a": tally_dice(pixel_tables(true, said, 3))}, np.array(["p", "p", "q", "r"]), 50)
    pooled = dice(np.concatenate([true, true]).reshape(-1, 6), said.reshape(-1, 6), 3)
    np.testing.assert_allclose(result.point["a"], pooled)
    assert 0 <= result.interval("a", (1, 2)).interval[0] <= result.interval("a", (1, 2)).mean


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (np.zeros((2, 4, 4), int), np.zeros((2, 4, 4), int), r"maps: \(2, 4, 4\) true"),
        (np.zeros((2, 4, 4), int), np.zeros((1, 2, 4, 5), int), r"give \(N, S, S\) and \(trainings, N, S, S\)"),
        (np.zeros((0, 4, 4), int), np.zeros((1, 0, 4, 4), int), r"maps: \(0, 4, 4\)"),
        (np.full((1, 4, 4), 3), np.zeros((1, 1, 4, 4), int), "true maps: ids from 3 to 3; 3 classes have 0 to 2"),
        (np.zeros((1, 4, 4), int), np.full((1, 1, 4, 4), -1), "predicted maps: ids from -1"),
        (np.zeros((1, 4, 4), int), np.full((1, 1, 4, 4), IGNORE), "predicted maps: ids from 255"),
    ],
)
def test_bad_maps_are_named(true: NDArray[np.int64], predicted: NDArray[np.int64], message: str) -> None:
    for made in (pixel_tables, tally_surface):
        with pytest.raises(BadInput, match=message) as caught:
            made(true, predicted, 3)
        assert "\n" not in str(caught.value)


# Surfaces


def test_distances_of_squares_beside_each_other() -> None:
    one, two = square(2, 2) == 1, square(2, 5) == 1  # the same rows, three columns on
    sides = surface_distances(one, two)
    assert len(sides) == 2 * 12  # the outlines of two squares of 4
    # Of each outline, 4 pixels are 3 away from the other square's, 2 are 2 away, 2 are 1 away, 4 touch it.
    assert sorted(sides.tolist()) == sorted(2 * [3.0] * 4 + 2 * [2.0] * 2 + 2 * [1.0] * 2 + 2 * [0.0] * 4)


def test_the_tally_averages_over_images_and_charges_the_diagonal_for_a_miss() -> None:
    true = np.stack([square(2, 2), square(2, 2), square(0, 0, 0)])
    said = np.stack([square(2, 2), square(0, 0, 0), square(0, 0, 0)])[None]
    tally = tally_surface(true, said, 3)
    worst = math.hypot(12, 12)
    assert tally.parts[0, :, 1].tolist() == [0, worst, 0]
    assert tally.wholes[0, :, 1].tolist() == [1, 1, 0]
    np.testing.assert_allclose(point(tally)[1:], [worst / 2, np.nan])
    alarm = tally_surface(said[0], true[None], 3)
    np.testing.assert_array_equal(alarm.parts[..., 1], tally.parts[..., 1])


def test_what_is_ignored_has_no_surface() -> None:
    true, said = square(2, 2), square(2, 2)
    true[2:6, 4:] = IGNORE
    said[2:6, 4:8] = 1
    assert tally_surface(true[None], said[None, None], 2).parts[0, 0, 1] == 0
    true[true == 1] = IGNORE
    assert tally_surface(true[None], said[None, None], 2).wholes[0, 0, 1] == 0


def test_distances_are_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    true, said = (np.kron(rng.integers(0, 3, (4, 5, 5)), np.ones((1, 4, 4), int)) for _ in range(2))
    farthest = tally_surface(true, said[None], 3, percentile=100)
    expected = hausdorff_distance(
        torch.from_numpy(said), torch.from_numpy(true), 3, include_background=True, input_format="index"
    )
    np.testing.assert_allclose(farthest.parts[0], expected, rtol=1e-6)
    mean, most = tally_surface(true, said[None], 3), tally_surface(true, said[None], 3, percentile=95)
    assert (mean.parts <= most.parts).all()
    assert (most.parts <= farthest.parts).all()
    with pytest.raises(ValueError, match="no surface"):
        surface_distances(np.zeros((4, 4), bool), np.ones((4, 4), bool))
