"""What every layout keeps, whatever the masks: what is asked for lies in what is painted, and no more changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from saadi.data.layouts import Layout, make_layout, moved, picture, to_cells, whole_object
from saadi.imageconfig import LayoutConfig
from saadi.records import IGNORE

SIZE, CELL = 32, 2
CONFIG = LayoutConfig()
quick = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def id_maps(draw: st.DrawFn, classes: int = 3) -> NDArray[np.uint8]:
    """Rectangles of some classes on background, and a padded edge in which nothing is known."""
    ids = np.zeros((SIZE, SIZE), np.uint8)
    for _ in range(draw(st.integers(1, 4))):
        top, left = draw(st.integers(0, SIZE - 4)), draw(st.integers(0, SIZE - 4))
        height, width = draw(st.integers(2, 14)), draw(st.integers(2, 14))
        ids[top : top + height, left : left + width] = draw(st.integers(1, classes))
    ids[:, : draw(st.sampled_from([0, 0, 4]))] = IGNORE
    return ids


def lay(seed: int, canvas: NDArray[np.uint8], label: int, donor: NDArray[np.uint8] | None = None) -> Layout:
    return make_layout(np.random.default_rng(seed), canvas, label, donor, [1, 2], CONFIG, CELL)


def check(layout: Layout, canvas: NDArray[np.uint8]) -> None:
    outside = ~layout.region
    assert np.array_equal(layout.target[outside], canvas[outside])
    assert np.array_equal(layout.target == IGNORE, canvas == IGNORE)
    for one in layout.passes:
        assert not (one.region & (canvas == IGNORE)).any()
        assert not (one.object & ~one.region).any()
        assert (one.alpha[one.object] == 1).all()
        assert (one.alpha[~one.region] == 0).all()
        assert np.array_equal(one.region, to_cells(one.region, CELL) & (canvas != IGNORE))


@quick
@given(id_maps(), st.integers(0, 2**32), st.integers(0, 3))
def test_a_frames_own_class_is_painted_where_it_is(canvas: NDArray[np.uint8], seed: int, label: int) -> None:
    layout = lay(seed, canvas, label)
    check(layout, canvas)
    (only,) = layout.passes
    assert only.label == label
    assert np.array_equal(layout.target, canvas)
    assert np.array_equal(only.object, (canvas == label) if label else np.zeros_like(canvas, bool))
    if not label:  # where nothing is asked for, nothing is known to be
        assert not canvas[only.region].any()


@quick
@given(id_maps(), st.integers(0, 2**32))
def test_decoys_lie_within_a_tissue_where_there_is_no_background(canvas: NDArray[np.uint8], seed: int) -> None:
    tissue = np.where(canvas == 0, np.where(np.arange(SIZE) < SIZE // 2, 4, 5), canvas).astype(np.uint8)
    assume((tissue == 1).any())
    never, always = (
        make_layout(
            np.random.default_rng(seed), tissue, 1, None, [1, 2], CONFIG.model_copy(update={"decoys": share}), CELL
        )
        for share in (0.0, 1.0)
    )
    decoy = always.region & ~never.region
    assert not np.isin(tissue[decoy], [1, 2, IGNORE]).any()
    rim = CONFIG.rim[0] * SIZE
    for number in (3, 4, 5):  # no edge of a class is painted anew
        others = (tissue != number) & (tissue != IGNORE)
        near = ndimage.distance_transform_edt(~others) <= rim if others.any() else np.zeros_like(others)
        assert not (decoy & (tissue == number) & near).any()


def test_a_tissue_has_decoys() -> None:
    canvas = np.full((SIZE, SIZE), 4, np.uint8)
    canvas[:, SIZE // 2 :] = 5
    canvas[2:6, 2:6] = 1
    regions = [lay(seed, canvas, 1).region for seed in range(20)]
    assert sum(bool((region[:, SIZE // 2 :]).any()) for region in regions) >= 5


@quick
@given(id_maps(), id_maps(), st.integers(0, 2**32))
def test_a_moved_object_takes_the_place_of_the_frames(
    canvas: NDArray[np.uint8], donor: NDArray[np.uint8], seed: int
) -> None:
    label = int(donor[donor != IGNORE].max(initial=0))
    assume(label)
    layout = lay(seed, canvas, label, donor)
    check(layout, canvas)
    assert layout.passes[-1].label == label
    assert len({one.label for one in layout.passes}) == len(layout.passes)
    asked = np.zeros_like(layout.pasted)
    for one in layout.passes:
        assert (layout.target[one.object] == one.label).all()
        asked |= one.object
    assert np.array_equal(asked, layout.pasted)
    for number, one in enumerate(layout.passes):  # what a pass has painted is known then, what later ones do is not
        known, later = layout.shown_after(number), layout.passes[number + 1 :]
        assert (known[one.object] == one.label).all()
        assert np.array_equal(known == IGNORE, np.logical_or.reduce([canvas == IGNORE, *(p.object for p in later)]))
    assert layout.passes[-1].object.any()  # a mask asks for something, wherever the frame is known
    left = np.isin(canvas, [1, 2]) & ~layout.pasted
    assert (layout.target[left] == 0).all()  # what the frame's own things hid
    assert np.array_equal(layout.target[(canvas == 3) & ~layout.pasted], canvas[(canvas == 3) & ~layout.pasted])


@quick
@given(id_maps(), id_maps(), st.integers(0, 2**32))
def test_a_layout_is_its_seeds(canvas: NDArray[np.uint8], donor: NDArray[np.uint8], seed: int) -> None:
    assume((donor == 1).any())
    one, two = lay(seed, canvas, 1, donor), lay(seed, canvas, 1, donor)
    assert np.array_equal(one.target, two.target)
    assert all(np.array_equal(a.alpha, b.alpha) for a, b in zip(one.passes, two.passes, strict=True))


def test_an_object_is_all_its_touching_things_and_the_one_that_shows_most_of_the_class() -> None:
    ids = np.zeros((12, 12), np.uint8)
    ids[2, 1:8], ids[2, 8:10] = 1, 2
    expected = ids.copy()
    ids[3, 4], ids[9, 0] = 3, 2  # tissue that touches, and a smaller piece elsewhere
    found = whole_object(ids, 2, [1, 2])
    assert np.array_equal(found, expected)
    assert not whole_object(ids, 4, [1, 2]).any()


def test_a_small_part_at_an_objects_end_is_still_asked_for_after_every_move() -> None:
    donor, wide = np.zeros((SIZE, SIZE), np.uint8), CONFIG.model_copy(update={"shift": 0.5, "scale": 2.0})
    donor[4:28, 4:20], donor[4, 20] = 1, 2
    for seed in range(300):
        layout = make_layout(np.random.default_rng(seed), np.zeros_like(donor), 2, donor, [1, 2], wide, CELL)
        assert (layout.target == 2).any()


def test_a_shaft_that_comes_from_outside_still_does_after_a_move() -> None:
    ids = np.zeros((SIZE, SIZE), np.uint8)
    ids[14:18, :20] = 1
    right = np.array([[1.0, 0, 0], [0, 1.0, -6]])  # by six pixels
    shifted = moved(ids, right, picture(ids))
    assert np.array_equal(np.flatnonzero(shifted[15]), np.arange(26))


def test_in_a_padded_picture_the_outside_begins_at_the_padding() -> None:
    donor = np.zeros((SIZE, SIZE), np.uint8)
    donor[:6], donor[-6:], donor[6:16, 14:18] = IGNORE, IGNORE, 1  # a shaft from the top of a wide picture
    assert picture(donor) == (slice(6, SIZE - 6), slice(0, SIZE))
    down = np.array([[1.0, 0, -5], [0, 1.0, 0]])
    shifted = moved(whole_object(donor, 1, [1]), down, picture(donor))
    assert np.array_equal(np.flatnonzero(shifted[:, 15]), np.arange(21))
    pixels = moved(np.where(donor == 1, 9.0, 4.0), down, picture(donor), order=1)
    assert np.array_equal(pixels == 9, shifted == 1)
    assert picture(np.full_like(donor, IGNORE)) == (slice(0, SIZE), slice(0, SIZE))


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_move_is_about_the_objects_middle(mirror: float) -> None:
    still = CONFIG.model_copy(update={"shift": 0.0, "scale": 1.0, "turn": 0.0})
    ids = np.zeros((SIZE, SIZE), np.uint8)
    ids[8:12, 4:14] = 1
    for seed in range(20):
        layout = make_layout(np.random.default_rng(seed), np.zeros_like(ids), 1, ids, [1], still, CELL)
        assert np.array_equal(layout.pasted, ids > 0) or np.array_equal(layout.pasted, ids[:, ::-1] > 0)
