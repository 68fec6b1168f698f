"""The foundation's twin for inpainting: the same pool, prompts and rules, and Stable Diffusion's nine channels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from numpy.typing import NDArray

from saadi.data.layouts import make_layout
from saadi.diffusion.drawing import to_clean
from saadi.diffusion.generator import Generator, build_tiny, load_generator
from saadi.diffusion.objective import Clean
from saadi.diffusion.presets import INPAINTING_CHANNELS
from saadi.foundation import PROVENANCE, foundation_folder
from saadi.foundation.autoencoder import HELD_OUT, linear_encoder, pca_psnr, to_signed
from saadi.foundation.pool import TOOLS, Lesson, Pool, in_chunks, pretext_tools
from saadi.imageconfig import LayoutConfig
from saadi.seeds import numpy_rng
from saadi.training import Progress
from saadi.worlds.pretext import pretext_prompt
from saadi.worlds.scene import TISSUES

BACKGROUND = "a laparoscopic image of a background"
"""The prompt of a region in which no tool is asked for."""

CELL = 2
RIDGE = 1e-3
"""Of the timestep's sinusoids, whose mean square is a half: weights stay below three, a sixth of the spread is lost."""
TIPS = 0.3
"""Share of the scenes in which the tip alone is painted anew, to a shaft that is given."""
EMPTY = 0.1
"""Share of the scenes in which a region without a tool is."""


def _tool(masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """0 none, 1 shaft, 2 tip [..., H, W] of a pool's masks."""
    return masks // len(TISSUES)


def scene_layout(tool: NDArray[np.uint8], index: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_], bool]:
    """What scene `index` of a pool is asked for: object and blank region [S, S], and whether the prompt names it."""
    rng = numpy_rng("inpainting", index)
    kind = rng.random()
    config = LayoutConfig()
    if kind < EMPTY:
        layout = make_layout(rng, (tool > 0).astype(np.uint8), 0, None, [1], config, CELL)
    else:
        wanted = 2 if kind < EMPTY + TIPS and (tool == 2).any() else 1
        ids = tool if wanted == 2 else (tool > 0).astype(np.uint8)
        layout = make_layout(rng, ids, wanted, None, [1, 2], config, CELL)
    (only,) = layout.passes
    return only.object, only.region, bool(only.label)


def _cut(folder: Path, start: int, stop: int) -> None:
    masks, bits = np.load(folder.parent / "masks.npy", mmap_mode="r"), np.load(folder / "layouts.npy", mmap_mode="r+")
    named = np.load(folder / "named.npy", mmap_mode="r+")
    for index in range(start, stop):
        wanted, region, named[index] = scene_layout(_tool(masks[index]), index)
        bits[index] = np.packbits(np.stack([wanted, region]).reshape(2, -1), axis=1)
    bits.flush()
    named.flush()


def cut_layouts(folder: Path, pool: Pool, progress: Progress, workers: int = 2) -> None:
    """One layout for every scene of the pool, which lies in the parent of `folder`: `layouts.npy`, `named.npy`."""
    count, side, _ = pool.masks.shape
    if not (folder / "layouts.npy").exists():
        np.lib.format.open_memmap(folder / "named.npy", "w+", np.bool_, (count,)).flush()
        partial = folder / "layouts.partial.npy"
        np.lib.format.open_memmap(partial, "w+", np.uint8, (count, 2, side * side // 8)).flush()
        partial.rename(folder / "layouts.npy")
    in_chunks(_cut, folder, "layouts", count, progress, workers)


def inherit(unet: UNet2DConditionModel, older: UNet2DConditionModel) -> int:
    """Start the inner levels of `unet` from those of the text-to-image `older`, in place; returns how many tensors.

    Down the levels are shifted by one, up they are not. The timestep's sinusoids, of which there are fewer, are mapped
    to the older network's first layer by ridge regression over all timesteps: plain least squares would use what slow
    sinusoids differ in, with weights of a million that weight decay soon puts out of tune.
    """
    new, old = unet.state_dict(), older.state_dict()
    count = 0
    for name, value in old.items():
        head, _, rest = name.partition(".")
        if head == "down_blocks":
            level, _, rest = rest.partition(".")
            name = f"down_blocks.{int(level) + 1}.{rest}"
        if name in new and new[name].shape == value.shape:
            new[name] = value
            count += 1
    t = torch.arange(1000)
    few, many = (
        get_timestep_embedding(t, net.config.block_out_channels[0], net.config.flip_sin_to_cos, net.config.freq_shift)
        for net in (unet, older)
    )
    known = torch.cat([few, torch.ones(len(t), 1)], 1).double()
    wanted = (many @ old["time_embedding.linear_1.weight"].T + old["time_embedding.linear_1.bias"]).double()
    moments = known.T @ known + RIDGE * len(t) * torch.eye(known.shape[1])
    solved = torch.linalg.solve(moments, known.T @ wanted).float()
    new["time_embedding.linear_1.weight"], new["time_embedding.linear_1.bias"] = solved[:-1].T, solved[-1]
    unet.load_state_dict(new)
    return count + 2


def start_inpainting() -> tuple[Generator, dict[str, Any]]:
    """The twin before it has learnt anything: what it can have of the shipped text to image, and from where."""
    generator, shipped = build_tiny(inpainting=True), load_generator(foundation_folder())
    generator.tokenizer, generator.text_encoder = shipped.tokenizer, shipped.text_encoder
    origin = json.loads((foundation_folder() / PROVENANCE).read_text(encoding="utf-8"))
    tensors = inherit(generator.unet, shipped.unet)
    return generator, {"tensors": tensors, "of": len(generator.unet.state_dict()), "passes": origin["passes"]}


def set_linear_encoder(model: AutoencoderTiny, pool: Pool) -> dict[str, float]:
    """Set the encoder of `model`, in place, to the principal components of 2x2 pixels, exactly: no pixel of one cell
    is seen in another, so what is blank hides nothing around it. Returns what `set_encoder` does."""
    seen, test = to_signed(pool.images[:2000]), to_signed(pool.images[-HELD_OUT:])
    linear = linear_encoder(seen, INPAINTING_CHANNELS, model.config.scaling_factor, cell=CELL)
    model.encoder.load_state_dict(linear.state_dict())
    model.encoder.requires_grad_(False)
    return {"pca_psnr": pca_psnr(seen, test, INPAINTING_CHANNELS, CELL)}


def inpainting_lesson(generator: Generator, pool: Pool, folder: Path, progress: Progress) -> Lesson:
    """What the twin's UNet learns, from a layout of each scene in `folder`, cut there if need be."""
    count, size = len(pool.images) - HELD_OUT, pool.images.shape[1]
    cut_layouts(folder, pool, progress)
    bits, named = np.load(folder / "layouts.npy", mmap_mode="r"), np.load(folder / "named.npy")
    labels = np.where(named, np.arange(len(named)) % TOOLS, TOOLS)[:count]
    outside = LayoutConfig().outside

    def pick(index: NDArray[np.int64], _: np.random.Generator) -> Clean:
        masks = np.unpackbits(bits[index], axis=2).reshape(len(index), 2, size, size).astype(bool)
        return to_clean(generator, np.array(pool.images[index]), masks[:, 0], masks[:, 1], outside)

    return Lesson(pick, labels, [*(pretext_prompt(tool) for tool in pretext_tools()), BACKGROUND])
