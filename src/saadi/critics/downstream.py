"""Training a downstream model on images in memory: critic, judge and every arm of the evaluation use this function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saadi.config import ClassifierConfig
from saadi.critics.architectures import Architecture, architecture, penultimate
from saadi.critics.augmentation import AUGMENTATIONS, mix
from saadi.critics.tasks import Downstream, Logits, Targets
from saadi.diffusion.base import sampling_probabilities
from saadi.evaluation.metrics import mean_score, point
from saadi.seeds import numpy_rng, seed_of, torch_rng
from saadi.training import Progress, Recipe, evaluating, fit

_PREDICT_BATCH = 256
_PIXELS, _DENSE_PIXELS = 2**23, 2**20
"""Of the images in a batch, at most; and where there are logits for each pixel, which outgrow the memory earlier."""


@dataclass(frozen=True)
class Labelled:
    """Images [N, S, S, 3] uint8 and their targets [N, ...] in the form of the task."""

    images: NDArray[np.uint8]
    targets: Targets

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: NDArray[Any]) -> Labelled:
        """The rows `index`, by number or as a mask [N]."""
        return Labelled(self.images[index], self.targets[index])


@dataclass(frozen=True)
class Network:
    """A trained network of a task, of an architecture that says how it wants its input; logits are divided by
    `temperature`."""

    task: Downstream
    net: nn.Module
    made: Architecture
    temperature: float = 1.0

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((weight.device for weight in self.net.parameters()), torch.device("cpu"))

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[slice]:
        most = _DENSE_PIXELS if self.task.dense else _PIXELS
        batch = max(1, min(_PREDICT_BATCH, most // max(1, images[:1, ..., 0].size)))
        return (slice(start, start + batch) for start in range(0, len(images), batch))

    def pieces(self, images: NDArray[np.uint8]) -> Iterator[tuple[slice, Logits]]:
        """Calibrated logits of images [N, S, S, 3], batch by batch, with the rows they belong to."""
        for rows in self._batches(images):
            with evaluating(self.net):
                x = _tensor(images[rows]).to(self.device)
                logits = self.net(self.made.prepared(x)).double().cpu() / self.temperature
            yield rows, logits.numpy()

    def calibrated(self, images: Tensor) -> Tensor:
        """Calibrated logits of images [N, 3, S, S] in 0 .. 1 on the network's device, with a gradient where asked."""
        logits: Tensor = self.net(self.made.prepared(images)) / self.temperature
        return logits

    def saliency(self, images: NDArray[np.uint8], targets: Targets) -> NDArray[np.float32]:
        """How much each pixel of images [N, S, S, 3] moves the task's loss on its target, [N, S, S] >= 0: the absolute
        gradient of each image's own loss, summed over colours (Simonyan et al., arXiv:1312.6034)."""
        found = np.zeros(images.shape[:3], np.float32)
        for rows in self._batches(images):
            with evaluating(self.net), torch.enable_grad():
                x = _tensor(images[rows]).to(self.device).requires_grad_()
                logits = self.calibrated(x)
                wanted = torch.from_numpy(targets[rows]).to(self.device)
                losses = [self.task.loss(*one) for one in zip(logits[:, None], wanted[:, None], strict=True)]
                (slope,) = torch.autograd.grad(torch.stack(losses).sum(), x)
            found[rows] = slope.abs().sum(1).cpu().numpy()
        return found

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """What a classifier's last layer sees, [N, D], of images. Raises `BadInput` where it does not say."""
        found = []
        for rows in self._batches(images):
            with evaluating(self.net):
                x = _tensor(images[rows]).to(self.device)
                found.append(penultimate(self.net, self.made.prepared(x)).double().cpu().numpy())
        return np.concatenate(found)

    def logits(self, images: NDArray[np.uint8]) -> Logits:
        """Calibrated logits [N, C] of images [N, S, S, 3]; of dense tasks [N, C, S, S], a lot of memory."""
        return np.concatenate([logits for _, logits in self.pieces(images)])

    def answers(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """What the task keeps of the logits: log-probabilities [N, C], id maps [N, S, S] uint8, or logits [N, C]."""
        return np.concatenate([self.task.answer(logits) for _, logits in self.pieces(images)])

    def level(self, shown: Labelled, classes: int, among: Sequence[int] | None = None) -> float:
        """The task's metric on labelled images, 0 .. 1: the mean over the classes `among` (all by default) that have a
        score, e.g. balanced accuracy."""
        scored = self.task.scored(shown.targets, self.answers(shown.images)[None], classes)
        return float(mean_score(point(scored), among))


def _tensor(images: NDArray[np.uint8]) -> Tensor:
    """[N, S, S, 3] uint8 to [N, 3, S, S] float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(255)


def train_network(
    task: Downstream,
    config: ClassifierConfig,
    real: Labelled,
    classes: int,
    seed: int,
    *,
    synthetic: Labelled | None = None,
    share: float = 0.0,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Network:
    """Train a fresh model of a task on real images and, as `share` of each batch, synthetic ones.

    Real images are drawn in an order that depends on the seed alone, so arms of one seed are paired.
    """
    made, augment = architecture(config.model, dense=task.dense), AUGMENTATIONS[config.augment]
    device = device or torch.device("cpu")
    torch.manual_seed(seed_of(seed, "init"))
    net = made.build(classes)
    net = net.to(device).to(memory_format=torch.channels_last)
    odds = sampling_probabilities(task.shows(real.targets, classes), config.balance)
    n_synthetic = round(config.batch * share) if synthetic is not None else 0

    def loss_at(step: int, _: slice) -> Tensor:
        index = numpy_rng(seed, "real", step).choice(len(real), config.batch, p=odds)[: config.batch - n_synthetic]
        images, targets = real.images[index], real.targets[index]
        if synthetic is not None and n_synthetic:
            extra = numpy_rng(seed, "synthetic", step).integers(0, len(synthetic), n_synthetic)
            images = np.concatenate([images, synthetic.images[extra]])
            targets = np.concatenate([targets, synthetic.targets[extra]])
        wanted = torch.from_numpy(targets)
        x, maps = augment(_tensor(images), torch_rng(seed, "augment", step), wanted if task.dense else None)
        wanted = wanted if maps is None else maps
        if config.mix != "none":
            x, wanted = mix(config.mix, x, wanted, classes, torch_rng(seed, "mix", step))
        logits = net(made.prepared(x.to(device)))
        return task.loss(logits, wanted.to(device))

    net.train()
    recipe = Recipe(
        config.steps, config.lr, weight_decay=config.weight_decay, warmup=0.15, floor=0.0, clip=5.0, betas=(0.9, 0.999)
    )
    fit(
        {"net": net},
        loss_at,
        recipe,
        seed=seed,
        what=f"{task.name} model {config.model}",
        every=config.steps,
        progress=progress,
    )
    return Network(task, net.eval(), made)


def restore(
    task: Downstream,
    config: ClassifierConfig,
    state: dict[str, Tensor],
    classes: int,
    temperature: float,
    device: torch.device,
) -> Network:
    """A network from its saved weights."""
    made = architecture(config.model, dense=task.dense)
    net = made.build(classes)
    net.load_state_dict(state)
    return Network(task, net.to(device).to(memory_format=torch.channels_last).eval(), made, temperature)
