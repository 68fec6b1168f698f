"""What must hold for any maps, sets and logits of the dense and the many-labelled task."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from saadi.critics.augmentation import augment
from saadi.evaluation.maps import image_mean, pixel_tables, tally_dice, tally_iou, tally_surface
from saadi.evaluation.metrics import point
from saadi.evaluation.presence import rank, tally_f1
from saadi.preferences import presence_loss, read_region, read_set, region_dice, region_iou
from saadi.records import IGNORE

quick = settings(max_examples=25, deadline=None, derandomize=True)
keys = st.integers(0, 2**32 - 1)
CLASSES = 3
Ids = NDArray[np.int64]


def draw_maps(rng: np.random.Generator, images: int, unknown: float = 0.0) -> tuple[Ids, Ids]:
    """True maps [N, 6, 6], of few classes each and with pixels that are unknown, and those of two trainings."""
    true = rng.integers(0, rng.integers(1, CLASSES + 1), (images, 6, 6))
    true[rng.random(true.shape) < unknown] = IGNORE
    return true, rng.integers(0, rng.integers(1, CLASSES + 1), (2, images, 6, 6))


@quick
@given(keys, st.integers(1, 5), st.sampled_from([0.0, 0.3, 1.0]))
def test_overlap_is_a_fraction_and_the_order_of_images_does_not_matter(key: int, images: int, unknown: float) -> None:
    rng = np.random.default_rng(key)
    true, said = draw_maps(rng, images, unknown)
    order = rng.permutation(images)
    for tally in (tally_dice, tally_iou):
        scores = point(tally(pixel_tables(true, said, CLASSES)))
        known = scores[~np.isnan(scores)]
        assert ((known >= 0) & (known <= 1)).all()
        np.testing.assert_array_equal(point(tally(pixel_tables(true[order], said[:, order], CLASSES))), scores)
    tables = pixel_tables(true, said, CLASSES)
    dice, iou = point(tally_dice(tables)), point(tally_iou(tables))
    np.testing.assert_allclose(iou, dice / (2 - dice))
    np.testing.assert_allclose(image_mean(tally_dice(tables)), image_mean(tally_dice(tables[:, order])), equal_nan=True)


@quick
@given(keys, st.integers(1, 4))
def test_overlap_and_distance_do_not_care_which_is_the_truth(key: int, images: int) -> None:
    true, said = draw_maps(np.random.default_rng(key), images)
    one = pixel_tables(true, said[:1], CLASSES), tally_surface(true, said[:1], CLASSES)
    two = pixel_tables(said[0], true[None], CLASSES), tally_surface(said[0], true[None], CLASSES)
    for forth, back in zip((*tally_dice(one[0])[:2], *one[1][:2]), (*tally_dice(two[0])[:2], *two[1][:2]), strict=True):
        np.testing.assert_allclose(forth, back)
    parts, wholes, _ = one[1]
    assert ((parts >= 0) & (parts <= np.hypot(6, 6) * wholes)).all()
    exact = tally_surface(true, true[None], CLASSES)
    assert (exact.parts == 0).all()


@quick
@given(keys, st.integers(1, 20))
def test_presence_scores_are_fractions_and_all_right_is_one(key: int, images: int) -> None:
    rng = np.random.default_rng(key)
    sets, logits = rng.integers(0, 2, (images, CLASSES)), rng.normal(size=(2, images, CLASSES))
    shown = sets.any(0)
    for scored in (rank(sets, logits), tally_f1(sets, logits > 0)):
        scores = point(scored)[shown]
        assert ((scores >= 0) & (scores <= 1)).all()
    for scored in (rank(sets, logits + 99 * sets), tally_f1(sets, sets[None])):
        np.testing.assert_allclose(point(scored), np.where(shown, 1.0, np.nan))


@quick
@given(keys, st.integers(1, 4))
def test_augmentation_moves_image_and_map_alike(key: int, images: int) -> None:
    """An image that is its own mask: after the move, what is dark for sure is background, whatever the colour cast.

    A pixel whose nearest neighbour was 1 has at least a quarter of it after interpolation, and a gain of 0.75 and a
    bias of -0.08 at least: 0.1075. The same holds for the negative, where dark is the tool.
    """
    rng = np.random.default_rng(key)
    masks = torch.from_numpy(np.kron(rng.integers(0, 2, (images, 4, 4)), np.ones((1, 8, 8), int)).astype(np.uint8))
    image = masks[:, None].expand(-1, 3, -1, -1).float()
    decided = torch.zeros(masks.shape, dtype=torch.bool)
    for shade, dark in ((image, 0), (1 - image, 1)):
        seen, moved = augment(shade, torch.Generator().manual_seed(key), masks)
        assert moved is not None
        sure = seen.amax(1) < 0.1
        assert (moved[sure] == dark).all()
        assert ((moved == 0) | (moved == 1)).all()
        decided |= sure
    assert decided.float().mean() > 0.4


@quick
@given(keys, st.integers(1, 4), st.floats(-20, 20))
def test_region_criteria_are_fractions_that_agree_and_ignore_a_shift(key: int, images: int, shift: float) -> None:
    rng = np.random.default_rng(key)
    logits, asked = rng.normal(0, 3, (images, CLASSES, 5, 5)), rng.integers(0, CLASSES, images)
    maps = rng.integers(0, CLASSES, (images, 5, 5)).astype(np.uint8)
    maps[rng.random(maps.shape) < 0.3] = IGNORE
    maps[:, 0, 0] = asked
    dice, iou = region_dice(logits, maps, asked), region_iou(logits, maps, asked)
    assert ((dice > 0) & (dice <= 1)).all()
    np.testing.assert_allclose(iou, dice / (2 - dice))
    np.testing.assert_allclose(region_dice(logits + shift, maps, asked), dice)
    hidden = np.where((maps == IGNORE)[:, None], rng.normal(0, 9, logits.shape), logits)
    np.testing.assert_allclose(region_dice(hidden, maps, asked), dice)
    reading, again = read_region(logits, maps, asked), read_region(hidden, maps, asked)
    for name in reading._fields:
        np.testing.assert_allclose(getattr(reading, name), getattr(again, name))
    assert (reading.rival != asked).all()
    assert (reading.probability <= reading.seen_probability).all()


@quick
@given(keys, st.integers(1, 6), st.integers(1, 4))
def test_presence_is_read_as_it_is_scored(key: int, images: int, classes: int) -> None:
    rng = np.random.default_rng(key)
    logits, sets = rng.normal(0, 3, (images, classes)), rng.integers(0, 2, (images, classes))
    reading, loss = read_set(logits, sets), presence_loss(logits, sets)
    assert (loss < 0).all()
    np.testing.assert_array_equal(reading.right, ((logits > 0) == sets).all(1))
    np.testing.assert_allclose(reading.probability, np.exp(classes * loss))
    toggled = sets.copy()
    toggled[np.arange(images), reading.rival] ^= 1
    nearest = presence_loss(logits, toggled)
    for other in range(classes):
        changed = sets.copy()
        changed[:, other] ^= 1
        assert (presence_loss(logits, changed) <= nearest + 1e-12).all()
