"""Preference pairs as tensors: some of them as a training step takes them, or all of them, as rows of what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from saadi.diffusion.objective import Clean


@dataclass(frozen=True)
class PairBatch:
    """Winners and losers, P of each, and the embeddings of the prompts they are seen under [P, T, D].

    Two images under one prompt, or one image under two (`between_prompts`).
    """

    winner: Clean
    loser: Clean
    embedding: Tensor
    loser_embedding: Tensor

    def __len__(self) -> int:
        return len(self.winner)

    @property
    def shape(self) -> torch.Size:
        """Of an image's latents."""
        return self.winner.latents.shape[1:]

    def take(self, index: Tensor) -> PairBatch:
        return PairBatch(
            self.winner.take(index), self.loser.take(index), self.embedding[index], self.loser_embedding[index]
        )

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(
            self.winner.to(device), self.loser.to(device), self.embedding.to(device), self.loser_embedding.to(device)
        )


class Pairs(Protocol):
    """Pairs of which some can be taken: a `PairTable`, or a `PairBatch` itself."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> torch.Size: ...

    def take(self, index: Tensor) -> PairBatch: ...


@dataclass(frozen=True)
class PairTable:
    """P pairs as rows of images and of the embeddings of prompts [E, T, D], which may lie on disk.

    `rows` [P, 4]: the better image and the prompt it is seen under, then the worse one and its own.
    """

    images: Clean
    embeddings: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """Of an image's latents."""
        return self.images.latents.shape[1:]

    def take(self, index: Tensor) -> PairBatch:
        winner, asked, loser, loser_asked = self.rows[index].unbind(1)
        return PairBatch(
            self.images.take(winner), self.images.take(loser), self.embeddings[asked], self.embeddings[loser_asked]
        )


Preference = tuple[int, str, int, str]
"""The number of the better image and the prompt it is seen under, then of the worse one and its own."""


def between_prompts(
    pairs: Sequence[Preference], winner_rivals: Sequence[str], loser_rivals: Sequence[str], wrong: Sequence[bool]
) -> list[Preference]:
    """The preferences that a judge's verdicts on pairs also imply, between two prompts for one image.

    A winner fits its prompt better than the one it was nearest to being taken for. A loser that is `wrong` fits the
    prompt it was taken for better than its own. Image, noise and timestep being the same on both sides, all that
    differs is what the prompt changes. Preferences between conditions were proposed for language models that see
    (mDPO, Wang et al., arXiv:2406.11839).
    """
    winners = [(image, asked, image, rival) for (image, asked, _, _), rival in zip(pairs, winner_rivals, strict=True)]
    losers = [(image, rival, image, asked) for (_, _, image, asked), rival in zip(pairs, loser_rivals, strict=True)]
    return winners + [loser for loser, is_wrong in zip(losers, wrong, strict=True) if is_wrong]
