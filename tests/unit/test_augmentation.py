"""How training images are varied, as functions of a batch: repeatable, in range, labels and maps in step with them."""

from __future__ import annotations

import pytest
import torch

from saadi.config import ClassifierConfig, EvaluationConfig
from saadi.critics.augmentation import AUGMENTATIONS, augment, mix
from saadi.evaluation.arms import real_arms


def _images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def _drawing(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["full", "randaugment"])
def test_augmentation_is_repeatable_keeps_range_and_leaves_torchs_own_state(name: str) -> None:
    x, before = _images(8), torch.get_rng_state()
    one, two = (AUGMENTATIONS[name](x, _drawing(1), None)[0] for _ in range(2))
    other = AUGMENTATIONS[name](x, _drawing(2), None)[0]
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == x.shape
    assert one.dtype == torch.float32
    assert 0 <= float(one.min()) <= float(one.max()) <= 1
    assert torch.equal(torch.get_rng_state(), before)


def test_full_augmentation_changes_every_image_and_randaugment_most() -> None:
    x = _images(16)
    changed = {
        name: sum(
            not torch.allclose(a, b, atol=0.05) and not torch.allclose(a, b.flip(-1), atol=0.05)
            for a, b in zip(AUGMENTATIONS[name](x, _drawing(1), None)[0], x, strict=True)
        )
        for name in ("full", "randaugment")
    }
    assert changed["full"] == 16
    assert changed["randaugment"] >= 8


def test_randaugment_moves_no_maps() -> None:
    with pytest.raises(ValueError, match="does not move maps"):
        AUGMENTATIONS["randaugment"](_images(2), _drawing(0), torch.zeros(2, 16, 16, dtype=torch.uint8))


def test_mirroring_turns_about_half_of_the_images_and_their_maps_alike() -> None:
    x = _images(64)
    maps = (255 * x[:, 0]).to(torch.uint8)
    seen, moved = AUGMENTATIONS["mirror"](x, _drawing(1), maps)
    turned = (seen != x).flatten(1).any(1)
    assert 16 < int(turned.sum()) < 48
    assert torch.equal(seen, torch.where(turned[:, None, None, None], x.flip(-1), x))
    assert moved is not None
    assert torch.equal(moved, (255 * seen[:, 0]).to(torch.uint8))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_as_the_images_are(kind: str) -> None:
    """Images as bright as their label: a mixed one is, on average, as bright as its share of class 1."""
    labels = torch.tensor([0, 1] * 8)
    x = labels[:, None, None, None].float().expand(-1, 3, 16, 16).clone()
    shares = []
    for seed in range(8):
        mixed, told = mix(kind, x, labels, 2, _drawing(seed))
        assert told.shape == (16, 2)
        assert torch.allclose(told.sum(1), torch.ones(16))
        assert torch.allclose(mixed.mean((1, 2, 3)), told[:, 1], atol=1e-6)
        assert torch.equal(mix(kind, x, labels, 2, _drawing(seed))[0], mixed)
        shares.append(told)
    assert 0 < float(torch.stack(shares)[..., 1].std()) < 1
    assert any(((one > 0.01) & (one < 0.99)).any() for one in shares)


def test_augmentation_moves_a_map_along_and_draws_nothing_more_for_it() -> None:
    x = _images(6)
    maps = (torch.rand(6, 16, 16, generator=_drawing(3)) * 3).to(torch.uint8)
    alone, none = augment(x, _drawing(2))
    beside, moved = augment(x, _drawing(2), maps)
    assert none is None
    assert torch.equal(alone, beside)
    assert moved is not None
    assert {*moved.flatten().tolist()} <= {*maps.flatten().tolist()}
    assert not torch.equal(moved, maps)


def test_real_images_alone_are_augmented_in_full_where_the_arms_are_not() -> None:
    plain, mirrored = (EvaluationConfig(classifier=ClassifierConfig(augment=how)) for how in ("full", "mirror"))
    assert [arm.name for arm in real_arms(plain, dense=False)] == ["real", "real-pretrained"]
    arms = {arm.name: arm.recipe for arm in real_arms(mirrored, dense=False)}
    assert arms == {"real": {}, "real-augmented": {"augment": "full"}, "real-pretrained": {"model": "pretext-cnn"}}
    pretrained = real_arms(EvaluationConfig(classifier=ClassifierConfig(model="pretext-unet")), dense=True)
    assert [arm.name for arm in pretrained] == ["real", "real-scratch"]
    other = ClassifierConfig(model="resnet18", steps=7)
    rivalled = EvaluationConfig(rivals=("randaugment", "mixup", "cutmix"), strong=other)
    strong = {arm.name: arm.recipe for arm in real_arms(rivalled, dense=False)}
    assert strong["real-randaugment"] == {"augment": "randaugment"}
    assert EvaluationConfig().classifier.model_copy(update=strong["real-strong"]) == other
    assert (strong["real-mixup"], strong["real-cutmix"]) == ({"mix": "mixup"}, {"mix": "cutmix"})
