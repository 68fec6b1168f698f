"""From a configuration to a `Dataset`: the one door through which images come into the method."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saadi.config import DataConfig
from saadi.data import Dataset
from saadi.data.folders import scan_folders
from saadi.data.images import file_digest, read_image, summarise
from saadi.data.phantom import LEAST, SPACE, make_phantom, phantom_frames
from saadi.data.table import Scan, label_space, scan_table
from saadi.errors import BadInput
from saadi.records import SPLITS, Frame, LabelSpace

MIN_TRAIN = 4
"""Training images a class needs: with fewer, a cross-fitted critic has members that never saw the class."""

WORKERS = min(8, os.cpu_count() or 1)


def data_folder(config: DataConfig) -> Path:
    """The data folder of a source on disk. Raises `BadInput` if none is set."""
    if config.path is None:
        raise BadInput(f"data.path is not set; source {config.source} needs the folder that holds the images")
    return config.path


def scan_source(config: DataConfig, seed: int) -> Scan:
    """What a source on disk (table, folders) says it holds, with all problems. Raises `BadInput` if no path is set."""
    folder = data_folder(config)
    return scan_table(folder) if config.source == "table" else scan_folders(folder, config.groups, seed)


def training_problems(frames: Sequence[Frame], where: str, least: int = MIN_TRAIN) -> list[str]:
    """Why the method cannot be trained on these frames, one line each.

    A class with fewer than `least` training images or in one training group only, whose images the critic's member
    without that group would never have seen; fewer than two training groups; an empty val or test. (A class without any
    training image is `saadi.data.table.check_frames`'s to report.)
    """
    train = [frame for frame in frames if frame.split == "train"]
    trained = Counter(frame.label for frame in train)
    problems = [
        f"{where}: class {name} has {trained[name]} training images; {least} are needed: add some or leave it out"
        for name in label_space(frames).names
        if 0 < trained[name] < least
    ]
    groups = {frame.group for frame in train}
    if len(groups) < 2:
        problems.append(
            f"{where}: {len(groups)} groups in train; the critic is cross-fitted by group and needs 2 or more"
        )
    else:
        shown_in = Counter(label for label, _ in {(frame.label, frame.group) for frame in train})
        problems += [
            f"{where}: class {name} occurs in 1 training group; 2 are needed to cross-fit the critic: "
            "move another group that shows it into train, or leave it out"
            for name in sorted(shown_in)
            if shown_in[name] == 1
        ]
    held = {frame.split for frame in frames}
    empty = [split for split in SPLITS[1:] if split not in held]
    return problems + [f"{where}: no images in {split}; move some groups there" for split in empty]


def duplicates(frames: Sequence[Frame], digests: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files of the same bytes, whose `digests` are given: errors, those in two splits, and warnings, those in one."""
    copies: dict[str, list[Frame]] = {}
    for frame, digest in zip(frames, digests, strict=True):
        copies.setdefault(digest, []).append(frame)
    errors, warnings = [], []
    for same in (same for same in copies.values() if len(same) > 1):
        first = {frame.split: frame for frame in reversed(same)}  # of each split: many copies must not hide the other
        across = len(first) > 1
        shown = [frame for frame in same if frame is first[frame.split]] if across else same[:4]
        files = ", ".join(f"{frame.file} ({frame.split}, {frame.label})" for frame in shown)
        if across:
            errors.append(f"the same image in two splits: {files}; keep one")
            continue
        files += ", ..." if len(same) > len(shown) else ""
        under = " under two labels" if len({frame.label for frame in same}) > 1 else " twice"
        warnings.append(f"the same image{under}: {files}")
    return errors, warnings


def list_frames(config: DataConfig, seed: int) -> tuple[LabelSpace, list[Frame], tuple[str, ...]]:
    """Classes, frames and notes of a source, no image opened. Raises `BadInput` with the first problem."""
    if config.source == "phantom":
        if config.phantom.patients[0] < 2:
            raise BadInput("data.phantom.patients: 1 in train; the critic is cross-fitted by group and needs 2 or more")
        space, frames, notes = SPACE, phantom_frames(config.phantom, seed), tuple[str, ...]()
        problems = training_problems(frames, "data.phantom", LEAST)
    else:
        scan = scan_source(config, seed)
        (space, frames), notes = scan.accept(), scan.notes
        problems = training_problems(frames, str(data_folder(config)))
    if problems:
        raise BadInput(problems[0])
    return space, frames, notes


def load_dataset(config: DataConfig, seed: int, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Read or render all images, uint8 RGB [N, size, size, 3], in the order of the table, the folders or the phantom.

    `seed` decides the phantom and a split by group that the source does not give. `progress`: called with the images
    done and the images in all. Raises `BadInput` with the first problem, the same bytes in two splits among them;
    `saadi check` lists them all.
    """
    space, frames, found = list_frames(config, seed)
    if config.source == "phantom":
        return make_phantom(config.phantom, config.size, seed, progress)
    folder = data_folder(config)
    images = np.empty((len(frames), config.size, config.size, 3), np.uint8)
    notes: list[str | None] = []
    digests: list[str] = []

    def read(frame: Frame) -> tuple[NDArray[np.uint8], str | None, str]:
        path = folder / frame.file
        return *read_image(path, config.size, config.square), file_digest(path)

    with ThreadPoolExecutor(WORKERS) as pool:
        for index, (image, note, digest) in enumerate(pool.map(read, frames)):
            images[index] = image
            notes.append(note)
            digests.append(digest)
            if progress:
                progress(index + 1, len(frames))
    across, _ = duplicates(frames, digests)
    if across:
        raise BadInput(f"{folder}: {across[0]}")
    return Dataset(space, tuple(frames), images, (*found, *summarise(notes)))
