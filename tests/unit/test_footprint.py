"""Memory and arithmetic, told from shapes, beside what autograd really keeps and what torch really counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from small_stable import FORMS, build_stable, save_stable
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from saadi.config import RunConfig
from saadi.configfile import parse_config
from saadi.diffusion import presets
from saadi.diffusion.footprint import decoding_flops, encoded_bytes, footprint, read_footprint
from saadi.diffusion.lora import add_adapter
from saadi.plan import _seconds_per_pass, disk_bytes, flops_a_second


def really_kept(unet: UNet2DConditionModel, side: int, tokens: int) -> int:
    """Bytes that autograd keeps for a backward pass of one image, parameters apart."""
    own = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    kind = unet.conv_in.weight.dtype
    x = torch.randn(1, unet.config.in_channels, side, side, dtype=kind)
    words = torch.randn(1, tokens, unet.config.cross_attention_dim, dtype=kind)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = unet(x, torch.tensor([500]), words).sample
        total = sum(kept.values())
        del out
    return total


@pytest.mark.parametrize("form", ["tiny", *FORMS])
def test_what_is_kept_is_what_autograd_keeps_to_a_quarter(form: str) -> None:
    unet = (presets.build_unet() if form == "tiny" else build_stable(form).unet).train()
    side, cell, tokens = (16, 4, presets.PROMPT_TOKENS) if form == "tiny" else (32, 8, 77)
    told = footprint(unet.config, side * cell, cell, tokens)
    assert 4 * told.kept == pytest.approx(really_kept(unet, side, tokens), rel=0.25)
    unet.to(torch.bfloat16)
    add_adapter(unet, 4, seed=0)
    estimate = told.image(2, adapted=True, checkpointing=False)
    assert estimate == pytest.approx(really_kept(unet, side, tokens), rel=0.35)
    unet.enable_gradient_checkpointing()
    least = told.image(2, adapted=True, checkpointing=True)
    assert really_kept(unet, side, tokens) < least < estimate


def test_weights_adapter_and_arithmetic_are_counted() -> None:
    unet = build_stable("sd-1.5").unet
    told = footprint(unet.config, 64, 8, 77)
    assert told.weights == sum(p.numel() for p in unet.parameters())
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # torch does not count the fused one on a CPU
        unet(torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 77, 32))
    assert told.flops == pytest.approx(counter.get_total_flops(), rel=0.02)
    add_adapter(unet, 3, seed=0)
    assert 3 * told.adapter == sum(p.numel() for p in unet.parameters() if p.requires_grad)


def test_an_adapter_checkpointing_and_eight_bits_each_take_less() -> None:
    told = footprint(build_stable("sd-1.5").unet.config, 64, 8, 77)
    full = told.training(8, rank=0, bytes_each=4)
    assert full == told.weights * (16 + 4) + 8 * told.kept * 4
    assert told.training(1, rank=0, bytes_each=2) == told.weights * (16 + 4 + 2) + told.kept * 2
    assert told.training(8, rank=0, bytes_each=4, eight_bit=True) == full - 6 * told.weights
    adapter = told.training(8, rank=4, bytes_each=2)
    assert adapter == 2 * told.weights + 16 * 4 * told.adapter + 8 * (2 * told.kept + 4 * told.adapted)
    assert told.training(8, rank=4, bytes_each=2, checkpointing=True) < adapter


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_is_read_without_its_weights(form: str, tmp_path: Path) -> None:
    folder = save_stable(form, tmp_path / form)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    assert read_footprint(folder, 64) == footprint(build_stable(form).unet.config, 64, 8, 77)
    channels = 4 + 5 * form.endswith("inpainting") + 1  # latents, what an inpainting network is told, a weight
    assert encoded_bytes(folder, 64) == 4 * channels * 8 * 8


@pytest.mark.parametrize("form", FORMS)
def test_the_flops_of_decoding_are_what_the_autoencoder_takes(form: str, tmp_path: Path) -> None:
    vae, folder = build_stable(form).vae, save_stable(form, tmp_path / form)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        vae.decode(torch.randn(1, 4, 8, 8))
    assert decoding_flops(folder, 64) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_time_is_told_without_weights_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_stable("sd-1.5", tmp_path / "start")
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    monkeypatch.setattr("saadi.plan.flops_a_second", lambda config: 1e6)
    flops = footprint(build_stable("sd-1.5").unet.config, 64, 8, 77).flops
    values = {"base": {"model": str(folder)}, "compute": {"checkpointing": True}}
    config = parse_config(values, "a test")
    assert _seconds_per_pass(config, training=False) == pytest.approx(flops / 1e6)
    assert _seconds_per_pass(config, training=True) == pytest.approx(4 * flops / 1e6)  # forward, backward, and anew


def test_a_machines_speed_is_that_of_a_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 12.0])
    monkeypatch.setattr("saadi.plan.time.perf_counter", lambda: next(moments))
    with FlopCounterMode(display=False) as counter:
        speed = flops_a_second(RunConfig(device="cpu"))
    assert speed == pytest.approx(counter.get_total_flops() * 4 / 5 / 2)  # the first of five is not timed


def test_the_plan_counts_the_weights_that_are_opened(tmp_path: Path) -> None:
    """Not a half-precision variant beside them, a safety checker, nor the whole model in a single file."""
    folder = save_stable("sd-1.5", tmp_path / "start")
    configs = [parse_config({"base": {"model": str(folder), "tune": tune}}, "a test") for tune in ("lora", "full")]
    lora, full = (disk_bytes(config, 10, 2) for config in configs)
    parts = build_stable("sd-1.5")
    weights = sum(p.numel() for part in (parts.unet, parts.vae, parts.text_encoder) for p in part.parameters())
    assert full - lora == pytest.approx(4 * 8 * weights, rel=0.1)
    for name in ("unet/model.fp16.safetensors", "safety_checker/model.safetensors", "all.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "unet/diffusion_pytorch_model.safetensors", folder / name)
    assert disk_bytes(configs[0], 10, 2) == lora
