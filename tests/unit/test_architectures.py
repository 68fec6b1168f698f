"""Names of models open, or say in one line why not."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn

from saadi.critics.architectures import architecture, penultimate
from saadi.critics.networks import SmallCNN, SmallUNet
from saadi.errors import BadInput
from saadi.foundation import backbone_path, foundation_folder


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a name stands for, nothing is fetched."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_small_cnn_embeds_means_and_peaks() -> None:
    net = architecture("small-cnn").build(3)
    assert isinstance(net, SmallCNN)
    assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert net.embed(torch.zeros(2, 3, 16, 16)).shape == (2, 144)


@pytest.mark.parametrize(("name", "dense"), [("pretext-cnn", False), ("pretext-unet", True)])
def test_pretext_networks_start_from_the_backbone_and_all_else_is_fresh(name: str, dense: bool) -> None:
    backbone = load_file(backbone_path(foundation_folder()))
    one, two = (architecture(name, dense=dense).build(2).state_dict() for _ in range(2))
    learnt = {key for key in one if key.startswith("features.")}
    assert {key for key in backbone if not key.startswith("head.")} == learnt
    for key, weights in one.items():
        if key in learnt:
            torch.testing.assert_close(weights, backbone[key])
        elif key.startswith("head."):
            assert weights.shape[0] == 2
            assert not torch.equal(weights, two[key])


@pytest.mark.parametrize("side", [32, 40, 64])
def test_small_unet_gives_logits_of_every_pixel(side: int) -> None:
    net = architecture("small-unet", dense=True).build(5)
    assert isinstance(net, SmallUNet)
    assert net(torch.zeros(2, 3, side, side)).shape == (2, 5, side, side)


def multiply_adds(net: nn.Module, side: int) -> int:
    """Of its convolutions and linear layers, on one image."""
    counted: list[int] = []
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda m, _, out: counted.append(out.numel() * m.weight[0].numel()))
    net.eval()(torch.zeros(1, 3, side, side))
    return sum(counted)


def test_small_networks_cost_what_they_say() -> None:
    assert 9.5e6 < multiply_adds(SmallCNN(9), 64) < 10.5e6
    assert 18.5e6 < multiply_adds(SmallUNet(9), 64) < 19.5e6


def test_small_unet_sees_far_and_near() -> None:
    """The logits of a pixel depend on its own neighbours and on pixels 16 away, through the coarser features."""
    net = SmallUNet(2).eval()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(net(x)[0, 0, 32, 32], x)
    touched = gradient[0].abs().amax(0) > 0
    assert touched[32, 32]
    assert touched[32, 16:49].all()


def test_unknown_timm_name_is_bad_input_with_a_suggestion() -> None:
    with pytest.raises(BadInput, match=r"^model test_resnt: unknown; did you mean .*test_resnet"):
        architecture("test_resnt")
    with pytest.raises(
        BadInput, match=r"unknown; expected small-cnn, pretext-cnn, a timm name, a folder or package.module:factory"
    ):
        architecture("zzzzzz")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("small-cnn", r"^model small-cnn: unknown; did you mean small-unet"),
        ("resnet18", r"^model resnet18: sees no masks; as an encoder it does: smp:Unet:resnet18"),
        ("test_vit", r"^model test_vit: sees no masks; as an encoder it does: smp:Unet:tu-test_vit"),
        ("unet", r"unknown; did you mean .*small-unet"),
        ("zzzzzz", r"expected small-unet, pretext-unet, smp:<architecture>:<encoder>, a folder or package.module:fact"),
        ("smp:UNet:resnet18", r"has no architecture 'UNet'; did you mean Unet, "),
        ("smp:Unet:resnt18", r"has no encoder 'resnt18'; did you mean resnet18, "),
        ("smp:Unet:tu-test_resnt", r"has no encoder 'tu-test_resnt'; did you mean tu-test_resnet"),
        ("smp:Unet", r"has no encoder ''; expected smp:<architecture>:<encoder>, such as smp:Unet:resnet18$"),
        ("smp:", r"has no architecture ''; expected smp:<architecture>:<encoder>"),
        ("no_such_package.module:make", r"cannot be imported .*expected package.module:factory"),
    ],
)
def test_unknown_segmenter_is_bad_input_with_a_suggestion(name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as refused:
        architecture(name, dense=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["small-unet", "smp:Unet:resnet18"])
def test_a_segmenter_is_no_classifier(name: str) -> None:
    with pytest.raises(BadInput, match=f"^model {name}: unknown"):
        architecture(name)


@pytest.mark.parametrize("name", ["smp:Unet:resnet18", "smp:FPN:tu-test_resnet", "smp:Segformer:mit_b0"])
def test_architectures_of_smp_open_by_name(name: str) -> None:
    made = architecture(name, dense=True)
    assert made.build(3).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert made.mean == architecture("small-cnn").mean


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


def test_a_checkpoint_sees_images_as_large_as_it_learnt_from(checkpoint: tuple[Path, nn.Module]) -> None:
    made = architecture(str(checkpoint[0]))
    assert made.side == 160  # of test_resnet's input_size
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    shown = made.prepared(images)
    assert shown.shape == (2, 3, 160, 160)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (made.mean, made.std))
    torch.testing.assert_close(made.prepared(torch.full((1, 3, 8, 8), 0.3))[..., :1, :1], (0.3 - mean) / std)
    (slope,) = torch.autograd.grad(shown.sum(), images)
    assert (slope > 0).all()  # every pixel is seen
    large = torch.rand(1, 3, 200, 200)
    torch.testing.assert_close(made.prepared(large), (large - mean) / std)
    assert architecture("small-cnn").prepared(images).shape == images.shape


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


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A folder as segmentation-models-pytorch itself saves it, of a model with a sigmoid and a second head."""
    folder = tmp_path_factory.mktemp("smp")
    model: nn.Module = smp.Unet(
        "resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(32, 16, 8), classes=5,
        activation="sigmoid", aux_params={"classes": 2},
    )  # fmt: skip
    nn.init.ones_(model.segmentation_head[0].bias)  # type: ignore[index,union-attr]
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder, model


