"""The processes that share a run: one alone, or several that torchrun started, on one machine or many.

Accelerate over torch.distributed. All see one folder. The leader writes; work in independent pieces is shared out by
index, and a training step's batch by rows, whose gradients are added up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from torch import Tensor

from saadi.errors import BadInput

PATIENCE = timedelta(days=7)
"""How long processes wait for each other. The leader alone reads a data set, or encodes it, and torch would give up
after ten minutes; torchrun ends all of them as soon as one is gone."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Team:
    """This process's `rank` among `size`. Alone, every method is free."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            PartialState().wait_for_everyone()

    def rows(self, batch: int) -> slice:
        """This process's rows of a batch, as even a share as there is."""
        return slice(batch * self.rank // self.size, batch * (self.rank + 1) // self.size)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place, in one message for each kind of number."""
        if self.size == 1:
            return
        for kind in dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors):
            alike = [tensor for tensor in tensors if (tensor.dtype, tensor.device) == kind]
            flat = torch.cat([tensor.reshape(-1) for tensor in alike]).to(PartialState().device)
            torch.distributed.all_reduce(flat)
            for tensor, piece in zip(alike, torch.split(flat, [tensor.numel() for tensor in alike]), strict=True):
                tensor.copy_(piece.view_as(tensor))

    def agreed(self, said: bool) -> bool:
        """What the leader says."""
        return bool(self.lacking([said], lambda one: not one))

    def lacking(self, items: Sequence[Item], there: Callable[[Item], bool]) -> list[Item]:
        """Those of `items` that are not `there` to the leader. A file that others do not see yet must not become a job
        of theirs alone: jobs are shared out by number."""
        votes = torch.tensor([float(self.leads and not there(item)) for item in items])
        if items:
            self.add([votes])
        return [item for item, lacks in zip(items, votes.tolist(), strict=True) if lacks]


ALONE = Team()


def join_team(*, cpu: bool) -> Team:
    """The team that torchrun started this process in, or `ALONE`.

    Raises `BadInput` where a launcher says that there are several processes and they have not found each other: each
    would lead a run of its own in the same folder.
    """
    launched = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ]
    if not launched:
        return ALONE
    told = os.environ.get("WORLD_SIZE")
    state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=PATIENCE) if told else None
    if state is None or state.num_processes != int(told or 1):
        raise BadInput(
            f"{launched[0]} is set, but this process belongs to no group: "
            f"several of them would write one run; start saadi by torchrun, or unset {', '.join(launched)}"
        )
    return Team(state.process_index, state.num_processes)
