"""A diffusion model as the stages see it: latents in, errors or images out. Tiny and Stable Diffusion alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d
from transformers import CLIPTextModel, CLIPTokenizer

from saadi.config import SamplingConfig
from saadi.diffusion import presets
from saadi.diffusion.objective import Clean, Schedule
from saadi.errors import BadInput
from saadi.training import evaluating

_ENCODE_BATCH = 64


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

    def to(self, device: torch.device) -> Generator:
        """Move all weights."""
        for module in (self.vae, self.text_encoder, self.unet):
            module.to(device)
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


def encode_images(generator: Generator, images: NDArray[np.uint8], blank: NDArray[np.bool_] | None = None) -> Tensor:
    """Latents [N, C, h, w] float32, scaled for the UNet, of images [N, S, S, 3] uint8, grey where `blank` [N, S, S]."""
    scale = generator.vae.config.scaling_factor
    out = []
    with evaluating(generator.vae):
        for start in range(0, len(images), _ENCODE_BATCH):
            part = slice(start, start + _ENCODE_BATCH)
            pixels = torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2)
            signed = pixels.to(generator.device).float() / 127.5 - 1
            if blank is not None:
                signed = signed * torch.from_numpy(~blank[part])[:, None].to(signed.device)
            encoded = generator.vae.encode(signed)
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
            out.append(latents.float() * scale)
    return torch.cat(out)


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


def solver(generator: Generator, name: str) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """A sampler for the model's own schedule: `dpm++` (second order, multistep) or `ddim`."""
    if name == "ddim":
        return DDIMScheduler.from_config(generator.scheduler.config, timestep_spacing="trailing")
    return DPMSolverMultistepScheduler.from_config(
        generator.scheduler.config, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
    )


@dataclass(frozen=True)
class Canvas:
    """What is given to an inpainting model: frames `images` [N, S, S, 3] uint8, and all [N, S, S]: where the prompt's
    class is asked for (`objects`), what is blank (`regions`), and how new a pixel becomes in the end (`alphas`)."""

    images: NDArray[np.uint8]
    objects: NDArray[np.bool_]
    regions: NDArray[np.bool_]
    alphas: NDArray[np.float32]

    def take(self, part: slice) -> Canvas:
        return Canvas(self.images[part], self.objects[part], self.regions[part], self.alphas[part])


def _cells(generator: Generator, pixels: NDArray[np.bool_]) -> Tensor:
    """The latent cells that masks [N, S, S] touch, 1 or 0 [N, 1, h, w]."""
    return max_pool2d(torch.from_numpy(pixels.astype(np.float32))[:, None].to(generator.device), generator.cell)


def _given(
    generator: Generator, images: NDArray[np.uint8], objects: NDArray[np.bool_], regions: NDArray[np.bool_]
) -> Tensor:
    """What an inpainting network is told beside the noisy latents [N, 1 + C, h, w].

    The mask is the object's, in whole cells, or a thin shaft would fall through; what is blank is more.
    """
    return torch.cat([_cells(generator, objects), encode_images(generator, images, regions)], 1)


def to_clean(
    generator: Generator,
    images: NDArray[np.uint8],
    objects: NDArray[np.bool_],
    regions: NDArray[np.bool_],
    outside: float,
) -> Clean:
    """Frames [N, S, S, 3] as an inpainting model learns them: errors outside the region weigh `outside`, in it 1."""
    weight = outside + (1 - outside) * _cells(generator, regions)
    return Clean(encode_images(generator, images), _given(generator, images, objects, regions), weight)


def draw(
    generator: Generator,
    embeddings: Tensor,
    blank: Tensor,
    seeds: Sequence[int],
    config: SamplingConfig,
    canvas: Canvas | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield one image [S, S, 3] uint8 for each of `embeddings` [N, T, D], its noise decided by its own seed.

    `blank` [1, T, D] is the empty prompt for guidance. Images are made in micro-batches of `config.batch`, from the
    first on, by the stock pipeline; an image depends on its micro-batch in the last bit only. An inpainting model needs
    a `canvas` of N frames; pixels outside the regions come back as they were.
    """
    pipe = generator.pipeline()
    pipe.scheduler = solver(generator, config.solver)
    for start in range(0, len(seeds), config.batch):
        part = slice(start, start + config.batch)
        chunk, frames = list(seeds[part]), canvas and canvas.take(part)
        with evaluating(generator.vae, generator.unet):  # ends before the yield: the caller may want gradients
            result = pipe(
                prompt_embeds=embeddings[part],
                negative_prompt_embeds=blank.expand(len(chunk), -1, -1) if config.guidance > 1 else None,
                guidance_scale=config.guidance,
                num_inference_steps=config.steps,
                generator=[torch.Generator().manual_seed(seed) for seed in chunk],
                output_type="np",
                **(_inpainting(generator, frames) if frames else {}),
            )
        images = np.clip(result.images, 0, 1) * 255
        if frames:
            images = frames.images + frames.alphas[..., None] * (images - frames.images)
        yield from (images + 0.5).astype(np.uint8)


def _inpainting(generator: Generator, frames: Canvas) -> dict[str, Any]:
    """What the stock inpainting pipeline is told of some frames: the mask in whole cells, since it takes every n-th
    pixel of it. Of the image itself it uses nothing: at full strength it starts from noise."""
    given = _given(generator, frames.images, frames.objects, frames.regions)
    mask = interpolate(given[:, :1], scale_factor=generator.cell)
    nothing = torch.zeros_like(mask).expand(-1, 3, -1, -1)
    return {"image": nothing, "mask_image": mask, "masked_image_latents": given[:, 1:]}


def unet_passes(images: int, config: SamplingConfig) -> int:
    """UNet evaluations (of one image) that drawing `images` takes."""
    return images * config.steps * (2 if config.guidance > 1 else 1)
