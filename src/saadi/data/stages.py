"""Stage 0 in a run's folder: the real images, once, as one mapped array."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from saadi.data import Dataset
from saadi.data.load import load_dataset
from saadi.records import Frame, LabelSpace, read_records, write_atomic, write_records
from saadi.store import Run
from saadi.training import Progress


def prepare_data(run: Run) -> Dataset:
    """Load or render the images into `data/`, then map them."""
    config = run.config

    def make(folder: Path, progress: Progress) -> None:
        dataset = load_dataset(config.data, config.seed, progress)
        np.save(folder / "images.npy", dataset.images)
        write_records(folder / "frames.jsonl", dataset.frames)
        write_atomic(folder / "space.json", json.dumps({"names": dataset.space.names, "notes": dataset.notes}))

    return read_data(run.stage("data", make, settings=[config.data.model_dump(mode="json"), config.seed]))


def read_data(folder: Path) -> Dataset:
    """The data of a run."""
    space = json.loads((folder / "space.json").read_text(encoding="utf-8"))
    return Dataset(
        space=LabelSpace(tuple(space["names"])),
        frames=tuple(read_records(folder / "frames.jsonl", Frame)),
        images=np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False),
        notes=tuple(space["notes"]),
    )
