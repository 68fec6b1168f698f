"""Who computes which rows of a training step's batch, and what a training has to do with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saadi.team import ALONE, Team

Loss = Callable[[int, slice], Tensor]
"""The mean loss over some rows of a step's batch."""


@dataclass(frozen=True)
class Shares:
    """Who computes which rows of a step's batch of `batch`: each process of the team its share, in pieces of `micro`
    rows at most (0: all at once). Losses and gradients of all pieces add up to those of the whole batch.

    `scale`: what the loss is multiplied by before it is differentiated, as half precision (fp16) needs it.
    """

    batch: int = 1
    micro: int = 0
    team: Team = ALONE
    scale: float = 1.0

    def pieces(self) -> list[slice]:
        """This process's rows, in pieces."""
        own = self.team.rows(self.batch)
        size = self.micro or self.batch
        return [slice(start, min(start + size, own.stop)) for start in range(own.start, own.stop, size)]

    def smaller(self) -> Shares | None:
        """Pieces of half the size, for want of memory; None where they are single rows already."""
        longest = max(piece.stop - piece.start for piece in self.pieces())
        return replace(self, micro=-(-longest // 2)) if longest > 1 else None


WHOLE = Shares()


def loss_scale(precision: torch.dtype) -> float:
    """What a loss is to be multiplied by before it is differentiated: gradients of fp16 would vanish below 6e-8."""
    return 2.0**16 if precision == torch.float16 else 1.0


@dataclass(frozen=True)
class Resources:
    """What a training of a diffusion model has to do with: see `Shares` and `Recipe`, and `precision` of what is
    computed and does not learn."""

    team: Team = ALONE
    micro: int = 0
    precision: torch.dtype = torch.float32
    eight_bit: bool = False

    def shares(self, batch: int) -> Shares:
        """How a batch is shared out."""
        return Shares(batch, self.micro, self.team, loss_scale(self.precision))


PLAIN = Resources()
