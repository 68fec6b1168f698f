"""Pixels and latents: images into a generator, and out of it by the stock pipelines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from saadi.config import SamplingConfig
from saadi.diffusion.generator import Generator
from saadi.diffusion.objective import Clean
from saadi.training import evaluating

ENCODE_BATCH = 64
"""Images that the autoencoder is given at once, at most: fixed, as the last bit depends on it."""
PIXELS = 2**18
"""Of these images: 64 of the tiny foundation's, one of Stable Diffusion's, for which its first block takes 400 MB."""


def at_once(side: int) -> int:
    """How many images of a side an autoencoder is given at once."""
    return max(1, min(ENCODE_BATCH, PIXELS // side**2))


def encode_images(generator: Generator, images: NDArray[np.uint8], blank: NDArray[np.bool_] | None = None) -> Tensor:
    """Latents [N, C, h, w] float32, scaled for the UNet, of images [N, S, S, 3] uint8, grey where `blank` [N, S, S]."""
    scale = generator.vae.config.scaling_factor
    out = []
    with evaluating(generator.vae):
        few = at_once(images.shape[1])
        for start in range(0, len(images), few):
            part = slice(start, start + few)
            pixels = torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2)
            signed = pixels.to(generator.device).float() / 127.5 - 1
            if blank is not None:
                signed = signed * torch.from_numpy(~blank[part])[:, None].to(signed.device)
            encoded = generator.vae.encode(signed.to(generator.vae.dtype))
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
            out.append(latents.float() * scale)
    return torch.cat(out)


def decode_latents(generator: Generator, latents: Tensor) -> NDArray[np.uint8]:
    """Images [N, S, S, 3] uint8 of latents [N, C, h, w] as `encode_images` gives them."""
    scale = generator.vae.config.scaling_factor
    with evaluating(generator.vae):
        parts = [
            generator.vae.decode((part / scale).to(generator.vae.dtype)).sample
            for part in torch.split(latents, at_once(latents.shape[-1] * generator.cell))
        ]
    pixels = torch.cat(parts).float().clamp(-1, 1).permute(0, 2, 3, 1).cpu().numpy()
    return ((pixels + 1) * 127.5 + 0.5).astype(np.uint8)


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


def solver(generator: Generator, name: str) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """A sampler for the model's own schedule: `dpm++` (second order, multistep) or `ddim`."""
    if name == "ddim":
        return DDIMScheduler.from_config(generator.scheduler.config, timestep_spacing="trailing")
    return DPMSolverMultistepScheduler.from_config(
        generator.scheduler.config, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
    )


Feedback = Callable[[Tensor, float, slice], Tensor]
"""What latents [N, C, h, w] are moved by after a step: from the clean latents that the model expected [N, C, h, w], how
much noise is left in them (its sigma, 0 .. 1), and the rows that these are."""


def _moving(feedback: Feedback, rows: slice) -> Callable[..., dict[str, Tensor]]:
    """A pipeline's callback: of DPM-Solver++, which keeps what it expects of the clean latents. Once no noise is left
    nothing is moved: no further step would make an image of it again."""

    def moved(pipe: DiffusionPipeline, step: int, timestep: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        ratio = float(pipe.scheduler.sigmas[pipe.scheduler.step_index])  # of noise to signal
        if not ratio:
            return {}
        latents = values["latents"]
        shift = feedback(pipe.scheduler.model_outputs[-1], ratio / math.hypot(1, ratio), rows)
        return {"latents": latents + shift.to(latents.device, latents.dtype)}

    return moved


def draw(
    generator: Generator,
    embeddings: Tensor,
    blank: Tensor,
    seeds: Sequence[int],
    config: SamplingConfig,
    canvas: Canvas | None = None,
    starts: NDArray[np.uint8] | None = None,
    feedback: Feedback | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Yield one image [S, S, 3] uint8 for each of `embeddings` [N, T, D], its noise decided by its own seed.

    `blank` [1, T, D] is the empty prompt for guidance. Images are made in micro-batches of `config.batch`, from the
    first on, by the stock pipeline; an image depends on its micro-batch in the last bit only. An inpainting model needs
    a `canvas` of N frames; pixels outside the regions come back as they were. With a `strength` below 1 images start
    from `starts` [N, S, S, 3], noised to that share of the schedule. `feedback` moves the latents after each step of
    `dpm++`.
    """
    edits = config.strength < 1
    pipe = generator.pipeline(edits=edits)
    pipe.scheduler = solver(generator, config.solver)
    if at_once(generator.unet.config.sample_size * generator.cell) < config.batch:
        generator.vae.enable_slicing()  # or the pipeline decodes all of a micro-batch at once: of 32 at 512 px, 12 GB
    for start in range(0, len(seeds), config.batch):
        part = slice(start, start + config.batch)
        chunk, frames = list(seeds[part]), canvas and canvas.take(part)
        told = _inpainting(generator, frames) if frames else {}
        if edits:
            assert starts is not None
            told |= {"image": torch.from_numpy(starts[part]).permute(0, 3, 1, 2).float() / 255}
            told |= {"strength": config.strength}
        if feedback is not None:
            told |= {"callback_on_step_end": _moving(feedback, part)}
        with evaluating(generator.vae, generator.unet):  # ends before the yield: the caller may want gradients
            result = pipe(
                prompt_embeds=embeddings[part],
                negative_prompt_embeds=blank.expand(len(chunk), -1, -1) if config.guidance > 1 else None,
                guidance_scale=config.guidance,
                num_inference_steps=config.steps,
                generator=[torch.Generator().manual_seed(seed) for seed in chunk],
                output_type="np",
                **told,
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
    return images * int(config.steps * config.strength) * (2 if config.guidance > 1 else 1)
