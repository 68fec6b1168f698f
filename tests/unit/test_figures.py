"""Pictures of the page: outlines, sprites, smoothed curves."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.report import figures


def test_an_outline_runs_around_a_mask_in_its_colour() -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[2:4, 2:6] = True
    image = np.full((8, 8, 3), 7, np.uint8)
    drawn = figures.outlined(image, [(mask, "#ff0080")], side=8)
    coloured = (drawn == [255, 0, 128]).all(-1)
    assert coloured.sum() == 2 * 4 + 2 * 2  # a side's neighbours, corners apart
    assert not (coloured & mask).any()
    assert (drawn[~coloured] == 7).all()
    assert figures.outlined(image, [(mask, "#ff0080")], side=32).shape == (32, 32, 3)
    both = figures.outlined(image, [(mask, "#ff0080"), (mask, "#00ff00")], side=8)
    turns = [(both == colour).all(-1) for colour in ([255, 0, 128], [0, 255, 0])]
    assert all(one.any() for one in turns)
    assert np.array_equal(turns[0] | turns[1], coloured)
    assert np.array_equal(figures.outlined(image, [], side=8), image)


def test_sprites_keep_small_images_exact_and_shrink_large_ones() -> None:
    tile = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    small = figures.sprite([tile, None, tile], 2)
    assert (small.width, small.height) == (18, 18)
    assert small.uri.startswith("data:image/png;base64,")
    large = figures.sprite([np.zeros((512, 256, 3), np.uint8)], 3)
    assert (large.width, large.height) == (3 * 80 + 4, 160)
    assert large.uri.startswith("data:image/jpeg;base64,")


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    assert figures.smooth([2.0] * 7, 4) == pytest.approx([2.0] * 7)
    assert figures.smooth([], 4) == []
    assert figures.smooth([1.0, 2.0, 3.0], 0) == [1.0, 2.0, 3.0]
