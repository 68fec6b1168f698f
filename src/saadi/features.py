"""The eyes of critic and evaluation: features of a network that never saw the images it looks at, and who is nearest.

It is the small CNN, trained to tell the pretext world's invented tools apart and shipped with the foundation. KID,
precision, recall, coverage, memorisation and "the nearest training image" are all measured in its features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.spatial.distance import cdist
from torch import nn
from torchvision.transforms.v2.functional import resize

from saadi.critics.architectures import architecture
from saadi.critics.networks import SmallCNN
from saadi.errors import BadInput
from saadi.foundation import backbone_path
from saadi.training import evaluating

NAME = "small-cnn trained on the pretext world (no real image, no class of the demo)"
SIDE = 64
_BATCH = 256

Features = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Embedder:
    """Features of images."""

    net: SmallCNN

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Unit-length features [N, D] of images [N, S, S, 3] uint8, seen at 64 px."""
        made = architecture("small-cnn")
        out = []
        with evaluating(self.net):
            for start in range(0, len(images), _BATCH):
                x = torch.from_numpy(np.ascontiguousarray(images[start : start + _BATCH])).permute(0, 3, 1, 2)
                x = resize(x, [SIDE, SIDE], antialias=True).float() / 255
                out.append(nn.functional.normalize(self.net.embed(made.prepared(x)).double(), dim=1))
        return torch.cat(out).numpy() if out else np.zeros((0, self.net.head.in_features))


def load_embedder(foundation: Path) -> Embedder:
    """The shipped backbone."""
    weights = load_file(backbone_path(foundation))
    net = SmallCNN(classes=len(weights["head.weight"]))
    net.load_state_dict(weights)
    return Embedder(net.eval())


class Nearest(NamedTuple):
    """For each of Q queries: `distance` [Q] to its nearest key, and `key` [Q], the index of that key."""

    distance: NDArray[np.float64]
    key: NDArray[np.int64]


def check_features(name: str, features: Features, least: int) -> NDArray[np.float64]:
    """`features` [N, D] as float64. Raises `BadInput` on fewer than `least` rows, another shape, nan or infinity."""
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or len(values) < least:
        raise BadInput(f"{name} features: shape {values.shape}; give [N, D] of at least {least} images")
    if not np.isfinite(values).all():
        raise BadInput(f"{name} features: some are nan or infinite; check the network that made them")
    return values


def check_widths(first: Features, second: Features) -> None:
    """Raise `BadInput` unless both feature sets have the same width."""
    if first.shape[1] != second.shape[1]:
        raise BadInput(f"features: {first.shape[1]} and {second.shape[1]} wide; make both with the same network")


def slices(length: int, chunk: int) -> Iterator[slice]:
    """Consecutive slices of at most `chunk` that cover 0 .. length."""
    return (slice(start, start + chunk) for start in range(0, length, chunk))


def nearest(queries: Features, keys: Features, chunk: int = 1024) -> Nearest:
    """The nearest of `keys` [K, D] to each of `queries` [Q, D], by Euclidean distance; ties go to the first.

    Features are taken as given: normalise them to length 1 for distances of 0 .. 2 that grow with the angle. Raises
    `BadInput` on bad features.
    """
    asked, known = check_features("query", queries, 1), check_features("training", keys, 1)
    check_widths(asked, known)
    distance, key = np.empty(len(asked)), np.empty(len(asked), np.int64)
    for rows in slices(len(asked), chunk):
        block = cdist(asked[rows], known)
        key[rows] = block.argmin(1)
        distance[rows] = block.min(1)
    return Nearest(distance, key)


def nearest_mirrored(queries: Features, keys: Features, keys_mirrored: Features, chunk: int = 1024) -> Nearest:
    """`nearest`, to a training image or to its mirror image: a flipped copy is a copy.

    `keys_mirrored` [K, D]: the features of the mirrored images, in the order of `keys`; `key` indexes either. Raises
    `BadInput` if there are not as many of both.
    """
    if len(keys) != len(keys_mirrored):
        raise BadInput(f"training features: {len(keys)}, mirrored {len(keys_mirrored)}; give one of each an image")
    plain, mirrored = nearest(queries, keys, chunk), nearest(queries, keys_mirrored, chunk)
    flipped = mirrored.distance < plain.distance
    return Nearest(np.where(flipped, mirrored.distance, plain.distance), np.where(flipped, mirrored.key, plain.key))
