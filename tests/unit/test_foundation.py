"""The shipped foundation: what it is, where it came from, and that its autoencoder passes the gate."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from saadi.diffusion.drawing import encode_images
from saadi.diffusion.generator import build_tiny, encode_prompts, load_generator
from saadi.diffusion.presets import (
    LATENT_CHANNELS,
    STEEL_CHANNELS,
    build_autoencoder,
    build_finder,
)
from saadi.features import load_embedder
from saadi.foundation import foundation_folder
from saadi.foundation.autoencoder import (
    linear_encoder,
    pca_psnr,
    principal_components,
    psnr,
    reconstruct,
    side_by_side,
    steel,
    to_signed,
)
from saadi.foundation.pool import pretext_tools
from saadi.foundation.pretrain import latents_of
from saadi.worlds.phantom import DIFFICULTY, INSTRUMENTS
from saadi.worlds.pretext import pretext_prompt, world_hash
from saadi.worlds.scene import draw_look, render

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    rng = np.random.default_rng(11)
    tools = [*pretext_tools()[:8], *INSTRUMENTS]
    return np.stack([render(tools[i % 16], draw_look(rng), rng, 64, DIFFICULTY).image for i in range(192)])


def test_both_forms_together_are_small() -> None:
    folders = [foundation_folder(inpainting=inpainting) for inpainting in (False, True)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25 * MEGABYTE


@pytest.mark.parametrize("inpainting", [False, True])
def test_it_says_where_it_came_from(inpainting: bool) -> None:
    folder = foundation_folder(inpainting=inpainting)
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["world"] == world_hash(pretext_tools())
    assert provenance["passes"] > 0
    # Else a sitting that goes on from it would begin a new autoencoder.
    assert provenance["latents"] == latents_of(build_tiny(inpainting=inpainting))
    assert provenance["decoder"]["psnr"] > provenance["decoder"]["pca_psnr"]
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.pt"))


def test_the_prompt_reaches_the_image() -> None:
    """Version 1's text encoder had made all prompts one: its UNet's answer differed by a millionth between names."""
    generator = load_generator(foundation_folder())
    prompts = [pretext_prompt(tool) for tool in pretext_tools()[:8]]
    prompts += [f"a laparoscopic image of a {tool.name}" for tool in INSTRUMENTS]
    embeddings = encode_prompts(generator, prompts)
    apart = torch.pdist(embeddings.flatten(1)) / embeddings.flatten(1).norm(dim=1).mean()
    assert float(apart.min()) > 0.05
    noise = torch.randn(1, LATENT_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        answers = [generator.unet(noise, torch.tensor([600]), e[None]).sample.flatten() for e in embeddings]
    change = torch.pdist(torch.stack(answers)) / answers[0].norm()
    assert float(change.median()) > 1e-3


def test_the_encoder_is_exactly_the_principal_components_and_in_the_last_of_them_the_finder(
    scenes: np.ndarray,
) -> None:
    signed, model = to_signed(scenes), build_autoencoder()
    torch.manual_seed(0)
    finder, scale = build_finder(), model.config.scaling_factor
    side_by_side(model.encoder, linear_encoder(signed, LATENT_CHANNELS, scale, shared=STEEL_CHANNELS), finder)
    with torch.no_grad():
        latents, found = model.encode(signed).latents, finder(signed)
    mean, basis, variance = principal_components(signed, LATENT_CHANNELS)
    patches = torch.nn.functional.unfold(signed, 4, stride=4).transpose(1, 2)
    scores = ((patches - mean) @ basis.T).transpose(1, 2).reshape(latents.shape)
    own = LATENT_CHANNELS - STEEL_CHANNELS
    gain = variance**-0.25
    gain = gain / (gain[:own].square() * variance[:own]).mean().sqrt() / scale
    gain[own:] /= 3
    expected = scores * gain.view(1, -1, 1, 1)
    expected[:, own:] += found
    torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)
    assert 0.9 < (latents[:, :own] * scale).flatten(2).std((0, 2)).square().mean().sqrt() < 1.1


def test_steel_is_the_share_of_each_quarter_cell() -> None:
    masks = np.zeros((1, 8, 8), np.uint8)
    masks[0, :2, :2] = 4  # the first quarter of the first cell: a shaft on tissue 0
    masks[0, 4:6, 6] = 11  # half of the second quarter of the last cell: a tip on tissue 3
    masks[0, 7, 7] = 3  # tissue alone
    expected = torch.full((1, 4, 2, 2), -1.0)
    expected[0, 0, 0, 0] = 1.0
    expected[0, 1, 1, 1] = 0.0
    torch.testing.assert_close(steel(masks), expected)


def test_the_shipped_encoder_finds_the_instruments_of_the_other_world() -> None:
    rng = np.random.default_rng(5)
    shown = [render(tool, draw_look(rng), rng, 64, DIFFICULTY) for tool in INSTRUMENTS for _ in range(8)]
    generator = load_generator(foundation_folder())
    found = encode_images(generator, np.stack([scene.image for scene in shown]))[:, -STEEL_CHANNELS:] > 0
    hidden = steel(np.stack([scene.tissue + 4 * scene.tool for scene in shown])) > 0
    assert float((found & hidden).sum() / (found | hidden).sum()) > 0.6


def test_the_autoencoder_beats_the_linear_way_back(scenes: np.ndarray) -> None:
    model = AutoencoderTiny.from_pretrained(foundation_folder() / "vae", use_safetensors=True)
    ours = psnr(reconstruct(model, scenes), to_signed(scenes))
    linear = pca_psnr(to_signed(scenes), to_signed(scenes), LATENT_CHANNELS)
    assert ours > linear, f"{ours:.2f} dB against {linear:.2f} dB of a PCA fitted on these very scenes"


def test_the_backbone_sees(scenes: np.ndarray) -> None:
    features = load_embedder(foundation_folder()).embed(scenes[:32])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0)
    assert np.linalg.matrix_rank(features) > 8
