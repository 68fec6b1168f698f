"""LoRA adapters on a UNet, saved so that a stock pipeline's `load_lora_weights` opens them."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

NAME = "saadi"
TARGETS = r".*(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2)"
"""Attention, feed-forward and the residual blocks' convolutions: in a small UNet attention alone moves little."""


def add_adapter(unet: UNet2DConditionModel, rank: int, seed: int) -> None:
    """Freeze the UNet and add a fresh adapter, alpha = rank, in float32. It starts at zero: the output stays."""
    unet.requires_grad_(False)
    torch.manual_seed(seed)
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS), adapter_name=NAME
    )
    cast_training_params(unet, torch.float32)


def outer_weights(unet: UNet2DConditionModel) -> list[torch.nn.Parameter]:
    """The second factors of an adapter's products: the change of the UNet's weights is linear in them."""
    return [p for name, p in unet.named_parameters() if "lora_B" in name]


def save_adapter(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write `pytorch_lora_weights.safetensors` with the adapter's configuration (alpha) as metadata."""
    layers = get_peft_model_state_dict(unet, adapter_name=NAME)
    StableDiffusionPipeline.save_lora_weights(
        folder,
        unet_lora_layers={name: tensor.contiguous() for name, tensor in layers.items()},
        unet_lora_adapter_metadata=unet.peft_config[NAME].to_dict(),
        safe_serialization=True,
    )


def apply_adapter(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Load a saved adapter into a pipeline and fold it in. Adapters of several rounds add up, so the order is free."""
    pipe.load_lora_weights(folder, adapter_name=NAME, use_safetensors=True, local_files_only=True)
    pipe.fuse_lora(adapter_names=[NAME])
    pipe.unload_lora_weights()
