"""A diffusion model as the stages see it: latents in, errors or images out. Tiny and Stable Diffusion alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from saadi.caches import batched, cached
from saadi.diffusion import presets
from saadi.diffusion.objective import Schedule
from saadi.errors import BadInput
from saadi.team import ALONE, Team
from saadi.training import evaluating

PROMPTS_AT_ONCE = 64


@dataclass
class Generator:
    """The parts of a Stable Diffusion pipeline."""

    vae: AutoencoderTiny | AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: UNet2DConditionModel
    scheduler: DDIMScheduler

    @property
    def schedule(self) -> Schedule:
        """The forward process."""
        return Schedule(self.scheduler.alphas_cumprod.float(), self.scheduler.config.prediction_type)

    @property
    def inpaints(self) -> bool:
        """Whether the network is told, beside the prompt, a mask and what is around it."""
        return bool(self.unet.config.in_channels > self.unet.config.out_channels)

    @property
    def cell(self) -> int:
        """Pixels along the side of a latent cell."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.unet.parameters()).device
        return device

    def to(self, device: torch.device, precision: torch.dtype = torch.float32) -> Generator:
        """Move all weights, and make them of a type."""
        for module in (self.vae, self.text_encoder, self.unet):
            module.to(device, precision)
        self.unet.to(memory_format=torch.channels_last)
        return self

    def pipeline(self) -> StableDiffusionPipeline | StableDiffusionInpaintPipeline:
        """The stock pipeline around these parts."""
        pipe = (StableDiffusionInpaintPipeline if self.inpaints else StableDiffusionPipeline)(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


def build_tiny(*, inpainting: bool = False) -> Generator:
    """The tiny preset, or its inpainting twin, with random weights."""
    tokenizer = presets.build_tokenizer()
    return Generator(
        vae=presets.build_inpainting_autoencoder() if inpainting else presets.build_autoencoder(),
        text_encoder=presets.build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=presets.build_inpainting_unet() if inpainting else presets.build_unet(),
        scheduler=presets.build_scheduler(),
    )


def load_generator(folder: Path) -> Generator:
    """Open a folder in Stable Diffusion's format, safetensors only, in float32. Raises `BadInput`."""
    if not (folder / "model_index.json").is_file():
        raise BadInput(f"{folder}: not a Stable Diffusion folder (no model_index.json); save one with save_pretrained")
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # transformers would make an empty tokenizer, to which all prompts are the same
        raise BadInput(f"{folder}: cannot be opened as a Stable Diffusion pipeline: tokenizer/ has no vocabulary")
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        inpainting = str(index.get("_class_name")).endswith("InpaintPipeline")
        pipe = (StableDiffusionInpaintPipeline if inpainting else StableDiffusionPipeline).from_pretrained(
            folder, use_safetensors=True, local_files_only=True, safety_checker=None, requires_safety_checker=False,
            dtype=torch.float32,
        )  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, KeyError) as error:
        raise BadInput(f"{folder}: cannot be opened as a Stable Diffusion pipeline: {_one_line(error)}") from None
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    return Generator(pipe.vae, pipe.text_encoder, pipe.tokenizer, pipe.unet, scheduler)


def save_generator(generator: Generator, folder: Path) -> None:
    """Save in Stable Diffusion's format; `StableDiffusionPipeline.from_pretrained` opens it."""
    generator.pipeline().save_pretrained(folder, safe_serialization=True)
    _save_for_older_readers(generator.tokenizer, folder / "tokenizer")
    for path in folder.glob("*/config.json"):  # where a part was loaded from is nobody's business
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _save_for_older_readers(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """They want vocab.json, merges.txt and the added words in tokenizer_config.json, not today's tokenizer.json."""
    tokenizer.backend_tokenizer.model.save(str(folder))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only"):  # how it was opened here, which is nobody's business either
        config.pop(key, None)
    config["added_tokens_decoder"] = {
        str(index): {
            "content": token.content,
            "single_word": token.single_word,
            "lstrip": token.lstrip,
            "rstrip": token.rstrip,
            "normalized": token.normalized,
            "special": token.special,
        }
        for index, token in tokenizer.added_tokens_decoder.items()
    }
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]


def learn_words(generator: Generator, words: Iterable[str], seed: int) -> None:
    """Give words of their own a token, and a random embedding to be trained, instead of spelling them out."""
    known = len(generator.tokenizer)
    presets.add_words(generator.tokenizer, words)
    table = generator.text_encoder.resize_token_embeddings(len(generator.tokenizer), mean_resizing=False).weight
    rng = torch.Generator().manual_seed(seed)
    table.data[known:] = torch.randn(len(table) - known, table.shape[1], generator=rng)


def token_ids(generator: Generator, prompts: Sequence[str]) -> Tensor:
    """Token ids [P, T], padded as the stock pipeline pads them. Raises `BadInput` for a prompt that does not fit."""
    tokenizer = generator.tokenizer
    length = tokenizer.model_max_length
    for prompt in prompts:
        count = len(tokenizer(prompt).input_ids)
        if count > length:
            raise BadInput(
                f"prompt {prompt!r}: {count} tokens, the text encoder takes {length}; "
                "shorten the class name or base.prompt"
            )
    batch = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids: Tensor = batch.input_ids
    return ids


def encode_ids(generator: Generator, ids: Tensor) -> Tensor:
    """Text embeddings [P, T, D] of token ids, with gradients where the encoder has them."""
    embedding: Tensor = generator.text_encoder(ids.to(generator.device))[0]
    return embedding


def encode_prompts(generator: Generator, prompts: Sequence[str]) -> Tensor:
    """Text embeddings [P, T, D] float32, without gradients."""
    with evaluating(generator.text_encoder):
        return encode_ids(generator, token_ids(generator, prompts)).float()


def kept_prompts(generator: Generator, prompts: Sequence[str], folder: Path | None, team: Team = ALONE) -> Tensor:
    """Text embeddings [P, T, D] float32 of any number of prompts, on the CPU, kept in `folder` as `cached` does."""
    (embeddings,) = cached(
        folder, lambda: ((encode_prompts(generator, some),) for some in batched(prompts, PROMPTS_AT_ONCE)), team
    )
    return embeddings
