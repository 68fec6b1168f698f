"""Downstream models: training is repeatable, paired between arms, and learns; names of models open or say why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor, nn

from saadi.config import ClassifierConfig
from saadi.critics.classifier import Labelled, augment, restore, train_classifier
from saadi.critics.networks import SmallCNN, architecture
from saadi.errors import BadInput
from saadi.foundation import backbone_path, foundation_folder

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


def test_the_pretext_cnn_starts_from_the_backbone_with_a_fresh_head() -> None:
    backbone = load_file(backbone_path(foundation_folder()))
    frozen = ClassifierConfig(model="pretext-cnn", steps=1, batch=4, lr=1e-12, weight_decay=0.0)
    own = train_classifier(frozen, easy(8, 0), 2, seed=1).net.state_dict()
    torch.testing.assert_close(own["features.0.weight"], backbone["features.0.weight"])
    assert own["head.weight"].shape == (2, 144)


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


# Models by name


def test_small_cnn_embeds_means_and_peaks() -> None:
    net = architecture("small-cnn").build(3)
    assert isinstance(net, SmallCNN)
    assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert net.embed(torch.zeros(2, 3, 16, 16)).shape == (2, 144)


def test_unknown_timm_name_is_bad_input_with_a_suggestion() -> None:
    with pytest.raises(BadInput, match=r"^model test_resnt: unknown; did you mean .*test_resnet"):
        architecture("test_resnt")
    with pytest.raises(
        BadInput, match=r"unknown; expected small-cnn, pretext-cnn, a timm name, a folder or package.module:factory"
    ):
        architecture("zzzzzz")


@pytest.mark.parametrize("name", ["no_such_package.module:make", "saadi.errors:make", ":make", ".errors:make", "os:"])
def test_factory_that_cannot_be_imported_is_bad_input(name: str) -> None:
    with pytest.raises(BadInput, match=r"cannot be imported .*expected package.module:factory"):
        architecture(name)


def test_factory_with_its_own_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
from torch import nn

class Net(nn.Sequential):
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)

def make(classes):
    return Net(nn.Flatten(), nn.LazyLinear(classes))

def plain(classes):
    return nn.Linear(3, classes)

def wrong(classes):
    return {"classes": classes}
"""
    (tmp_path / "surgeons_model.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    made = architecture("surgeons_model:make")
    assert (made.mean, made.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert made.build(5)(torch.zeros(1, 3, 2, 2)).shape == (1, 5)
    assert architecture("surgeons_model:plain").mean == architecture("small-cnn").mean
    with pytest.raises(BadInput, match=r"the factory returned dict, not a torch.nn.Module"):
        architecture("surgeons_model:wrong")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder as timm itself saves it."""
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    nn.init.ones_(model.get_classifier().bias)  # as if it had learnt
    save_for_hf(model, folder, safe_serialization=True)
    return folder, model


@pytest.mark.parametrize("classes", [3, 7])  # the checkpoint has 7, which may be others
def test_timm_checkpoint_folder_opens_with_a_new_head(classes: int, checkpoint: tuple[Path, nn.Module]) -> None:
    folder, model = checkpoint
    made = architecture(str(folder))
    net = made.build(classes).eval()
    assert net(torch.zeros(1, 3, 32, 32)).shape == (1, classes)
    saved, own = model.state_dict(), net.state_dict()
    changed = {name for name in saved if not torch.equal(own[name], saved[name])}  # shapes, too
    assert changed == {"fc.weight", "fc.bias"}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert made.mean == tuple(config["pretrained_cfg"]["mean"])


def test_both_heads_of_a_distilled_checkpoint_are_new(tmp_path: Path) -> None:
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, pretrained=False, num_classes=2)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    save_for_hf(model, tmp_path, model_args={"img_size": 32}, safe_serialization=True)
    own = architecture(str(tmp_path)).build(2).state_dict()
    heads = {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"}
    assert {name for name, weights in own.items() if not (weights == 1).all()} == heads


def copied(checkpoint: Path, folder: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    return folder


def test_checkpoint_without_safetensors_is_refused(checkpoint: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder = copied(checkpoint[0], tmp_path)
    torch.save(checkpoint[1].state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"expected timm's config.json and model.safetensors .*no pickles"):
        architecture(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", b"{", "not a timm checkpoint"),
        ("config.json", b"[]", "not a timm checkpoint"),
        ("config.json", b"{}", "not a timm checkpoint"),
        ("config.json", b'{"architecture": "nothing"}', "'nothing', which timm does not know"),
        ("model.safetensors", b"truncated", "not a timm checkpoint"),
    ],
)
def test_broken_checkpoint_is_bad_input(
    name: str, content: bytes, says: str, checkpoint: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    folder = copied(checkpoint[0], tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=says) as refused:
        architecture(str(folder))
    assert "\n" not in str(refused.value)


def test_checkpoint_of_which_nothing_fits_is_bad_input(checkpoint: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder = copied(checkpoint[0], tmp_path)
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(BadInput, match="none of the weights fit test_resnet"):
        architecture(str(folder)).build(2)
