"""The eyes of the evaluation: features of a network that never saw the images it looks at.

It is the small CNN, trained to tell the pretext world's invented tools apart and shipped with the foundation. KID,
precision, recall, coverage, memorisation and "the nearest training image" are all measured in its features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torchvision.transforms.v2.functional import resize

from saadi.critics.networks import SmallCNN, architecture
from saadi.foundation import backbone_path
from saadi.training import evaluating

NAME = "small-cnn trained on the pretext world (no real image, no class of the demo)"
SIDE = 64
_BATCH = 256


@dataclass(frozen=True)
class Embedder:
    """Features of images."""

    net: SmallCNN

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Unit-length features [N, D] of images [N, S, S, 3] uint8, seen at 64 px."""
        made = architecture("small-cnn")
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (made.mean, made.std))
        out = []
        with evaluating(self.net):
            for start in range(0, len(images), _BATCH):
                x = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).permute(0, 3, 1, 2)
                x = resize(x, [SIDE, SIDE], antialias=True).float() / 255
                out.append(nn.functional.normalize(self.net.embed((x - mean) / std).double(), dim=1))
        return torch.cat(out).numpy() if out else np.zeros((0, self.net.head.in_features))


def load_embedder(foundation: Path) -> Embedder:
    """The shipped backbone."""
    weights = load_file(backbone_path(foundation))
    net = SmallCNN(classes=len(weights["head.weight"]))
    net.load_state_dict(weights)
    return Embedder(net.eval())
