"""What holds for every long tail, every split by group and every pair of shapes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saadi.data.audit import nearest, normalise
from saadi.data.folders import MIN_GROUPS, split_groups
from saadi.data.images import to_square
from saadi.data.masks import square_mask
from saadi.data.phantom import LEAST, long_tail, phantom_frames
from saadi.imageconfig import PhantomConfig
from saadi.records import IGNORE

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


@SETTINGS
@given(st.integers(1, 30), st.integers(0, 3000), st.floats(1e-4, 1.0))
def test_long_tail(classes: int, more: int, tail: float) -> None:
    total = LEAST * classes + more
    counts = long_tail(total, classes, tail)
    assert len(counts) == classes
    assert sum(counts) == total
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= LEAST


@settings(SETTINGS, max_examples=20)
@given(st.integers(3, 30), st.integers(2, 6), st.integers(0, 1000))
def test_split_groups(groups: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, (groups, classes)) * (rng.random((groups, classes)) < 0.4)
    split = split_groups(counts, np.random.default_rng(seed))
    np.testing.assert_array_equal(split, split_groups(counts, np.random.default_rng(seed)))
    sizes = np.bincount(split, minlength=3)
    assert sizes.sum() == groups
    assert sizes.min() >= 1
    if groups >= classes + 2:  # room for a group of each class in train
        occurs = counts.sum(0) > 0
        assert (counts[split == 0].sum(0) > 0)[occurs].all()
    if 0.6 * groups >= classes:  # and then no need to enlarge train
        assert sizes[1] == sizes[2] == max(1, round(0.2 * groups))


@SETTINGS
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["pad", "crop"]))
def test_squares_keep_flat_colours(width: int, height: int, square: str) -> None:
    image = Image.new("RGB", (width, height), (50, 100, 150))
    pixels = np.asarray(to_square(image, 32, "crop" if square == "crop" else "pad")).reshape(-1, 3)
    assert {tuple(pixel) for pixel in pixels.tolist()} <= {(50, 100, 150), (0, 0, 0)}
    share = 1.0 if square == "crop" else min(width, height) / max(width, height)
    assert abs((pixels[:, 0] == 50).mean() - share) <= 1 / 32


@SETTINGS
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from(["pad", "crop"]), st.integers(0, 99))
def test_masks_are_laid_as_their_images_are(width: int, height: int, how: str, seed: int) -> None:
    square: Literal["pad", "crop"] = "crop" if how == "crop" else "pad"
    ids = np.random.default_rng(seed).integers(0, 3, (height, width), np.uint8)
    laid = square_mask(ids, 32, square)
    white = np.asarray(to_square(Image.new("RGB", (width, height), (255, 255, 255)), 32, square))[..., 0]
    np.testing.assert_array_equal(laid == IGNORE, white == 0)
    assert set(np.unique(laid)) <= {*np.unique(ids), IGNORE}


@SETTINGS
@given(st.integers(40, 200), st.integers(40, 200), st.floats(0.1, 0.9), st.sampled_from(["pad", "crop"]))
def test_edges_of_masks_lie_where_their_images_do(width: int, height: int, share: float, how: str) -> None:
    square: Literal["pad", "crop"] = "crop" if how == "crop" else "pad"
    ids = np.zeros((height, width), np.uint8)
    ids[:, : round(share * width)] = 1
    laid = square_mask(ids, 32, square)
    image = np.asarray(to_square(Image.fromarray(np.repeat(ids[..., None] * 255, 3, 2)), 32, square))[..., 0]
    sure = (laid != IGNORE) & ((image < 64) | (image > 192))
    np.testing.assert_array_equal(laid[sure] == 1, image[sure] > 128)


@SETTINGS
@given(st.integers(16, 200), st.integers(1, 20), st.integers(0, 99))
def test_train_patients(train: int, patients: int, seed: int) -> None:
    frames = phantom_frames(
        PhantomConfig(train=train, val=9, test=17, patients=(patients, 2, 3)), seed, "classification"
    )
    assert len(frames) == train + 26
    assert len({frame.file for frame in frames}) == len(frames)
    where: dict[str, set[str]] = {}
    for frame in frames[:train]:
        where.setdefault(frame.label, set()).add(frame.group)
    assert min(len(groups) for groups in where.values()) >= min(2, patients)


@SETTINGS
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_nearest_is_the_largest_correlation(n: int, m: int, chunk: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.uniform(0, 255, (rows, 16)).astype(np.float32) for rows in (n, m))
    index, value = nearest(normalise(a), normalise(b), chunk)
    expected = np.corrcoef(a, b)[:n, n:]
    np.testing.assert_allclose(value, expected.max(1), atol=1e-4)
    np.testing.assert_allclose(expected[np.arange(n), index], expected.max(1), atol=1e-4)


def test_the_fewest_groups_that_are_accepted_leave_two_to_train_on() -> None:
    split = split_groups(np.ones((MIN_GROUPS, 2), np.int64), np.random.default_rng(0))
    assert sorted(split.tolist()) == [0, 0, 1, 2]
