"""The foundation's autoencoder, trained on the pretext pool, and the linear rival it has to beat."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import EncoderTiny
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.diffusion.presets import LATENT_CHANNELS, PATCH, STEEL_CHANNELS, build_finder
from saadi.foundation.pool import Pool
from saadi.seeds import numpy_rng
from saadi.training import Progress, Recipe, evaluating, fit
from saadi.worlds.scene import TISSUES

BATCH = 16
HELD_OUT = 512
CELL = 4
_LATENT_NOISE = 0.02


def to_signed(images: NDArray[np.uint8]) -> Tensor:
    """[N, H, W, 3] uint8 to [N, 3, H, W] float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [-1, 1], of the mean squared error over all of them."""
    return 10 * math.log10(4 / (a.clamp(-1, 1) - b).square().mean().item())


def _patches(x: Tensor) -> Tensor:
    """[N, 3, H, W] as its 4x4 patches [N * H * W / 16, 48]."""
    return nn.functional.unfold(x, CELL, stride=CELL).transpose(1, 2).reshape(-1, 3 * CELL * CELL)


def principal_components(images: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [48], components [channels, 48] (largest first) and their variances [channels] of the 4x4 patches."""
    patches = _patches(images).double()
    mean = patches.mean(0)
    variance, basis = torch.linalg.eigh(torch.cov((patches - mean).T))
    basis = basis[:, -channels:].flip(1).T
    signs = basis[torch.arange(channels), basis.abs().argmax(1)].sign()
    return mean.float(), (basis * signs[:, None]).float(), variance[-channels:].flip(0).float()


def pca_psnr(train: Tensor, test: Tensor, channels: int) -> float:
    """PSNR in dB on `test` of a linear PCA of 4x4 patches with `channels` components: the gate's rival."""
    mean, basis, _ = principal_components(train, channels)
    new = _patches(test)
    return psnr((new - mean) @ basis.T @ basis + mean, new)


def linear_encoder(images: Tensor, channels: int, scale: float, shared: int = 0) -> EncoderTiny:
    """An encoder whose four convolutions compute principal components of 4x4 patches, exactly.

    Each channel is scaled by variance^(-1/4): half way to white. White latents would spend the UNet's effort on the
    faintest detail, raw ones on the mean colour alone. Over all, latents times `scale` have unit variance; but the
    last `shared` channels, to which another signal is to be added, do not count and are a third as strong.
    """
    mean, basis, variance = principal_components(images, channels)
    gain = variance**-0.25
    own = slice(channels - shared)
    gain = gain / (gain[own].square() * variance[own]).mean().sqrt() / scale
    gain[channels - shared :] /= 3
    encoder = EncoderTiny(3, channels, (0, 0, 0), (PATCH,) * 3, "relu")
    first, second, third, last = encoder.layers
    for layer in (first, second, third, last):
        nn.init.zeros_(layer.weight)
    nn.init.zeros_(first.bias)
    for colour in range(3):
        first.weight.data[colour, colour, 1, 1] = 1.0
    for dy in range(2):  # stride 2, padding 1: the taps 1 and 2 are the two rows (columns) of a cell
        for dx in range(2):
            for c in range(3):
                second.weight.data[(dy * 2 + dx) * 3 + c, c, 1 + dy, 1 + dx] = 1.0
            for c in range(12):
                third.weight.data[(dy * 2 + dx) * 12 + c, c, 1 + dy, 1 + dx] = 1.0
    source = [  # channel of `third` -> position in an unfolded patch (colour, row, column)
        colour * 16 + (2 * dy2 + dy1) * 4 + (2 * dx2 + dx1)
        for dy2 in range(2) for dx2 in range(2) for dy1 in range(2) for dx1 in range(2) for colour in range(3)
    ]  # fmt: skip
    # The encoder maps [-1, 1] to [0, 1] first: x = 2 y - 1.
    last.weight.data[:, :, 1, 1] = (2 * gain[:, None] * basis)[:, source]
    last.bias.data = -gain * (basis @ (mean + 1))
    return encoder


def _place(target: Tensor, part: Tensor, last: bool) -> None:
    """Add `part` to the first, or last, output (and input) channels of a layer's weight or bias."""
    corner = tuple(slice(-n, None) if last else slice(n) for n in part.shape[:2])
    target.data[corner] += part.data


def side_by_side(encoder: EncoderTiny, linear: EncoderTiny, finder: EncoderTiny) -> None:
    """Set `encoder` so that its channels are those of `linear`, to the last of which `finder`'s are added, exactly.

    Where `finder` has residual blocks, `linear`'s channels pass: they are pixels in [0, 1], to which a block whose
    convolutions are zero is the identity, its last ReLU included.
    """
    single = [n for n, layer in encoder.layers.named_children() if isinstance(layer, nn.Conv2d)]
    home = dict(zip(single, linear.layers, strict=True))
    for name, target in encoder.named_parameters():
        nn.init.zeros_(target)
        _place(target, finder.get_parameter(name), last=True)
        _, layer, kind = name.split(".", 2)
        if layer in home:
            _place(target, getattr(home[layer], kind), last=False)
    encoder.requires_grad_(False)


