"""The foundation's autoencoder, trained on the pretext pool, and the linear rival it has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import EncoderTiny
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.diffusion.presets import LATENT_CHANNELS, STEEL_CHANNELS, build_finder
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


def _patches(x: Tensor, cell: int) -> Tensor:
    """[N, 3, H, W] as its patches of `cell` x `cell`, [N * H * W / cell^2, 3 * cell^2]."""
    return nn.functional.unfold(x, cell, stride=cell).transpose(1, 2).reshape(-1, 3 * cell * cell)


def principal_components(images: Tensor, channels: int, cell: int = CELL) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [P], components [channels, P] (largest first) and their variances [channels] of patches of P values."""
    patches = _patches(images, cell).double()
    mean = patches.mean(0)
    variance, basis = torch.linalg.eigh(torch.cov((patches - mean).T))
    basis = basis[:, -channels:].flip(1).T
    signs = basis[torch.arange(channels), basis.abs().argmax(1)].sign()
    return mean.float(), (basis * signs[:, None]).float(), variance[-channels:].flip(0).float()


def pca_psnr(train: Tensor, test: Tensor, channels: int, cell: int = CELL) -> float:
    """PSNR in dB on `test` of a linear PCA of patches with `channels` components: the gate's rival."""
    mean, basis, _ = principal_components(train, channels, cell)
    new = _patches(test, cell)
    return psnr((new - mean) @ basis.T @ basis + mean, new)


def linear_encoder(images: Tensor, channels: int, scale: float, shared: int = 0, cell: int = CELL) -> EncoderTiny:
    """An encoder whose convolutions compute principal components of patches of `cell` (2 or 4) pixels, exactly.

    Each channel is scaled by variance^(-1/4): half way to white. White latents would spend the UNet's effort on the
    faintest detail, raw ones on the mean colour alone. Over all, latents times `scale` have unit variance; but the
    last `shared` channels, to which another signal is to be added, do not count and are a third as strong.
    """
    mean, basis, variance = principal_components(images, channels, cell)
    gain = variance**-0.25
    own = slice(channels - shared)
    gain = gain / (gain[own].square() * variance[own]).mean().sqrt() / scale
    gain[channels - shared :] /= 3
    halvings = cell.bit_length() - 1
    encoder = EncoderTiny(3, channels, (0,) * (1 + halvings), (3 * cell * cell,) * (1 + halvings), "relu")
    first, *strided, last = encoder.layers
    for layer in encoder.layers:
        nn.init.zeros_(layer.weight)
    nn.init.zeros_(first.bias)
    for colour in range(3):
        first.weight.data[colour, colour, 1, 1] = 1.0
    # What a channel holds: colour, row and column within a patch of `side` pixels.
    held, side = [(colour, 0, 0) for colour in range(3)], 1
    for layer in strided:  # stride 2, padding 1: the taps 1 and 2 are the two rows (columns) of a cell
        quarters = [(dy, dx) for dy in range(2) for dx in range(2)]
        for q, (dy, dx) in enumerate(quarters):
            for i in range(len(held)):
                layer.weight.data[q * len(held) + i, i, 1 + dy, 1 + dx] = 1.0
        held = [(colour, dy * side + row, dx * side + column) for dy, dx in quarters for colour, row, column in held]
        side *= 2
    source = [(colour * cell + row) * cell + column for colour, row, column in held]
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

    def loss_at(step: int, _: slice) -> Tensor:
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
    latents: Callable[[NDArray[np.int64]], Tensor],
    steps: int,
    checkpoint: Path,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Train the decoder in place on the pool, all but the last `HELD_OUT` scenes of it.

    `latents(index)` gives [B, C, h, w] of some scenes, scaled as the UNet has them.

    Noise on the latents teaches it to forgive the UNet's small errors. Where the class is seen errors weigh three
    times. The log reports PSNR on the held-out scenes.
    """
    model.to(memory_format=torch.channels_last)
    scale = model.config.scaling_factor
    test = np.array(pool.images[-HELD_OUT:])

    def loss_at(step: int, _: slice) -> Tensor:
        index = np.sort(numpy_rng("autoencoder", step).integers(0, len(pool.images) - HELD_OUT, BATCH))
        x, z = to_signed(pool.images[index]), latents(index) / scale
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
