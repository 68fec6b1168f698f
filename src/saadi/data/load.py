"""From a configuration to a `Dataset`: the one door through which images come into the method."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saadi.data import Dataset
from saadi.data.folders import scan_folders
from saadi.data.images import cut, identity, open_rgb, summarise, to_square
from saadi.data.masks import read_mask, shown
from saadi.data.phantom import LEAST, make_phantom, phantom_frames, phantom_space
from saadi.data.rules import duplicates, group_problems, training_problems
from saadi.data.sets.scan import WORKERS, scan_set
from saadi.data.table import Scan, scan_table
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import Frame, LabelSpace, Split, Task


def data_folder(config: DataConfig) -> Path:
    """The data folder of a source on disk. Raises `BadInput` if none is set."""
    if config.path is None:
        raise BadInput(f"data.path is not set; source {config.source} needs the folder that holds the images")
    return config.path


def scan_source(config: DataConfig, seed: int, task: Task) -> Scan:
    """What a source on disk (table, folders, set) says it holds, split as `data.val` and `data.test` ask; all problems.

    No image is opened, and no mask but of a set whose labels are carved from masks, so the frames of segmentation have
    no labels yet. Raises `BadInput` if no path is set or
    the source does not serve the task.
    """
    folder = data_folder(config)
    if config.source == "table":
        scan, where = scan_table(folder, task), folder / "labels.csv"
    elif config.source == "set":
        scan, where = scan_set(config, folder, seed, task), folder
    elif task == "classification":
        scan, where = scan_folders(folder, config.groups, seed), folder
    else:
        raise BadInput(f"data.source: folders say one class of an image, not what {task} needs; use table")
    frames, problems, notes = _chosen_splits(config, (*scan.frames, *scan.absent))
    return replace(
        scan,
        frames=tuple(frames[: len(scan.frames)]),
        problems=(*scan.problems, *problems, *group_problems(frames, str(where))),
        notes=(*scan.notes, *notes),
    )


def _chosen_splits(config: DataConfig, frames: tuple[Frame, ...]) -> tuple[list[Frame], list[str], list[str]]:
    """Frames with the groups of `data.val` and `data.test` there, no others with them; problems; and a note on it."""
    chosen: dict[Split, tuple[str, ...]] = {"val": config.val, "test": config.test}
    if not frames or not any(chosen.values()):
        return list(frames), [], []
    there = sorted({frame.group for frame in frames})
    lower = {name.lower(): name for name in there}
    problems = []
    for split, names in chosen.items():
        for name in dict.fromkeys(name for name in names if name not in there):
            near = difflib.get_close_matches(name.lower(), lower, 1, 0.4)
            hint = (
                f"did you mean {lower[near[0]]}?"
                if near
                else f"there are {', '.join(there[:5])}{' and more' * (len(there) > 5)}"
            )
            problems.append(f"data.{split}: no group is called {name!r}; {hint}")
    both = sorted({*config.val} & {*config.test})
    problems += [f"data.val and data.test: both name {name}; a group is in one split" for name in both]
    if problems:
        return list(frames), problems, []
    named: dict[str, Split] = {name: split for split, names in chosen.items() for name in names}

    def split_of(frame: Frame) -> Split:
        return named.get(frame.group, "train" if chosen.get(frame.split) else frame.split)

    moved = [replace(frame, split=split_of(frame)) for frame in frames]
    said = " and ".join(f"{split} is {', '.join(names)}" for split, names in chosen.items() if names)
    return moved, [], [f"splits as the configuration says: {said}"]


def list_frames(config: DataConfig, seed: int, task: Task) -> tuple[LabelSpace, list[Frame], tuple[str, ...]]:
    """Classes, frames and notes of a source. Raises `BadInput` with the first problem.

    No image is opened; of segmentation the masks are, since they say which classes an image shows.
    """
    if config.source == "phantom":
        if config.val or config.test:
            raise BadInput("data.val, data.test: are for images on disk; data.phantom.patients shares out a phantom's")
        if config.phantom.patients[0] < 2:
            raise BadInput("data.phantom.patients: 1 in train; the critic is cross-fitted by group and needs 2 or more")
        space, frames, notes = phantom_space(task), phantom_frames(config.phantom, seed, task), tuple[str, ...]()
        _refuse(training_problems(space, frames, "data.phantom", task, LEAST))
        return space, frames, notes
    space, frames, notes = labelled_frames(config, seed, task)
    _refuse(training_problems(space, frames, str(config.path), task))
    return space, frames, notes


def labelled_frames(config: DataConfig, seed: int, task: Task) -> tuple[LabelSpace, list[Frame], tuple[str, ...]]:
    """As `list_frames`, of a source on disk and whatever its splits."""
    folder, scan = data_folder(config), scan_source(config, seed, task)
    space, frames = scan.accept()
    if table := scan.classes:

        def label(frame: Frame) -> Frame:
            mask = read_mask(folder / str(frame.mask), table, config.size, config.square)
            return replace(frame, labels=shown(mask, space))

        with ThreadPoolExecutor(WORKERS) as pool:
            frames = list(pool.map(label, frames))
    return space, frames, scan.notes


def _refuse(problems: list[str]) -> None:
    if problems:
        raise BadInput(problems[0])


def load_dataset(
    config: DataConfig, seed: int, task: Task, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Read or render all images, uint8 RGB [N, size, size, 3], in the order of the table, the folders or the phantom,
    and for segmentation all masks.

    `seed` decides the phantom and a split by group that the source does not give. `progress`: called with the images
    done and the images in all. Raises `BadInput` with the first problem, the same bytes in two splits among them;
    `saadi check` lists them all.
    """
    if config.source == "phantom":
        list_frames(config, seed, task)
        return make_phantom(config.phantom, config.size, seed, task, progress)
    folder, scan = data_folder(config), scan_source(config, seed, task)
    space, frames = scan.accept()
    table = scan.classes
    if table is None:
        _refuse(training_problems(space, frames, str(folder), task))
    images = np.empty((len(frames), config.size, config.size, 3), np.uint8)
    masks = np.empty(images.shape[:3], np.uint8) if table else None
    notes: list[str | None] = []
    digests: list[str] = []

    def read(frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, str | None, str]:
        path = folder / frame.file
        image, note = open_rgb(path)
        image = cut(image, scan.window)
        mask = None
        if table:
            mask = read_mask(folder / str(frame.mask), table, config.size, config.square, (path, image))
        return np.asarray(to_square(image, config.size, config.square)), mask, note, identity(path, image)

    with ThreadPoolExecutor(WORKERS) as pool:
        for index, (image, mask, note, digest) in enumerate(pool.map(read, list(frames))):
            images[index] = image
            if masks is not None and mask is not None:
                masks[index] = mask
                frames[index] = replace(frames[index], labels=shown(mask, space))
            notes.append(note)
            digests.append(digest)
            if progress:
                progress(index + 1, len(frames))
    across, _ = duplicates(frames, digests)
    if across:
        raise BadInput(f"{folder}: {across[0]}")
    if table:
        _refuse(training_problems(space, frames, str(folder), task))
    return Dataset(space, tuple(frames), images, (*scan.notes, *summarise(notes)), masks)
