"""Is the shipped autoencoder a ceiling? Its PSNR beside a linear PCA's, and what a classifier loses by reconstructions.

    python benchmarks/autoencoder.py --train 1000 --seeds 3

The classifier is trained on phantom images, and again on their reconstructions; both are tested on untouched images of
other patients. PSNR is of scenes of the pretext world that the autoencoder has not seen. One JSON line.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny

from saadi.configfile import demo_config
from saadi.critics.downstream import Labelled, train_network
from saadi.critics.tasks import TASKS
from saadi.data.phantom import make_phantom
from saadi.diffusion.presets import LATENT_CHANNELS
from saadi.evaluation.metrics import balanced_accuracy, confusion
from saadi.foundation import foundation_folder
from saadi.foundation.autoencoder import pca_psnr, psnr, reconstruct, to_signed
from saadi.foundation.pool import SIZE, pretext_tools
from saadi.seeds import seed_of
from saadi.worlds.scene import draw_look, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1000, help="phantom images to train on")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each")
    parser.add_argument("--scenes", type=int, default=1000, help="new pretext scenes, half of them for the PCA")
    arguments = parser.parse_args()
    model = AutoencoderTiny.from_pretrained(foundation_folder() / "vae", use_safetensors=True)
    rng = np.random.default_rng([0xBE7C])
    tools = pretext_tools()[: arguments.scenes]
    scenes = np.stack([render(tool, draw_look(rng), rng, SIZE).image for tool in tools])
    seen, new = to_signed(scenes[::2]), to_signed(scenes[1::2])
    row: dict[str, Any] = {
        "psnr": psnr(reconstruct(model, scenes[1::2]), new),
        "pca_psnr": pca_psnr(seen, new, LATENT_CHANNELS),
    }

    config = demo_config(0)
    phantom = config.data.phantom.model_copy(update={"train": arguments.train, "tail": 1.0})
    data = make_phantom(phantom, SIZE, config.seed, config.task)
    train, test = data.split("train"), data.split("test")
    images = np.array(train.images)
    again = reconstruct(model, images).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    recipe = config.evaluation.classifier.model_copy(update={"steps": 3 * config.evaluation.classifier.steps})
    for name, shown in (("originals", images), ("reconstructions", again.permute(0, 2, 3, 1).numpy())):
        levels = []
        for seed in range(arguments.seeds):
            lesson = Labelled(shown, train.labels)
            key = seed_of(config.seed, "downstream", seed)
            net = train_network(TASKS["classification"], recipe, lesson, len(data.space), key)
            table = confusion(test.labels, net.logits(np.array(test.images)).argmax(1), len(data.space))
            levels.append(balanced_accuracy(table))
        row |= {name: float(np.mean(levels)), f"{name}_per_seed": [round(level, 4) for level in levels]}
    print(json.dumps({**row, "lost": row["originals"] - row["reconstructions"], "steps": recipe.steps}))


if __name__ == "__main__":
    main()
