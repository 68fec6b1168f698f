"""Downstream models of every task: training is repeatable, paired between arms, and learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.config import ClassifierConfig
from saadi.critics.augmentation import AUGMENTATIONS
from saadi.critics.downstream import Labelled, restore, train_network
from saadi.critics.tasks import TASKS, Downstream
from saadi.records import IGNORE

CLASSES, PIXELS, SETS = (TASKS[name] for name in ("classification", "segmentation", "presence"))
SHORT = ClassifierConfig(steps=3, batch=8)


def easy(count: int, seed: int) -> Labelled:
    """Reddish against bluish noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(60, 120, (count, 16, 16, 3))
    images[np.arange(count), :, :, 2 * labels] += 80
    return Labelled(images.astype(np.uint8), labels)


@pytest.mark.parametrize(
    "change", [{"augment": "randaugment"}, {"mix": "mixup"}, {"mix": "cutmix"}, {"augment": "mirror", "mix": "cutmix"}]
)
def test_strong_ways_of_training_learn_too(change: dict[str, str]) -> None:
    recipe = ClassifierConfig(steps=60, batch=16, lr=3e-3).model_copy(update=change)
    model = train_network(CLASSES, recipe, easy(64, 1), 2, 0)
    again = train_network(CLASSES, recipe, easy(64, 1), 2, 0)
    unseen = easy(60, 2)
    assert np.array_equal(model.logits(unseen.images), again.logits(unseen.images))
    assert model.level(unseen, 2) > 0.9


def test_learns_what_is_easily_told_apart() -> None:
    model = train_network(CLASSES, ClassifierConfig(steps=40, batch=16), easy(64, 0), 2, seed=1)
    test = easy(200, 1)
    assert not model.net.training
    assert (model.logits(test.images).argmax(1) == test.targets).mean() > 0.95


def test_one_seed_gives_one_model_to_the_bit() -> None:
    real = easy(20, 0)
    logits = []
    for seed in (1, 1, 2):
        torch.randn(5)
        logits.append(train_network(CLASSES, SHORT, real, 2, seed).logits(real.images))
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-3


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_arms_of_one_seed_see_the_same_real_images_in_the_same_order(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []

    def spy(x: Tensor, generator: torch.Generator, maps: None) -> tuple[Tensor, None]:
        batches.append((255 * x[:, 0, 0, 0]).round().int().tolist())
        return x, maps

    def flat(values: NDArray[np.int64]) -> Labelled:
        """Each image is of one grey value, by which it is known."""
        return Labelled(np.tile(values.astype(np.uint8).reshape(-1, 1, 1, 1), (1, 16, 16, 3)), values % 2)

    monkeypatch.setitem(AUGMENTATIONS, "full", spy)
    real, synthetic = flat(np.arange(50)), flat(np.arange(200, 250))
    train_network(CLASSES, SHORT, real, 2, seed=4)
    alone = batches.copy()
    batches.clear()
    train_network(CLASSES, SHORT, real, 2, seed=4, synthetic=synthetic, share=share)
    kept = 8 - round(8 * share)
    assert len(alone) == len(batches) == 3
    for without, mixed in zip(alone, batches, strict=True):
        assert len(without) == len(mixed) == 8
        assert mixed[:kept] == without[:kept]
        assert min(mixed[kept:]) >= 200
        assert max(without) < 50
    assert len({tuple(batch) for batch in alone}) == 3


# Segmentation and presence


def squares(count: int, seed: int) -> Labelled:
    """A bright square of 8 px somewhere on noise of 32 px, and its mask; a frame of 2 px is not labelled."""
    rng = np.random.default_rng(seed)
    images, masks = rng.integers(40, 120, (count, 32, 32, 3)), np.zeros((count, 32, 32), np.uint8)
    for image, mask, (top, left) in zip(images, masks, rng.integers(2, 22, (count, 2)), strict=True):
        mask[top : top + 8, left : left + 8] = 1
        image[mask == 1] += 100
        mask[[0, 1, -2, -1]] = mask[:, [0, 1, -2, -1]] = IGNORE
    return Labelled(images.astype(np.uint8), masks)


def test_a_small_unet_learns_a_trivial_shape_in_a_few_steps() -> None:
    config = ClassifierConfig(model="small-unet", steps=40, batch=8)
    model = train_network(PIXELS, config, squares(32, 0), 2, seed=1)
    test = squares(50, 1)
    maps = model.answers(test.images)
    assert maps.shape == test.targets.shape
    assert maps.dtype == np.uint8
    assert model.level(test, 2) > 0.9


@pytest.mark.parametrize(("task", "model"), [(CLASSES, "small-cnn"), (PIXELS, "small-unet")], ids=["class", "map"])
def test_restored_network_gives_the_same_logits(task: Downstream, model: str) -> None:
    config, real = ClassifierConfig(model=model, steps=2, batch=8), squares(8, 0) if task.dense else easy(20, 0)
    trained = train_network(task, config, real, 2, seed=1)
    again = restore(task, config, trained.net.state_dict(), 2, 2.0, torch.device("cpu"))
    np.testing.assert_array_equal(again.logits(real.images), trained.logits(real.images) / 2)


def test_presence_learns_two_things_at_once() -> None:
    rng = np.random.default_rng(0)

    def shown(count: int) -> Labelled:
        """Red for the one, blue for the other; both, or neither."""
        sets, images = rng.integers(0, 2, (count, 2)), rng.integers(60, 100, (count, 16, 16, 3))
        images[..., ::2] += 80 * sets[:, None, None]
        return Labelled(images.astype(np.uint8), sets)

    model = train_network(SETS, ClassifierConfig(steps=60, batch=16, balance=1.0), shown(64), 2, seed=1)
    assert model.level(shown(100), 2) > 0.95


def test_synthetic_maps_join_the_batch_and_need_not_be_complete() -> None:
    config = ClassifierConfig(model="small-unet", steps=2, batch=4)
    real, synthetic = squares(6, 0), squares(6, 1)
    unknown = Labelled(synthetic.images, np.full_like(synthetic.targets, IGNORE))
    plain, mixed = (
        train_network(PIXELS, config, real, 2, seed=1, synthetic=extra, share=0.5).logits(real.images[:1])
        for extra in (synthetic, unknown)
    )
    assert np.isfinite(mixed).all()
    assert np.abs(plain - mixed).max() > 1e-3


def test_maps_come_batch_by_batch_and_no_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ClassifierConfig(model="small-unet", steps=1, batch=4)
    data = squares(7, 0)
    model = train_network(PIXELS, config, data, 3, seed=1)
    whole = model.logits(data.images)
    assert whole.shape == (7, 3, 32, 32)
    monkeypatch.setattr("saadi.critics.downstream._DENSE_PIXELS", 3 * 32 * 32)
    pieces = list(model.pieces(data.images))
    assert [len(logits) for _, logits in pieces] == [3, 3, 1]
    for rows, logits in pieces:
        np.testing.assert_allclose(logits, whole[rows], atol=1e-4)
    np.testing.assert_array_equal(model.answers(data.images), np.concatenate([one.argmax(1) for _, one in pieces]))
