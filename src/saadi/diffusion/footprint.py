"""What training a diffusion model takes, from its shapes alone: nothing is computed, no weight is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saadi.diffusion.generator import PARTS
from saadi.diffusion.lora import TARGETS
from saadi.diffusion.presets import PROMPT_TOKENS

UNITS = (ResnetBlock2D, Transformer2DModel)
"""What gradient checkpointing computes again as a whole: only their inputs are kept."""
FP32 = 4


@dataclass(frozen=True)
class Footprint:
    """A UNet, for images of one size. `weights`: its numbers; `adapter`: those of a LoRA of rank 1; `flops`: of one
    forward pass of one image; `kept`: numbers that a training pass of one image keeps for its backward pass; `adapted`:
    those of them that layers with an adapter are given; both with gradient checkpointing, too."""

    weights: int
    adapter: int
    flops: float
    kept: int
    adapted: int
    kept_least: int
    adapted_least: int

    def training(
        self, images: int, *, rank: int, bytes_each: int, checkpointing: bool = False, eight_bit: bool = False
    ) -> int:
        """Bytes for training an adapter (`rank` 0: all weights) on `images` at once: weights, gradients, two moments,
        and what is kept for the backward pass. Of all weights there are also a running mean and, where it is not
        float32 that is computed in, a copy."""
        learns = rank * self.adapter or self.weights
        state = learns * (2 * FP32 + 2 * (1 if eight_bit else FP32))
        copy = bytes_each if rank or bytes_each < FP32 else 0
        mean = 0 if rank else FP32
        kept = images * self.image(bytes_each, adapted=rank > 0, checkpointing=checkpointing)
        return int(self.weights * (copy + mean) + state + kept)

    def image(self, bytes_each: int, *, adapted: bool, checkpointing: bool) -> int:
        """Bytes that a training pass of one image keeps. An adapter in float32 keeps a copy of what it is given."""
        kept, given = (self.kept_least, self.adapted_least) if checkpointing else (self.kept, self.adapted)
        return kept * bytes_each + (given * FP32 if adapted and bytes_each < FP32 else 0)


def _adapts(name: str, module: nn.Module) -> bool:
    """Whether a module of a UNet has an adapter."""
    return re.fullmatch(TARGETS, name) is not None and isinstance(module, (nn.Linear, nn.Conv2d))


def _adapter_numbers(unet: nn.Module) -> int:
    """Numbers of an adapter of rank 1."""
    weights = [module.get_parameter("weight") for name, module in unet.named_modules() if _adapts(name, module)]
    return sum(weight[0].numel() + weight.shape[0] for weight in weights)


class _Kept:
    """Counts what modules are given, each tensor once, as a whole and inside each unit."""

    def __init__(self) -> None:
        self.held: dict[int, Tensor] = {}  # held, so that no number is given to a second tensor
        self.total = self.adapted = self.units = self.largest = self.largest_adapted = 0
        self.before = (0, 0)

    def leaf(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        for one in given:
            if isinstance(one, Tensor) and id(one) not in self.held:
                self.held[id(one)] = one
                self.total += one.numel()

    def target(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self.adapted += given[0].numel()

    def gated(self, module: GEGLU, given: tuple[Any, ...], out: Tensor) -> None:
        """Both halves of the projection, and the gate."""
        self.total += 3 * out.numel()

    def attention(self, module: Attention, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        """Queries, keys and values are kept by the fused attention itself; scores never exist as a whole."""
        hidden, context = given[0], named.get("encoder_hidden_states")
        rows, inner = hidden.numel() // hidden.shape[-1], module.inner_dim
        seen = rows if context is None else context.numel() // context.shape[-1]
        self.total += rows * inner + 2 * seen * inner + rows * module.heads

    def enter(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self.before = self.total, self.adapted
        self.units += sum(one.numel() for one in given if isinstance(one, Tensor))

    def leave(self, module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        total, adapted = self.before
        self.largest = max(self.largest, self.total - total)
        self.largest_adapted = max(self.largest_adapted, self.adapted - adapted)


@contextmanager
def _counting(unet: nn.Module) -> Iterator[_Kept]:
    kept, handles = _Kept(), []
    for name, module in unet.named_modules():
        if _adapts(name, module):
            handles.append(module.register_forward_pre_hook(kept.target))
        if isinstance(module, UNITS):
            handles += [module.register_forward_pre_hook(kept.enter), module.register_forward_hook(kept.leave)]
        if isinstance(module, Attention):
            handles.append(module.register_forward_hook(kept.attention, with_kwargs=True))
        if isinstance(module, GEGLU):
            handles.append(module.register_forward_hook(kept.gated))
        if not isinstance(module, (nn.Dropout, nn.Identity)) and not any(True for _ in module.children()):
            handles.append(module.register_forward_pre_hook(kept.leaf))
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def footprint(config: Mapping[str, Any], size: int, cell: int, tokens: int) -> Footprint:
    """The footprint of a UNet of a configuration, for images of `size` pixels and latent cells of `cell`, under prompts
    of `tokens`."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(config)).train()
        side = size // cell
        x = torch.empty(1, unet.config.in_channels, side, side)
        t, words = torch.zeros(1, dtype=torch.long), torch.empty(1, tokens, unet.config.cross_attention_dim)
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad(), _counting(unet) as kept:
            unet(x, t, words)
    return Footprint(
        weights=sum(p.numel() for p in unet.parameters()),
        adapter=_adapter_numbers(unet),
        flops=float(counter.get_total_flops()),
        kept=kept.total,
        adapted=kept.adapted,
        kept_least=kept.units + kept.largest,
        adapted_least=kept.largest_adapted,
    )


def _configurations(folder: Path) -> tuple[dict[str, Any], int]:
    """Of the model in a folder in Stable Diffusion's format: what its UNet is like, and the side of a latent cell."""
    parts = {part: json.loads((folder / part / "config.json").read_text(encoding="utf-8")) for part in ("unet", "vae")}
    widths = parts["vae"].get("block_out_channels", parts["vae"].get("decoder_block_out_channels"))
    return parts["unet"], int(2 ** (len(widths) - 1))


def read_footprint(folder: Path, size: int) -> Footprint:
    """The footprint of the model in a folder in Stable Diffusion's format."""
    unet, cell = _configurations(folder)
    words = folder / "tokenizer" / "tokenizer_config.json"
    known = json.loads(words.read_text(encoding="utf-8")) if words.is_file() else {}
    return footprint(unet, size, cell, int(known.get("model_max_length", PROMPT_TOKENS)))


def decoding_flops(folder: Path, size: int) -> float:
    """What decoding one image takes with the autoencoder of a model in Stable Diffusion's format."""
    unet, cell = _configurations(folder)
    known = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    kind = PARTS["vae"][known["_class_name"]]
    with torch.device("meta"):
        vae, side = kind.from_config(known).eval(), size // cell
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            vae.decode(torch.empty(1, unet["out_channels"], side, side))
    return float(counter.get_total_flops())


def encoded_bytes(folder: Path, size: int) -> int:
    """Bytes of an image as that model's UNet meets it, noise and prompt apart, with a weight for each cell."""
    unet, cell = _configurations(folder)
    return int(FP32 * (unet["in_channels"] + 1) * (size // cell) ** 2)
