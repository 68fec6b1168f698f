"""A pool of pretext scenes on disk, rendered once: what the autoencoder and the UNet of the foundation learn from."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saadi.diffusion.objective import Clean
from saadi.training import Progress
from saadi.worlds.pretext import invent
from saadi.worlds.scene import TISSUES, draw_look, render
from saadi.worlds.tools import Tool

TOOLS = 1200
SIZE = 64
CELL = 4
_CHUNK = 500


@lru_cache(maxsize=1)
def pretext_tools() -> tuple[Tool, ...]:
    """The invented tools of the shipped foundation."""
    return invent(TOOLS)


@dataclass(frozen=True)
class Lesson:
    """What a foundation's UNet learns: the scenes as it meets them, by `images(index [B], rng)`, the number of each
    one's prompt [N], and the prompts."""

    images: Callable[[NDArray[np.int64], np.random.Generator], Clean]
    labels: NDArray[np.int64]
    prompts: list[str]


def in_chunks(
    work: Callable[[Path, int, int], None], folder: Path, name: str, count: int, progress: Progress, workers: int
) -> None:
    """`work(folder, start, stop)` on all of 0..count, side by side; what is marked in `folder` as done is left out."""
    starts = [start for start in range(0, count, _CHUNK) if not (folder / f"{name}-{start}.done").exists()]
    if not starts:
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers) as pool:
        jobs = {pool.submit(work, folder, start, min(start + _CHUNK, count)): start for start in starts}
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            (folder / f"{name}-{jobs[job]}.done").touch()
            progress(done, len(starts))


def _render(folder: Path, start: int, stop: int) -> None:
    tools = pretext_tools()
    images = np.load(folder / "images.npy", mmap_mode="r+")
    weights = np.load(folder / "visible.npy", mmap_mode="r+")
    masks = np.load(folder / "masks.npy", mmap_mode="r+")
    for index in range(start, stop):
        rng = np.random.default_rng([0xF00D, index])
        scene = render(tools[index % len(tools)], draw_look(rng), rng, SIZE)
        images[index] = scene.image
        masks[index] = scene.tissue + len(TISSUES) * scene.tool
        cells = (scene.tool > 0).reshape(SIZE // CELL, CELL, SIZE // CELL, CELL).mean((1, 3))
        tip = (scene.tool == 2).reshape(SIZE // CELL, CELL, SIZE // CELL, CELL).max((1, 3))
        weights[index] = np.round(255 * np.maximum(0.3 * (cells > 0), tip))
    for array in (images, weights, masks):
        array.flush()


@dataclass(frozen=True)
class Pool:
    """Scenes on disk, mapped. Scene `i` shows tool `i % TOOLS` and depends on `i` alone.

    `images` [N, 64, 64, 3] uint8; `visible` [N, 16, 16] uint8, how much of the class is seen in a latent cell;
    `masks` [N, 64, 64] uint8, tissue + 4 x tool as in `Scene`.
    """

    images: NDArray[np.uint8]
    visible: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def render_pool(folder: Path, count: int, progress: Progress, workers: int = 2) -> Pool:
    """Render scenes 0..count-1 into `folder` (what is there is kept) and map them."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images.npy").exists():
        np.lib.format.open_memmap(folder / "visible.npy", "w+", np.uint8, (count, SIZE // CELL, SIZE // CELL)).flush()
        np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, (count, SIZE, SIZE)).flush()
        partial = folder / "images.partial.npy"
        np.lib.format.open_memmap(partial, "w+", np.uint8, (count, SIZE, SIZE, 3)).flush()
        partial.rename(folder / "images.npy")
    in_chunks(_render, folder, "chunk", count, progress, workers)
    return Pool(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "visible", "masks")))
