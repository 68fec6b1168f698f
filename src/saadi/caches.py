"""Tensors on disk: written once, batch by batch, and read row by row. Memory does not grow with their number."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saadi.team import ALONE, Team

Item = TypeVar("Item")
Batches = Callable[[], Iterable[Sequence[Tensor]]]
"""Gives some tensors' rows, some of each at a time."""


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items, `size` at a time; at the end what is left."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def cached(folder: Path | None, batches: Batches, team: Team = ALONE) -> list[Tensor]:
    """The tensors whose rows `batches` gives, on the CPU and not to be written to: kept in `folder`, mapped from there.

    What is there is not made again; what was half made by a run that was killed is. Of a team the leader makes it, for
    all. Without a folder the tensors are held in memory.
    """
    if folder is None:
        return [torch.cat([rows.cpu() for rows in parts]) for parts in zip(*batches(), strict=True)]
    if team.leads and not folder.exists():
        partial = folder.with_name(f"{folder.name}-partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial, batches())
        partial.rename(folder)
    team.wait()
    return [_mapped(path) for path in sorted(folder.glob("*.npy"))]


def _write(folder: Path, batches: Iterable[Sequence[Tensor]]) -> None:
    """Write each tensor as an .npy of its own. Not by a writable map: on a full disk that would kill the process."""
    count, files = 0, list[BinaryIO]()
    with ExitStack() as stack:
        for batch in batches:
            files = files or [stack.enter_context((folder / f"{k}.npy").open("w+b")) for k in range(len(batch))]
            for file, rows in zip(files, batch, strict=True):
                _append(file, count, np.ascontiguousarray(rows.cpu().numpy()))
            count += len(batch[0])
        for file in files:
            file.flush()
            os.fsync(file.fileno())


def _append(file: BinaryIO, before: int, rows: NDArray[Any]) -> None:
    """Add rows to an .npy file of `before` rows. Its header is as long for any number of them."""
    header = np.lib.format.header_data_from_array_1_0(rows) | {"shape": (before + len(rows), *rows.shape[1:])}
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, header)
    file.seek(0, os.SEEK_END)
    file.write(rows.data)


def _mapped(path: Path) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot be written to
        return torch.from_numpy(np.load(path, mmap_mode="r", allow_pickle=False))
