"""Downstream models: training is repeatable, paired between arms, and learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.config import ClassifierConfig
from saadi.critics.classifier import Labelled, augment, restore, train_classifier

SHORT = ClassifierConfig(steps=3, batch=8)


def easy(count: int, seed: int) -> Labelled:
    """Reddish against bluish noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(60, 120, (count, 16, 16, 3))
    images[np.arange(count), :, :, 2 * labels] += 80
    return Labelled(images.astype(np.uint8), labels)


def test_learns_what_is_easily_told_apart() -> None:
    model = train_classifier(ClassifierConfig(steps=40, batch=16), easy(64, 0), 2, seed=1)
    test = easy(200, 1)
    assert not model.net.training
    assert (model.logits(test.images).argmax(1) == test.labels).mean() > 0.95


def test_one_seed_gives_one_model_to_the_bit() -> None:
    real = easy(20, 0)
    logits = []
    for seed in (1, 1, 2):
        torch.randn(5)
        logits.append(train_classifier(SHORT, real, 2, seed).logits(real.images))
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-3


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_arms_of_one_seed_see_the_same_real_images_in_the_same_order(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []

    def spy(x: Tensor, generator: torch.Generator) -> Tensor:
        batches.append((255 * x[:, 0, 0, 0]).round().int().tolist())
        return x

    def flat(values: NDArray[np.int64]) -> Labelled:
        """Each image is of one grey value, by which it is known."""
        return Labelled(np.tile(values.astype(np.uint8).reshape(-1, 1, 1, 1), (1, 16, 16, 3)), values % 2)

    monkeypatch.setattr("saadi.critics.classifier.augment", spy)
    real, synthetic = flat(np.arange(50)), flat(np.arange(200, 250))
    train_classifier(SHORT, real, 2, seed=4)
    alone = batches.copy()
    batches.clear()
    train_classifier(SHORT, real, 2, seed=4, synthetic=synthetic, share=share)
    kept = 8 - round(8 * share)
    assert len(alone) == len(batches) == 3
    for without, mixed in zip(alone, batches, strict=True):
        assert len(without) == len(mixed) == 8
        assert mixed[:kept] == without[:kept]
        assert min(mixed[kept:]) >= 200
        assert max(without) < 50
    assert len({tuple(batch) for batch in alone}) == 3


def test_restored_classifier_gives_the_same_logits() -> None:
    real = easy(20, 0)
    model = train_classifier(SHORT, real, 2, seed=1)
    again = restore(SHORT, model.net.state_dict(), 2, 2.0, torch.device("cpu"))
    np.testing.assert_array_equal(again.logits(real.images), model.logits(real.images) / 2)


def test_augmentation_is_repeatable_keeps_range_and_changes_each_image() -> None:
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    one, two = (augment(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == x.shape
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert all(not torch.allclose(a, b, atol=0.05) for a, b in zip(one, x, strict=True))