def steel(masks: NDArray[np.uint8]) -> Tensor:
    """How much of each quarter cell is instrument, [N, 4, H / 4, W / 4] in [-1, 1], of a pool's `masks` [N, H, W]."""
    tool = torch.from_numpy((masks >= len(TISSUES)).astype(np.float32))[:, None]
    return 2 * nn.functional.pixel_unshuffle(nn.functional.avg_pool2d(tool, CELL // 2), 2) - 1


def train_finder(pool: Pool, steps: int, checkpoint: Path, progress: Progress | None = None) -> EncoderTiny:
    """Train the network that finds the instrument, on all but the last `HELD_OUT` scenes of the pool."""
    torch.manual_seed(0)
    finder = build_finder().to(memory_format=torch.channels_last)

    def loss_at(step: int) -> Tensor:
        index = np.sort(numpy_rng("finder", step).integers(0, len(pool.images) - HELD_OUT, 2 * BATCH))
        error: Tensor = finder(to_signed(pool.images[index])) - steel(pool.masks[index])
        return error.square().mean()

    recipe = Recipe(steps=steps, lr=3e-3, weight_decay=1e-4)
    fit({"finder": finder}, loss_at, recipe, checkpoint=checkpoint, every=250, progress=progress)
    return finder


def reconstruct(model: AutoencoderTiny, images: NDArray[np.uint8]) -> Tensor:
    """Images [N, H, W, 3] uint8 through the autoencoder and back, [N, 3, H, W] in [-1, 1]."""
    with evaluating(model):
        parts = [
            model.decode(model.encode(to_signed(images[i : i + 64])).latents).sample for i in range(0, len(images), 64)
        ]
    return torch.cat(parts)


def set_encoder(model: AutoencoderTiny, pool: Pool, finder: EncoderTiny) -> dict[str, float]:
    """Set the encoder of `model`, in place; the decoder stays. Returns what is known before it has learnt anything: on
    scenes never learnt from, the finder's IoU and the PSNR of the decoder's rival, a linear PCA of as many channels.

    The latents are principal components of patches, and, in the channels of the faintest, where the instrument is,
    which the finder was taught. So a shape has channels in which the UNet sees it whole, as features beside the latents
    speed up diffusion elsewhere (Kouzelis et al., arXiv:2504.16064).
    """
    scale = model.config.scaling_factor
    seen, test = to_signed(pool.images[:2000]), np.array(pool.images[-HELD_OUT:])
    with evaluating(finder):
        found = torch.cat([finder(to_signed(part)) > 0 for part in np.split(test, 8)])
    hidden = steel(pool.masks[-HELD_OUT:]) > 0
    finder.layers[-1].weight.data /= scale
    finder.layers[-1].bias.data /= scale
    linear = linear_encoder(seen, LATENT_CHANNELS, scale, shared=STEEL_CHANNELS)
    side_by_side(model.encoder, linear, finder)
    return {
        "pca_psnr": pca_psnr(seen, to_signed(test), LATENT_CHANNELS),
        "finder_iou": float((found & hidden).sum() / (found | hidden).sum()),
    }


def train_decoder(
    model: AutoencoderTiny,
    pool: Pool,
    latents: NDArray[np.float16],
    steps: int,
    checkpoint: Path,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train the decoder in place on the pool's scaled `latents` [N, C, h, w], all but the last `HELD_OUT` of them.

    Noise on the latents teaches it to forgive the UNet's small errors. Where the class is seen errors weigh three
    times. The log reports PSNR on the held-out scenes.
    """
    model.to(memory_format=torch.channels_last)
    scale = model.config.scaling_factor
    test = np.array(pool.images[-HELD_OUT:])

    def loss_at(step: int) -> Tensor:
        index = np.sort(numpy_rng("autoencoder", step).integers(0, len(pool.images) - HELD_OUT, BATCH))
        x, z = to_signed(pool.images[index]), torch.from_numpy(latents[index].astype(np.float32)) / scale
        focus = torch.from_numpy(pool.visible[index].astype(np.float32) / 255)[:, None]
        weight = 1 + 2 * nn.functional.interpolate(focus, scale_factor=CELL)
        error: Tensor = model.decode(z + _LATENT_NOISE * torch.randn_like(z)).sample - x
        return (weight * (error.square() + 0.05 * error.abs())).mean()

    def watch(step: int) -> dict[str, float]:
        return {"psnr": psnr(reconstruct(model, test), to_signed(test))}

    recipe = Recipe(steps=steps, lr=2e-3, weight_decay=1e-4)
    log, _ = fit(
        {"decoder": model.decoder}, loss_at, recipe, checkpoint=checkpoint, every=250, progress=progress, watch=watch
    )
    return log
