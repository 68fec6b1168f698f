"""Stable Diffusion in small: the true module classes, CLIP's true vocabulary, random weights and narrow layers."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

FORMS = ("sd-1.5", "sd-2.1", "sd-1.5-inpainting", "sd-2.1-inpainting")
"""Epsilon- and v-prediction, and their inpainting twins; 2.x attends through linear layers, by heads of one width."""
WIDTH = 32
MERGES = 49152 - 256 - 2


@cache
def clip_tokenizer() -> CLIPTokenizer:
    """The tokenizer of CLIP, and so of Stable Diffusion, from the list of merges that open_clip carries."""
    path = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [*map(chr, printable), *(chr(256 + n) for n in range(len(others)))]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: place for place, token in enumerate(tokens)}, merges=merges, model_max_length=77,
        bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>", pad_token="<|endoftext|>",
    )  # fmt: skip


def build_stable(form: str) -> StableDiffusionPipeline | StableDiffusionInpaintPipeline:
    """A pipeline of one of `FORMS` for 64-pixel images: latents of 8 x 8 cells."""
    torch.manual_seed(FORMS.index(form))
    second, inpainting = form.startswith("sd-2.1"), form.endswith("inpainting")
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407,
        hidden_act="gelu" if second else "quick_gelu", projection_dim=WIDTH,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=9 if inpainting else 4, out_channels=4, block_out_channels=(16, 32, 32, 32),
        layers_per_block=1, cross_attention_dim=WIDTH, norm_num_groups=8,
        attention_head_dim=(2, 4, 4, 4) if second else 4, use_linear_projection=second,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, norm_num_groups=4, latent_channels=4,
        sample_size=64, scaling_factor=0.18215,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type="v_prediction" if second and not inpainting else "epsilon",
    )  # fmt: skip
    kind = StableDiffusionInpaintPipeline if inpainting else StableDiffusionPipeline
    return kind(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=clip_tokenizer(), unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save_stable(form: str, folder: Path) -> Path:
    """Such a pipeline in a folder; of 1.5, its UNet's configuration as an early diffusers wrote it, for 512 pixels."""
    build_stable(form).save_pretrained(folder, safe_serialization=True)
    if form.startswith("sd-1.5"):
        path = folder / "unet/config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(values | {"_diffusers_version": "0.6.0", "sample_size": 64}), encoding="utf-8")
    return folder
