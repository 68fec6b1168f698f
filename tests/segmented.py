"""A small data folder with masks, for the tests of segmentation and presence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GROUPS = {"A": "train", "B": "train", "C": "val", "D": "test"}
CLASSES = {"0": "background", "1": "hook", "2": "clip"}
WIDTH, HEIGHT = 48, 32


def values(index: int) -> NDArray[np.uint8]:
    """A mask [HEIGHT, WIDTH] with a hook on the left and, where `index` is even, a clip on the right."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:20, 4:20] = 1
    if index % 2 == 0:
        mask[10:28, 28:44] = 2
    return mask


def write(folder: Path, each: int = 4) -> Path:
    """Noise images and their masks, `each` in each of four groups, with the columns of segmentation and presence."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["file,mask,group,split,has_hook,has_clip"]
    for group, split in GROUPS.items():
        for i in range(each):
            name = f"{group}{i}.png"
            pixels = np.random.default_rng(len(rows)).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name)
            Image.fromarray(values(i)).save(folder / "masks" / name)
            rows.append(f"images/{name},masks/{name},{group},{split},1,{1 - i % 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    return folder


def edit(folder: Path, old: str, new: str, file: str = "labels.csv") -> None:
    """Replace a text that the table, or another file, holds."""
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")


def repaint(folder: Path, name: str, mask: NDArray[np.uint8]) -> None:
    """Another mask for an image."""
    Image.fromarray(mask).save(folder / "masks" / name)