@pytest.mark.parametrize("classes", [3, 5])
def test_smp_checkpoint_folder_opens_with_a_new_head_and_gives_logits(
    classes: int, segmenter: tuple[Path, nn.Module]
) -> None:
    folder, model = segmenter
    net = architecture(str(folder), dense=True).build(classes).eval()
    logits = net(torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (1, classes, 32, 32)
    assert logits.min() < 0  # not the sigmoid's probabilities
    saved, own = model.state_dict(), net.state_dict()
    changed = {name for name in own if not torch.equal(own[name], saved[name])}
    assert changed == {"segmentation_head.0.weight", "segmentation_head.0.bias"}
    assert {name.split(".")[0] for name in saved if name not in own} == {"classification_head"}


def test_a_checkpoint_of_another_task_or_library_is_refused(
    checkpoint: tuple[Path, nn.Module], segmenter: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"not a segmentation-models-pytorch checkpoint \(KeyError: '_model_class'\)"):
        architecture(str(checkpoint[0]), dense=True)
    with pytest.raises(BadInput, match="not a timm checkpoint"):
        architecture(str(segmenter[0]))
    folder = copied(segmenter[0], tmp_path)
    (folder / "config.json").write_text('{"_model_class": "create_model"}', encoding="utf-8")
    with pytest.raises(BadInput, match="'create_model', which segmentation-models-pytorch does not know"):
        architecture(str(folder), dense=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"expected segmentation-models-pytorch's config.json .*save_pretrained"):
        architecture(str(folder), dense=True)


def test_checkpoint_of_which_nothing_fits_is_bad_input(checkpoint: tuple[Path, nn.Module], tmp_path: Path) -> None:
    folder = copied(checkpoint[0], tmp_path)
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(BadInput, match="none of the weights fit test_resnet"):
        architecture(str(folder)).build(2)


@pytest.mark.parametrize("name", ["small-cnn", "test_resnet", "test_vit"])
def test_a_classifiers_logits_are_its_last_layer_of_what_it_says_that_sees(name: str) -> None:
    net = architecture(name).build(3).eval()
    side = 160 if name == "test_vit" else 32
    x = torch.randn(2, 3, side, side)
    last = net.head if isinstance(net, SmallCNN) else net.get_classifier()  # type: ignore[operator]
    torch.testing.assert_close(last(penultimate(net, x)), net(x))


def test_a_module_that_does_not_tell_what_its_last_layer_sees_is_bad_input() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(BadInput, match=r"^Sequential does not tell what its last layer sees; give it embed\(images\)"):
        penultimate(net, torch.zeros(1, 3, 2, 2))
