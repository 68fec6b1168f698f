"""The inpainting form: nine channels that the stock pipeline knows, a mask that is asked for, pixels that stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel
from small_diffusion import small_generator

from saadi.config import SamplingConfig
from saadi.diffusion.drawing import Canvas, draw, encode_images, to_clean
from saadi.diffusion.generator import Generator, build_tiny, encode_prompts, load_generator, save_generator
from saadi.foundation import foundation_folder
from saadi.foundation.autoencoder import linear_encoder, psnr, to_signed
from saadi.foundation.inpainting import inherit, scene_layout
from saadi.seeds import numpy_rng

SIZE, COUNT = 16, 3
SAMPLING = SamplingConfig(steps=2, batch=2)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator(inpainting=True)


def canvas() -> Canvas:
    rng = numpy_rng("frames")
    images = rng.integers(0, 256, (COUNT, SIZE, SIZE, 3)).astype(np.uint8)
    objects, regions = np.zeros((2, COUNT, SIZE, SIZE), bool)
    objects[:, 5:7, 6:12] = True
    regions[:, 4:12, 4:16] = True
    return Canvas(images, objects, regions, np.where(objects, 1, regions * 0.5).astype(np.float32))


def images_of(
    generator: Generator, frames: Canvas, seeds: list[int]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    embedding, blank = encode_prompts(generator, ["a hook", ""])[:, None]
    return np.stack(list(draw(generator, embedding.expand(len(seeds), -1, -1), blank, seeds, SAMPLING, frames)))


def test_pixels_outside_the_region_come_back_as_they_were(generator: Generator) -> None:
    frames = canvas()
    made = images_of(generator, frames, [1, 2, 3])
    assert np.array_equal(made[~frames.regions], frames.images[~frames.regions])
    assert (made[frames.objects] != frames.images[frames.objects]).mean() > 0.9
    again = images_of(generator, frames.take(slice(2, 3)), [3])
    assert np.abs(again[0].astype(int) - made[2]).max() <= 1  # of its own seed, whatever was drawn beside it


def test_what_is_blank_is_not_seen_and_the_mask_is_the_object_in_whole_cells(generator: Generator) -> None:
    frames = canvas()
    clean = to_clean(generator, frames.images, frames.objects, frames.regions, outside=0.25)
    assert clean.given.shape == (COUNT, 5, 4, 4)
    cells = torch.zeros(4, 4)
    cells[1, 1:3] = 1  # rows 5 and 6 lie in the second row of cells, columns 6 to 11 in the second and third
    assert torch.equal(clean.given[0, 0], cells)
    region = torch.zeros(4, 4)
    region[1:3, 1:4] = 1
    assert torch.equal(clean.weight[0, 0], 0.25 + 0.75 * region)
    other = frames.images.copy()
    other[frames.regions] = 7
    unseen = to_clean(generator, other, frames.objects, frames.regions, outside=0.25)
    assert torch.equal(unseen.given, clean.given)
    assert not torch.equal(unseen.latents, clean.latents)
    assert torch.equal(clean.latents, encode_images(generator, frames.images))


def test_the_stock_pipeline_opens_the_tiny_twin_and_samples_from_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_generator(build_tiny(inpainting=True), tmp_path)
    assert load_generator(tmp_path).inpaints
    pipe = StableDiffusionInpaintPipeline.from_pretrained(
        tmp_path, use_safetensors=True, local_files_only=True, safety_checker=None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    image, mask = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., 20:40, 20:40] = 1
    made = pipe("a hook", image=image, mask_image=mask, num_inference_steps=2, output_type="np").images
    assert made.shape == (1, 64, 64, 3)
    assert np.isfinite(made).all()


@pytest.mark.parametrize(("cell", "channels"), [(2, 12), (4, 48)])
def test_all_principal_components_of_a_patch_are_the_patch(cell: int, channels: int) -> None:
    """An orthogonal change of basis, scaled by channel: the pixels come back by its inverse."""
    images = to_signed(numpy_rng("pixels").integers(0, 256, (8, 16, 16, 3)).astype(np.uint8))
    encoder = linear_encoder(images, channels, 2.0, cell=cell)
    with torch.no_grad():
        latents = encoder(images).permute(0, 2, 3, 1).reshape(-1, channels)
        patches = torch.nn.functional.unfold(images, cell, stride=cell).transpose(1, 2).reshape(-1, channels)
        known = torch.cat([latents, torch.ones(len(latents), 1)], 1)
        back = known @ torch.linalg.lstsq(known.double(), patches.double()).solution.float()
    assert psnr(back, patches) > 60


def test_inner_levels_start_from_text_to_image_and_hear_the_timestep_alike() -> None:
    older, unet = load_generator(foundation_folder()).unet, build_tiny(inpainting=True).unet
    assert inherit(unet, older) > 240
    assert torch.equal(unet.mid_block.resnets[0].conv1.weight, older.mid_block.resnets[0].conv1.weight)
    assert torch.equal(unet.down_blocks[3].resnets[0].conv1.weight, older.down_blocks[2].resnets[0].conv1.weight)

    def heard(net: UNet2DConditionModel) -> torch.Tensor:
        t = torch.arange(0, 1000, 7)
        with torch.no_grad():
            return torch.as_tensor(net.time_embedding(net.time_proj(t)))

    ours, theirs = heard(unet), heard(older)
    assert float((ours - theirs).square().mean() / theirs.var()) < 0.03
    assert float(unet.time_embedding.linear_1.weight.detach().abs().max()) < 5  # or decay puts it out of tune


def test_a_scene_asks_for_its_tool_its_tip_or_nothing() -> None:
    tool = np.zeros((64, 64), np.uint8)
    tool[30:34, :30], tool[28:36, 30:44] = 1, 2
    seen = [scene_layout(tool, index) for index in range(200)]
    empty = [not wanted.any() for wanted, _, _ in seen]
    tips = [bool(wanted.any()) and not wanted[31, 5] for wanted, _, _ in seen]
    assert 8 <= sum(empty) <= 40
    assert 40 <= sum(tips) <= 90
    assert [not named for _, _, named in seen] == empty
    assert all(region.any() and not (wanted & ~region).any() for wanted, region, _ in seen)
