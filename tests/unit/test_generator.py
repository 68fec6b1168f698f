"""A generator on disk and at work: stock diffusers opens it and samples the same images; nothing unsafe is opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from numpy.typing import NDArray
from safetensors.torch import load_file

from saadi.config import SamplingConfig
from saadi.diffusion.drawing import at_once, draw, encode_images, solver, unet_passes
from saadi.diffusion.generator import Generator, build_tiny, encode_prompts, load_generator, save_generator
from saadi.diffusion.objective import epsilon_errors, error_weight
from saadi.diffusion.presets import LATENT_CHANNELS
from saadi.errors import BadInput

PROMPTS = ["a grasper", "a hook", "a grasper", "scissors"]
SEEDS = [11, 12, 13, 14]
CONFIG = SamplingConfig(steps=3, guidance=3.0, batch=2)


@pytest.fixture(scope="module")
def generator() -> Generator:
    """Random weights; the decoder's last layer is loud, so that images differ visibly."""
    torch.manual_seed(0)
    made = build_tiny()
    *_, weight, bias = made.vae.decoder.parameters()
    with torch.no_grad():
        weight.mul_(300)
        bias.fill_(0.5)
    return made


@pytest.fixture(scope="module")
def folder(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "saved"
    save_generator(generator, path)
    return path


def drawn(
    generator: Generator, prompts: Sequence[str], seeds: Sequence[int], config: SamplingConfig = CONFIG
) -> NDArray[np.int64]:
    embeddings = encode_prompts(generator, [*prompts, ""])
    return np.stack(list(draw(generator, embeddings[:-1], embeddings[-1:], seeds, config))).astype(np.int64)


def apart(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    return int(np.abs(a - b).max())


def test_errors_are_numbers_where_no_signal_is_left() -> None:
    """Zero terminal SNR (Lin et al., arXiv:2305.08891): v's error has to come back out of the noise's."""
    made = build_tiny()
    made.scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert made.scheduler.alphas_cumprod[-1] == 0
    x0, noise = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    last = torch.tensor([999])
    error = epsilon_errors(made.schedule, 0 * x0, x0, noise, last) * error_weight(made.schedule, last, "v")
    assert float(error) == pytest.approx(float(x0.square().sum()), rel=1e-2)  # there v is the image's negative


@pytest.mark.parametrize(("side", "most"), [(32, 64), (64, 64), (128, 16), (512, 1), (1024, 1)])
def test_the_larger_images_are_the_fewer_go_through_the_autoencoderat_once(side: int, most: int) -> None:
    assert at_once(side) == most


@pytest.mark.parametrize(("solver", "guidance"), [("dpm++", 3.0), ("ddim", 1.0)])
def test_stock_diffusers_samples_the_same_images(
    solver: Literal["dpm++", "ddim"], guidance: float, generator: Generator, folder: Path
) -> None:
    config = SamplingConfig(steps=3, guidance=guidance, batch=2, solver=solver)
    ours = drawn(generator, PROMPTS[:2], SEEDS[:2], config)
    pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    kind = DDIMScheduler if solver == "ddim" else DPMSolverMultistepScheduler
    pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    theirs = pipe(
        PROMPTS[:2],
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS[:2]],
    ).images
    assert ours.shape == (2, 64, 64, 3)
    assert ours.std() > 10
    assert apart(ours, np.stack([np.asarray(image) for image in theirs]).astype(np.int64)) <= 1


def test_a_folder_of_another_scheduler_is_not_clipped(folder: Path, tmp_path: Path) -> None:
    """Euler's configuration does not say `clip_sample`, and DDIM's own default would clip latents to -1 .. 1."""
    copied = Path(shutil.copytree(folder, tmp_path / "euler"))
    EulerDiscreteScheduler(beta_schedule="scaled_linear").save_pretrained(copied / "scheduler")
    index = json.loads((copied / "model_index.json").read_text(encoding="utf-8"))
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    (copied / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    made = load_generator(copied)
    assert not made.scheduler.config.clip_sample
    assert not solver(made, "ddim").config.clip_sample


def test_large_images_are_decoded_one_by_one(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = list[int]()
    with generator.vae.decoder.register_forward_pre_hook(lambda _, latents: decoded.append(len(latents[0]))):
        whole = drawn(generator, PROMPTS[:2], SEEDS[:2])
        monkeypatch.setattr("saadi.diffusion.drawing.PIXELS", 64**2)
        assert apart(drawn(generator, PROMPTS[:2], SEEDS[:2]), whole) <= 1
    generator.vae.disable_slicing()
    assert decoded == [2, 1, 1]


def test_reopened_generator_draws_the_same_images(generator: Generator, folder: Path) -> None:
    assert apart(drawn(load_generator(folder), PROMPTS[:2], SEEDS[:2]), drawn(generator, PROMPTS[:2], SEEDS[:2])) <= 1


def test_an_image_depends_on_its_own_seed_and_prompt_not_on_its_neighbours(generator: Generator) -> None:
    order = [2, 0, 3, 1]
    one = drawn(generator, PROMPTS, SEEDS)
    two = drawn(generator, [PROMPTS[i] for i in order], [SEEDS[i] for i in order])
    assert apart(one[order], two) <= 1
    assert apart(one[0], one[2]) > 10  # the same prompt with another seed
    other_prompt = drawn(generator, ["scissors", "a hook"], SEEDS[:2])
    assert apart(one[0], other_prompt[0]) > 1
    assert apart(one[1], other_prompt[1]) <= 1


def test_the_last_micro_batch_may_be_smaller(generator: Generator) -> None:
    three = drawn(generator, PROMPTS[:3], SEEDS[:3])
    assert apart(three, drawn(generator, PROMPTS, SEEDS)[:3]) <= 1


def test_cost_counts_both_passes_of_guidance() -> None:
    assert unet_passes(5, SamplingConfig(steps=3, guidance=1.0)) == 15
    assert unet_passes(5, SamplingConfig(steps=3, guidance=1.5)) == 30


def test_encoded_images_are_the_autoencoders_latents_times_its_scale(generator: Generator) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    latents = encode_images(generator, images)
    with torch.no_grad():
        x = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
        expected = generator.vae.encode(x).latents * generator.vae.config.scaling_factor
    assert latents.shape == (3, LATENT_CHANNELS, 16, 16)
    assert not latents.requires_grad
    torch.testing.assert_close(latents, expected)


@pytest.mark.parametrize(
    ("part", "name"),
    [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")],
)
def test_pickled_weights_are_refused(part: str, name: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    safe = copy / part / f"{name}.safetensors"
    torch.save(load_file(safe), copy / part / f"{'pytorch_model' if name == 'model' else name}.bin")
    load_generator(copy)  # beside safe weights it lies unread
    safe.unlink()
    with pytest.raises(BadInput, match="cannot be opened as a Stable Diffusion pipeline") as refused:
        load_generator(copy)
    assert "\n" not in str(refused.value)


def test_other_folders_are_bad_input(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not a Stable Diffusion folder \(no model_index.json\)"):
        load_generator(tmp_path)
    with pytest.raises(BadInput, match="not a Stable Diffusion folder"):
        load_generator(tmp_path / "missing")
    index = tmp_path / "model_index.json"
    for text in ("{ not json", json.dumps({"_class_name": "StableDiffusionPipeline"})):
        index.write_text(text, encoding="utf-8")
        with pytest.raises(BadInput, match="cannot be opened") as refused:
            load_generator(tmp_path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_with_a_part_missing_is_bad_input(part: str, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / part)
    with pytest.raises(BadInput, match="cannot be opened"):
        load_generator(copy)


def test_a_truncated_weight_file_is_bad_input(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BadInput, match="cannot be opened"):
        load_generator(copy)
