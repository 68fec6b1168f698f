"""The adapter on disk and in stock diffusers, and a whole alignment with its log."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file
from small_diffusion import CONFIG, HELD_OUT, LENGTH, SHAPE, TRAIN, WIDTH, normal, small_generator, stir
from torch import Tensor, nn

from saadi.alignment.train import WATCH_EVERY, align
from saadi.diffusion.generator import Generator, load_generator, save_generator
from saadi.diffusion.lora import NAME, add_adapter, apply_adapter, save_adapter


@dataclass(frozen=True)
class Aligned:
    """A base on disk, the UNet trained from it with its adapter still on, the adapter's folder and the log."""

    base: Path
    unet: UNet2DConditionModel
    folder: Path
    rows: list[dict[str, float]]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def aligned(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    folder = tmp_path_factory.mktemp("aligned")
    save_generator(generator, folder / "base")
    unet = deepcopy(generator.unet)
    rows, reason = align(unet, unet, generator.schedule, TRAIN, HELD_OUT, CONFIG, seed=1)
    assert reason == "all steps done"
    save_adapter(unet, folder / "adapter")
    return Aligned(folder / "base", unet, folder / "adapter", rows)


def image(pipe: StableDiffusionPipeline) -> NDArray[np.float32]:
    pipe.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(3)
    out: NDArray[np.float32] = pipe(
        "a hook", num_inference_steps=2, guidance_scale=2.0, generator=rng, output_type="np"
    ).images
    return out


def open_pipe(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)


def velocity(unet: nn.Module) -> Tensor:
    with torch.no_grad():
        x, t = normal(2, *SHAPE, seed=4), torch.tensor([100, 900])
        out: Tensor = unet(x, t, normal(2, LENGTH, WIDTH, seed=5)).sample
    return out


def without_seconds(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_trained_reloaded_by_stock_and_fused_give_one_image(aligned: Aligned) -> None:
    trained = load_generator(aligned.base)
    plain = image(trained.pipeline())
    trained.unet = aligned.unet
    expected = image(trained.pipeline())
    assert np.abs(expected - plain).max() > 1e-2
    stock = open_pipe(aligned.base)
    stock.load_lora_weights(aligned.folder)
    np.testing.assert_allclose(image(stock), expected, rtol=0, atol=1e-4)
    fused = open_pipe(aligned.base)
    apply_adapter(fused, aligned.folder)
    assert not hasattr(fused.unet, "peft_config") or not fused.unet.peft_config
    np.testing.assert_allclose(image(fused), expected, rtol=0, atol=1e-4)


def test_alpha_is_saved_and_kept_where_it_is_not_the_rank(generator: Generator, tmp_path: Path) -> None:
    unet = deepcopy(generator.unet).requires_grad_(False)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=7, target_modules=["to_q", "conv1"]), adapter_name=NAME)
    stir(unet, 1)
    save_adapter(unet, tmp_path)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as handle:
        assert "lora_alpha" in str(handle.metadata())
    pipe = deepcopy(generator).pipeline()
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(velocity(pipe.unet), velocity(unet), rtol=1e-5, atol=1e-5)
    apply_adapter(fused := deepcopy(generator).pipeline(), tmp_path)
    torch.testing.assert_close(velocity(fused.unet), velocity(unet), rtol=1e-4, atol=1e-4)


def test_adapters_of_two_rounds_add_up(generator: Generator, tmp_path: Path) -> None:
    for seed in (1, 2):
        unet = deepcopy(generator.unet)
        add_adapter(unet, 2, seed)
        stir(unet, seed)
        save_adapter(unet, tmp_path / str(seed))
    base = dict(generator.unet.named_parameters())
    weights = {}
    for rounds in ("1", "2", "12", "21"):
        pipe = deepcopy(generator).pipeline()
        for one in rounds:
            apply_adapter(pipe, tmp_path / one)
        weights[rounds] = dict(pipe.unet.named_parameters())
    moved = 0.0
    for name, start in base.items():
        both = weights["1"][name] + weights["2"][name] - start
        torch.testing.assert_close(weights["12"][name], both, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(weights["21"][name], both, rtol=1e-4, atol=1e-5)
        moved = max(moved, float((both - start).detach().abs().max()))
    assert moved > 0.05


def test_adapter_off_is_the_model_before_to_the_bit(aligned: Aligned) -> None:
    base = load_generator(aligned.base).unet
    unet = deepcopy(aligned.unet)
    assert not torch.equal(velocity(unet), velocity(base))
    unet.disable_adapters()
    assert torch.equal(velocity(unet), velocity(base))


def test_only_the_adapter_learns(aligned: Aligned) -> None:
    learnt = {name for name, p in aligned.unet.named_parameters() if p.requires_grad}
    assert learnt
    assert all("lora" in name for name in learnt)
    fresh = load_generator(aligned.base).unet
    for name, p in fresh.named_parameters():
        now = aligned.unet.get_submodule(name.rpartition(".")[0])
        kept = getattr(getattr(now, "base_layer", now), name.rpartition(".")[2])
        assert torch.equal(kept, p), name


def test_resumed_mid_way_equals_undisturbed(aligned: Aligned, tmp_path: Path) -> None:
    """The reference is the one the run began with, not the half-trained model of the checkpoint."""

    def kill(done: int, total: int) -> None:
        if done == WATCH_EVERY + 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "checkpoint.safetensors"
    for progress in (kill, None):
        generator = load_generator(aligned.base)
        unet = generator.unet
        try:
            rows, _ = align(
                unet, unet, generator.schedule, TRAIN, HELD_OUT, CONFIG, 1, checkpoint=checkpoint, progress=progress
            )
        except KeyboardInterrupt:
            assert checkpoint.exists()
    assert without_seconds(rows) == without_seconds(aligned.rows)
    for one, two in zip(unet.parameters(), aligned.unet.parameters(), strict=True):
        assert torch.equal(one, two)


def test_winners_and_losers_change_are_logged_apart(aligned: Aligned) -> None:
    assert [row["step"] for row in aligned.rows] == [10, 14]
    for row in aligned.rows:
        assert {"loss", "pair_accuracy", "winner_change", "loser_change", "logit"} <= set(row)
        assert 0 <= row["pair_accuracy"] <= 1


def test_a_pickled_adapter_is_refused(aligned: Aligned, tmp_path: Path) -> None:
    torch.save(load_file(aligned.folder / "pytorch_lora_weights.safetensors"), tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(OSError, match="safetensors"):
        apply_adapter(open_pipe(aligned.base), tmp_path)
