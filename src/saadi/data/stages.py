"""Stage 0 in a run's folder: the real images and their masks, once, as mapped arrays."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saadi.data import Dataset
from saadi.data.load import load_dataset
from saadi.files import digest, save_array
from saadi.records import Frame, LabelSpace, read_records, write_atomic, write_records
from saadi.store import Run
from saadi.training import Progress
from saadi.workers import Context

PHANTOM_CODE = ("data/phantom.py", "worlds/phantom.py", "worlds/scene.py", "worlds/tools.py")
"""What renders the phantom, within the package: with other code, the same settings give other images."""


def phantom_code() -> str:
    """A fingerprint of the code that renders the phantom."""
    return digest([(files("saadi") / name).read_text(encoding="utf-8") for name in PHANTOM_CODE])


def prepare_data(run: Run) -> Dataset:
    """Load or render the images into `data/`, then map them."""
    config = run.config

    def make(folder: Path, progress: Progress) -> None:
        dataset = load_dataset(config.data, config.seed, config.task, progress)
        save_array(folder / "images.npy", dataset.images)
        if dataset.masks is not None:
            save_array(folder / "masks.npy", dataset.masks)
        write_records(folder / "frames.jsonl", dataset.frames)
        write_atomic(folder / "space.json", json.dumps(asdict(dataset.space) | {"notes": dataset.notes}))

    code = phantom_code() if config.data.source == "phantom" else None
    settings = [config.task, config.data.model_dump(mode="json"), config.seed, code]
    return read_data(run.stage("data", make, settings=settings))


def read_data(folder: Path) -> Dataset:
    """The data of a run."""
    kept = json.loads((folder / "space.json").read_text(encoding="utf-8"))
    space = LabelSpace(tuple(kept["names"]), kept["background"])
    return Dataset(
        space=space,
        frames=tuple(read_records(folder / "frames.jsonl", Frame)),
        images=_mapped(folder / "images.npy"),
        notes=tuple(kept["notes"]),
        masks=_mapped(folder / "masks.npy") if space.background else None,
    )


def _mapped(path: Path) -> NDArray[np.uint8]:
    array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def data_of(context: Context) -> Dataset:
    """The data of a job's run, opened once."""
    return context.keep("data", None, lambda: read_data(context.root / "data"))
