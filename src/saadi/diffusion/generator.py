"""A diffusion model as the stages see it: latents in, errors or images out. Tiny and Stable Diffusion alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    SchedulerMixin,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    schedulers,
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
PIPELINES: dict[str, Any] = {kind.__name__: kind for kind in (StableDiffusionPipeline, StableDiffusionInpaintPipeline)}
PARTS: dict[str, dict[str, Any]] = {
    "vae": {kind.__name__: kind for kind in (AutoencoderKL, AutoencoderTiny)},
    "text_encoder": {"CLIPTextModel": CLIPTextModel},
    "tokenizer": {"CLIPTokenizer": CLIPTokenizer, "CLIPTokenizerFast": CLIPTokenizer},
    "unet": {"UNet2DConditionModel": UNet2DConditionModel},
}
"""The classes that are opened, by the names in model_index.json."""


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
        """The forward process. Where no signal is left at its end, an error of the noise could not be told as one of v:
        a trace is kept, as diffusers' solvers do."""
        signal = self.scheduler.alphas_cumprod.float().clamp_min(2.0**-24)
        return Schedule(signal, self.scheduler.config.prediction_type)

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

    def pipeline(self, *, edits: bool = False) -> DiffusionPipeline:
        """The stock pipeline around these parts; one that `edits` starts from images."""
        whole = StableDiffusionImg2ImgPipeline if edits else StableDiffusionPipeline
        pipe = (StableDiffusionInpaintPipeline if self.inpaints else whole)(
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
    """Open a folder in Stable Diffusion's format, safetensors only, in float32. Raises `BadInput`.

    Part by part, of the classes above and no other: a weight that is missing or a class that the folder brings along
    is refused, where the stock pipeline would draw the one at random and look for the other's code.
    """
    if not (folder / "model_index.json").is_file():
        advice = "save one with save_pretrained, or write hub:OWNER/NAME for one that `saadi fetch` got"
        raise BadInput(f"{folder}: not a Stable Diffusion folder (no model_index.json); {advice}")
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        # transformers would make an empty tokenizer, to which all prompts are the same
        raise _unfit(folder, "tokenizer/ has no vocabulary")
    try:
        generator = _open(folder, json.loads((folder / "model_index.json").read_text(encoding="utf-8")))
    except BadInput:
        raise
    except Exception as error:  # whatever the libraries raise on it, it is the folder that has to change
        raise _unfit(folder, _one_line(error)) from None
    if problem := _misfit(generator):
        raise _unfit(folder, problem)
    return generator


def _unfit(folder: Path, why: str) -> BadInput:
    return BadInput(
        f"{folder}: cannot be opened as a Stable Diffusion pipeline: {why}; save it anew, or choose another base.model"
    )


def _open(folder: Path, index: Any) -> Generator:
    if not isinstance(index, dict):
        raise _unfit(folder, "model_index.json lists no parts")
    name = str(index.get("_class_name"))
    if name not in PIPELINES:
        raise _unfit(folder, f"model_index.json says {name:.60}, not {' or '.join(PIPELINES)}")

    def load(part: str) -> Any:
        said = str((index.get(part) or [None])[-1])
        if said not in PARTS[part]:
            raise _unfit(folder, f"{part} is of class {said:.60}, not {' or '.join(PARTS[part])}")
        place = {"subfolder": part, "local_files_only": True}
        if part == "tokenizer":
            return CLIPTokenizer.from_pretrained(folder, **place)
        model, loaded = PARTS[part][said].from_pretrained(
            folder, **place, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
        if missing := sorted(loaded["missing_keys"]):
            raise _unfit(folder, f"{part} has no weight {missing[0]} ({len(missing)} are missing)")
        return model

    kind: Any = getattr(schedulers, str((index.get("scheduler") or [None])[-1]), None)
    known = isinstance(kind, type) and issubclass(kind, SchedulerMixin)
    if not known:
        raise _unfit(folder, "model_index.json names no scheduler of diffusers")
    scheduler = kind.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    parts = {part: load(part) for part in PARTS}
    pipe = PIPELINES[name](
        **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )  # which brings old configurations up to date
    # A model's latents go beyond -1 .. 1, where DDIM would clip if the config, of another scheduler, does not forbid it
    return Generator(**parts, scheduler=DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False))


def _misfit(generator: Generator) -> str | None:
    """What is wrong with parts that are each in order but not of one model, or None."""
    unet, text, tokenizer = generator.unet.config, generator.text_encoder, generator.tokenizer
    width, latents = text.config.hidden_size, generator.vae.config.latent_channels
    words, places = len(text.get_input_embeddings().weight), text.config.max_position_embeddings
    if len(tokenizer) > words or tokenizer.model_max_length > places:
        return (
            f"the tokenizer has {len(tokenizer)} words and prompts of {tokenizer.model_max_length}, "
            f"the text encoder {words} and {places}"
        )
    if unet.cross_attention_dim != width:
        return f"the UNet attends to {unet.cross_attention_dim} numbers a word, the text encoder gives {width}"
    if unet.out_channels != latents or unet.in_channels not in (latents, 2 * latents + 1):
        return f"the UNet has {unet.in_channels} channels in and {unet.out_channels} out, the autoencoder {latents}"
    return None


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
