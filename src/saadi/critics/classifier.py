"""Training a classifier on images in memory: critic, judge and every arm of the evaluation use this one function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.config import ClassifierConfig
from saadi.critics.architectures import architecture
from saadi.diffusion.base import class_probabilities
from saadi.seeds import numpy_rng, seed_of, torch_rng
from saadi.training import Progress, Recipe, evaluating, fit

_PREDICT_BATCH = 256


@dataclass(frozen=True)
class Labelled:
    """Images [N, S, S, 3] uint8 and class ids [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Classifier:
    """A trained network with its input normalisation; logits are divided by `temperature`."""

    net: nn.Module
    mean: Tensor
    std: Tensor
    temperature: float = 1.0

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Calibrated logits [N, C] of images [N, S, S, 3]."""
        out = []
        with evaluating(self.net):
            for start in range(0, len(images), _PREDICT_BATCH):
                x = _tensor(images[start : start + _PREDICT_BATCH]).to(self.mean.device)
                out.append(self.net((x - self.mean) / self.std).double().cpu() / self.temperature)
        return torch.cat(out).numpy()


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    """[N, S, S, 3] uint8 to [N, 3, S, S] float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(255)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random mirror images, rotations to 30 degrees, zooms of 20 %, shifts of 8 %, colour casts of x [N, 3, S, S]."""
    n = len(x)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    angle, zoom = uniform(n) * (torch.pi / 6), 1 + 0.2 * uniform(n)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    shift = 0.16 * uniform(n, 2)
    affine = torch.stack(
        [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)], 1
    )
    grid = nn.functional.affine_grid(affine, list(x.shape), align_corners=False)
    moved = nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    gain, bias = 1 + 0.15 * uniform(n, 3, 1, 1) + 0.1 * uniform(n, 1, 1, 1), 0.08 * uniform(n, 1, 1, 1)
    return (moved * gain + bias).clamp(0, 1)


def train_classifier(
    config: ClassifierConfig,
    real: Labelled,
    classes: int,
    seed: int,
    *,
    synthetic: Labelled | None = None,
    share: float = 0.0,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Classifier:
    """Train a fresh model on real images and, as `share` of each batch, synthetic ones.

    Real images are drawn in an order that depends on the seed alone, so arms of one seed are paired.
    """
    made = architecture(config.model)
    device = device or torch.device("cpu")
    torch.manual_seed(seed_of(seed, "init"))
    net = made.build(classes)
    net = net.to(device).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (made.mean, made.std))
    odds = class_probabilities(real.labels, config.balance)
    n_synthetic = round(config.batch * share) if synthetic is not None else 0

    def loss_at(step: int) -> Tensor:
        index = numpy_rng(seed, "real", step).choice(len(real), config.batch, p=odds)[: config.batch - n_synthetic]
        images, labels = real.images[index], real.labels[index]
        if synthetic is not None and n_synthetic:
            extra = numpy_rng(seed, "synthetic", step).integers(0, len(synthetic), n_synthetic)
            images = np.concatenate([images, synthetic.images[extra]])
            labels = np.concatenate([labels, synthetic.labels[extra]])
        x = augment(_tensor(images), torch_rng(seed, "augment", step)).to(device)
        logits = net((x - mean) / std)
        return nn.functional.cross_entropy(logits, torch.from_numpy(labels).to(device), label_smoothing=0.05)

    net.train()
    recipe = Recipe(
        config.steps, config.lr, weight_decay=config.weight_decay, warmup=0.15, floor=0.0, clip=5.0, betas=(0.9, 0.999)
    )
    fit(
        {"net": net},
        loss_at,
        recipe,
        seed=seed,
        what=f"classifier {config.model}",
        every=config.steps,
        progress=progress,
    )
    return Classifier(net.eval(), mean, std)


def restore(
    config: ClassifierConfig, state: dict[str, Tensor], classes: int, temperature: float, device: torch.device
) -> Classifier:
    """A classifier from its saved weights."""
    made = architecture(config.model)
    net = made.build(classes)
    net.load_state_dict(state)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (made.mean, made.std))
    return Classifier(net.to(device).to(memory_format=torch.channels_last).eval(), mean, std, temperature)
