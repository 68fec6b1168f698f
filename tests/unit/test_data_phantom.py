"""The phantom as a data set: its tail, its patients, and images that depend on their key alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import get_args

import numpy as np
import pytest

from saadi.data.phantom import SPACE, fresh_images, long_tail, make_phantom, oracle_images, phantom_frames
from saadi.errors import BadInput
from saadi.imageconfig import PhantomConfig
from saadi.records import LabelSpace, Task

SMALL = PhantomConfig(train=40, val=16, test=24, patients=(6, 2, 3))


def test_long_tail_closed_forms() -> None:
    assert long_tail(70, 3, 0.25) == [40, 20, 10]
    assert long_tail(10, 4, 1.0) == [3, 3, 2, 2]
    assert long_tail(8, 4, 0.01) == [2, 2, 2, 2]
    assert long_tail(5, 1, 0.3) == [5]
    with pytest.raises(BadInput, match=r"data\.phantom\.train"):
        long_tail(7, 4, 0.5)


def test_counts_by_split() -> None:
    frames = phantom_frames(PhantomConfig(), 0, "classification")
    counts = Counter((frame.split, frame.label) for frame in frames)
    assert [counts["train", name] for name in SPACE.names] == long_tail(400, 8, 0.15)
    assert {counts["val", name] for name in SPACE.names} == {40}
    assert {counts["test", name] for name in SPACE.names} == {200}


@pytest.mark.parametrize("seed", range(5))
def test_patients_see_some_instruments(seed: int) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    frames = phantom_frames(PhantomConfig(), seed, "classification")
    for frame in frames:
        if frame.split == "train":
            seen[frame.label].add(frame.group)
    spread = [len(seen[name]) for name in SPACE.names]
    assert spread == sorted(spread, reverse=True)
    assert spread[0] == 9
    assert spread[-1] == 2
    assert len(set.union(*seen.values())) == 12
    assert len({(frame.group, frame.split) for frame in frames}) == 12 + 8 + 20


def test_images_are_a_function_of_the_seed() -> None:
    first, again, other = (make_phantom(SMALL, 32, seed, "classification") for seed in (3, 3, 4))
    assert first.images.shape == (80, 32, 32, 3)
    assert first.frames == again.frames
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_masks_are_the_visible_instrument_and_the_images_the_same() -> None:
    plain, masked, shown = (make_phantom(SMALL, 32, 3, task) for task in get_args(Task))
    np.testing.assert_array_equal(plain.images, masked.images)
    np.testing.assert_array_equal(plain.images, shown.images)
    assert plain.masks is shown.masks is None
    assert masked.masks is not None
    assert masked.space == LabelSpace(("background", *SPACE.names), background=True)
    assert (plain.space, plain.frames) == (shown.space, shown.frames) == (SPACE, tuple(plain.frames))
    for mask, frame in zip(masked.masks, masked.frames, strict=True):
        assert set(np.unique(mask)) == {0, 1 + SPACE.id(frame.label)}
        assert 0.03 < (mask > 0).mean() < 0.5
    assert masked.frames[5].mask == "masks/train/000005.png"
    assert masked.counts() == plain.counts()
    np.testing.assert_array_equal(shown.presence.argmax(1), plain.labels)


def test_an_image_depends_on_its_key_alone() -> None:
    few = make_phantom(SMALL.model_copy(update={"train": 20, "test": 8}), 32, 3, "classification").split("test")
    many = make_phantom(SMALL, 32, 3, "classification").split("test")
    np.testing.assert_array_equal(few.images, many.images[:8])


def test_progress_counts_up() -> None:
    calls: list[tuple[int, int]] = []
    make_phantom(SMALL, 32, 0, "classification", lambda done, total: calls.append((done, total)))
    assert calls == [(i + 1, 80) for i in range(80)]


def test_fresh_images_are_balanced_of_the_patients_of_their_class_and_new() -> None:
    train = make_phantom(SMALL, 32, 0, "classification").split("train")
    patients = sorted(set(train.groups.tolist()))
    images, labels, groups = fresh_images(SMALL, 32, 0, patients, 6)
    assert images.shape == (48, 32, 32, 3)
    assert np.bincount(labels).tolist() == [6] * 8
    for label in range(8):
        own = train.groups[train.labels == label]
        drawn = Counter(groups[labels == label].tolist())
        assert sum((Counter(np.tile(own, -(-6 // len(own))).tolist()) - drawn).values()) == -6 % len(own)
    distance = np.abs(images[:, None].astype(int) - train.images[None].astype(int)).mean((2, 3, 4))
    assert distance.min() > 1
    assert len({image.tobytes() for image in images}) == 48
    few, few_labels, _ = fresh_images(SMALL, 32, 0, patients, 2)  # an image depends on its class and index alone
    np.testing.assert_array_equal(few[few_labels == 3], images[labels == 3][:2])
    _, some_labels, some_groups = fresh_images(SMALL, 32, 0, patients[:2], 3)
    shown = set(train.labels[np.isin(train.groups, patients[:2])].tolist())
    assert set(some_groups.tolist()) <= set(patients[:2])
    assert Counter(some_labels.tolist()) == dict.fromkeys(shown, 3)
    with pytest.raises(ValueError, match="training patient"):
        fresh_images(SMALL, 32, 0, ["test-00"], 4)


def test_the_oracle_s_images_are_its_own_and_balanced() -> None:
    images, labels = oracle_images(24, 64, 3, "classification")
    again, _ = oracle_images(16, 64, 3, "classification")
    np.testing.assert_array_equal(images[:16], again)  # an image depends on its index alone
    assert np.bincount(labels).tolist() == [3] * 8
    assert not {image.tobytes() for image in images} & {
        image.tobytes() for image in make_phantom(SMALL, 64, 3, "classification").images
    }
