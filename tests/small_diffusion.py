"""A diffusion model of one block and a few preference pairs: small enough to align within a test."""

from __future__ import annotations

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor

from saadi.alignment.objectives import Errors
from saadi.alignment.pairs import PairBatch
from saadi.config import AlignmentConfig
from saadi.diffusion import presets
from saadi.diffusion.generator import Generator
from saadi.diffusion.objective import Clean

Numbers = Tensor | list[float] | float
WIDTH, LENGTH, SHAPE = presets.TEXT_WIDTH, presets.PROMPT_TOKENS, (4, 4, 4)
CONFIG = AlignmentConfig(steps=14, pairs=2, bank=2, rank=2, lr=1e-2, beta=0.05, stop_rise=10.0, extrapolation=1.0)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair_batch(pairs: int, seed: int) -> PairBatch:
    winner, loser = normal(pairs, *SHAPE, seed=seed), normal(pairs, *SHAPE, seed=seed + 1)
    embedding = normal(pairs, LENGTH, WIDTH, seed=seed + 2)
    return PairBatch(Clean.whole(winner), Clean.whole(loser), embedding, embedding)


def errors_of(
    winner: Numbers,
    loser: Numbers,
    reference_winner: Numbers = 0.0,
    reference_loser: Numbers = 0.0,
    overlap: Numbers = 0.0,
    *,
    size: int = 1,
) -> Errors:
    """Errors [B] from tensors, lists of numbers or one number for all."""
    given = [torch.as_tensor(one) for one in (winner, loser, reference_winner, reference_loser, overlap)]
    return Errors(*(one.expand(given[0].shape) for one in given), size=size)


def every_draw(pairs: int, draws: int) -> tuple[Tensor, Tensor]:
    """Which pair and which of its draws, [pairs * draws] each: every draw of every pair."""
    p, k = torch.meshgrid(torch.arange(pairs), torch.arange(draws), indexing="ij")
    return p.flatten(), k.flatten()


TRAIN, HELD_OUT = pair_batch(4, 10), pair_batch(2, 20)


def small_generator(*, inpainting: bool = False) -> Generator:
    """A pipeline of one block: 16 px images from latents of 4x4x4."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=9 if inpainting else 4,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4), decoder_block_out_channels=(4, 4, 4), num_encoder_blocks=(0, 0, 0),
        num_decoder_blocks=(1, 1, 1), latent_channels=4,
    )  # fmt: skip
    *_, weight, bias = vae.decoder.parameters()
    with torch.no_grad():
        weight.mul_(30)
        bias.fill_(0.5)
    tokenizer = presets.build_tokenizer()
    text_encoder = presets.build_text_encoder(tokenizer)
    return Generator(vae.eval(), text_encoder.eval(), tokenizer, unet.eval(), presets.build_scheduler())


def stir(unet: UNet2DConditionModel, seed: int) -> None:
    """Give a fresh adapter weights as if it had been trained."""
    for i, p in enumerate(p for p in unet.parameters() if p.requires_grad):
        p.data = 0.2 * normal(*p.shape, seed=1000 * seed + i)
