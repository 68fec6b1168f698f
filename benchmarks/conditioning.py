"""Does the foundation listen to its prompt? On fresh pretext scenes: the UNet's error under the right and a wrong name.

python benchmarks/conditioning.py [WEIGHTS]      # a minute; WEIGHTS: a foundation's folder, by default the shipped one
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saadi.diffusion.drawing import encode_images
from saadi.diffusion.generator import encode_prompts, load_generator
from saadi.diffusion.objective import noised, target
from saadi.foundation import foundation_folder
from saadi.foundation.pool import CELL, SIZE, TOOLS, pretext_tools
from saadi.worlds.pretext import pretext_prompt
from saadi.worlds.scene import draw_look, render

SCENES = 2 * TOOLS
TIMESTEPS = (300, 500, 700, 850)
HELD_OUT_SEED = 0xFEED
"""The pool is drawn from 0xF00D: these scenes were never learnt from."""


def scenes() -> tuple[np.ndarray, Tensor]:
    """Images [N, 64, 64, 3] uint8 and where the tip is seen, by cell [N, 1, 16, 16]; scene i shows tool i % TOOLS."""
    images, tips = [], []
    for index in range(SCENES):
        rng = np.random.default_rng([HELD_OUT_SEED, index])
        scene = render(pretext_tools()[index % TOOLS], draw_look(rng), rng, SIZE)
        images.append(scene.image)
        tips.append((scene.tool == 2).reshape(SIZE // CELL, CELL, SIZE // CELL, CELL).mean((1, 3)))
    return np.stack(images), torch.from_numpy(np.stack(tips)).float()[:, None]


def main() -> None:
    """Print, by timestep, the error at the tip under the right name and how much a wrong name adds."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else foundation_folder()
    generator = load_generator(folder)
    table = encode_prompts(generator, [pretext_prompt(tool) for tool in pretext_tools()])
    images, tip = scenes()
    x0 = encode_images(generator, images)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    label = torch.arange(SCENES) % TOOLS
    for step in TIMESTEPS:
        t = torch.full((SCENES,), step)
        x, wanted = noised(generator.schedule, x0, noise, t), target(generator.schedule, x0, noise, t)
        errors = []
        for names in (label, (label + 97) % TOOLS):
            with torch.no_grad():
                answer = generator.unet(x, t, table[names]).sample
            errors.append(
                (((answer - wanted).square().mean(1, True) * tip).sum((1, 2, 3))) / tip.sum((1, 2, 3)).clamp(0.01)
            )
        worse = errors[1] - errors[0]
        interval = 1.96 * float(worse.std()) / SCENES**0.5
        print(f"t={step}: right {errors[0].mean():.4f}, wrong adds {worse.mean():+.5f} +- {interval:.5f} (n={SCENES})")


if __name__ == "__main__":
    main()
