"""The `tiny` preset: Stable Diffusion's own module classes, small enough for two CPU cores."""

from __future__ import annotations

from collections.abc import Iterable

from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from diffusers.models.autoencoders.vae import EncoderTiny
from tokenizers import AddedToken
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from saadi.worlds.pretext import SYLLABLES, WORDS

PROMPT_TOKENS = 40
TEXT_WIDTH = 128
LATENT_CHANNELS = 12
"""Principal components of a cell's 4x4 pixels, largest first."""
STEEL_CHANNELS = 4
"""The last channels, whose components are faint, also say how much of each quarter of the cell is instrument."""
PATCH = 3 * 4 * 4
INPAINTING_CHANNELS = 4
INPAINTING_PATCH = 3 * 2 * 2
FINDER_WIDTH = 32
FINDER_BLOCKS = (0, 0, 3)
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = ("a", "an", "laparoscopic", "endoscopic", "image", "of", "surgical", "frame")


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins byte-level tokenizers use for raw bytes (as in GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for offset, byte in enumerate(byte for byte in range(256) if byte not in letters):
        letters[byte] = chr(256 + offset)
    return [letters[byte] for byte in range(256)]


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that can spell everything.

    It holds all bytes, so a class name it has no merges for is spelt out, and no two spellings become one prompt: CLIP
    ignores only case, and spaces at a digit or sign ("tool1", "tool 1"). A few common words, the pretext world's
    words and the syllables of its names are single tokens.
    """
    alphabet = _byte_alphabet()
    vocabulary = [_START, _END, *alphabet, *(letter + "</w>" for letter in alphabet)]
    merges: list[tuple[str, str]] = []

    def chain(pieces: list[str]) -> None:
        left = pieces[0]
        for right in pieces[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
                if left + right not in vocabulary:
                    vocabulary.append(left + right)
            left += right

    for syllable in SYLLABLES:
        chain(list(syllable))
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=merges,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        unk_token=_END,
        model_max_length=PROMPT_TOKENS,
    )
    add_words(tokenizer, (*_WORDS, *WORDS))
    return tokenizer


def add_words(tokenizer: CLIPTokenizer, words: Iterable[str]) -> int:
    """Make whole words single tokens; returns how many were new."""
    return int(tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in words]))


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text encoder for `tokenizer`, untrained.

    Tokens start far apart, at unit scale, and all layers at unit gain: from CLIP's 0.02 all prompts ran together in
    pretraining, and stayed so. Padding, which is most of a short prompt, starts near zero, so that what stands there
    after two layers is the prompt: pooled over the tokens, prompts differ by 0.3 of their length instead of 0.02.
    """
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    tokens = encoder.get_input_embeddings().weight
    nn.init.normal_(tokens)
    tokens.data[tokenizer.eos_token_id] *= 0.1
    return encoder


def build_finder() -> EncoderTiny:
    """An untrained encoder from pixels to `STEEL_CHANNELS`, of the autoencoder's own kind, so that it fits into it."""
    return EncoderTiny(3, STEEL_CHANNELS, FINDER_BLOCKS, (FINDER_WIDTH,) * 3, "relu")


def build_autoencoder() -> AutoencoderTiny:
    """An autoencoder from pixels to cells of 4x4, untrained.

    Its encoder is wide enough for two side by side: the principal components of 4x4 patches, exactly, and
    `build_finder`, which finds the instrument. The decoder beats the linear way back: it sees the neighbouring cells.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(PATCH + FINDER_WIDTH,) * 3,
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=FINDER_BLOCKS,
        num_decoder_blocks=(3, 2, 1),
        latent_channels=LATENT_CHANNELS,
        scaling_factor=2.0,
    )


def build_inpainting_autoencoder() -> AutoencoderTiny:
    """An autoencoder from pixels to cells of 2x2, untrained.

    The stock inpainting pipeline knows latents of four channels only. Of 4x4 cells these keep 26 dB, in which no jaw is
    seen; of 2x2 cells 32 dB. Its encoder is the linear one alone: where the instrument is, the mask says.
    """
    return AutoencoderTiny(
        encoder_block_out_channels=(INPAINTING_PATCH,) * 2,
        decoder_block_out_channels=(32, 32),
        num_encoder_blocks=(0, 0),
        num_decoder_blocks=(2, 1),
        latent_channels=INPAINTING_CHANNELS,
        scaling_factor=2.0,
    )


def build_inpainting_unet() -> UNet2DConditionModel:
    """An untrained denoiser of 32x32 latents beside a mask and the latents of what is not blank: nine channels.

    Its three inner levels are those of `build_unet`, from which they can start.
    """
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=2 * INPAINTING_CHANNELS + 1,
        out_channels=INPAINTING_CHANNELS,
        block_out_channels=(24, 32, 64, 128),
        time_embedding_dim=4 * 32,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def build_unet() -> UNet2DConditionModel:
    """An untrained denoiser of 16x16 latents.

    The prompt enters twice: by attention at the coarsest level, where a tool is a few cells, and, pooled, with the
    timestep into every layer, so that a name can shape what finer layers draw.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
