"""The phantom as a data set: patients with a look of their own, a long tail in train, balanced val and test.

Every image has a generator of its own, keyed by its split and index, so it does not depend on the others. In train a
patient shows only some of the instruments, as real patients do: the most frequent class is seen in three quarters of
the patients, the others in fewer, in proportion to their images, but in two at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi.data import Dataset
from saadi.errors import BadInput
from saadi.imageconfig import PhantomConfig
from saadi.records import SPLITS, Frame, LabelSpace, Split, Task, by_label
from saadi.seeds import numpy_rng
from saadi.worlds.phantom import DIFFICULTY, INSTRUMENTS
from saadi.worlds.scene import Look, Scene, draw_look, render

SPACE = LabelSpace(tuple(tool.name for tool in INSTRUMENTS))
LEAST = 2
"""Images of the rarest class, and patients it lives in, at the least."""

MOST_PATIENTS = 0.75
"""Share of the training patients in which the most frequent class is seen."""


def long_tail(total: int, classes: int, tail: float) -> list[int]:
    """Counts [classes] of exact sum `total`, non-increasing, about `tail ** (c / (classes - 1))`, at least `LEAST`.

    Classes that would fall below `LEAST` get it, the others share the rest; fractions go to the largest remainders.
    Raises `BadInput` if `total` is below `LEAST * classes`.
    """
    if total < LEAST * classes:
        raise BadInput(
            f"data.phantom.train: {total} images for {classes} classes; {LEAST * classes} or more are needed"
        )
    weights = tail ** (np.arange(classes) / max(classes - 1, 1))
    kept = classes
    while True:
        rest = total - LEAST * (classes - kept)
        shares = rest * weights[:kept] / weights[:kept].sum()
        if kept == 1 or shares[-1] >= LEAST:
            break
        kept -= 1
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: rest - counts.sum()]] += 1
    return [int(count) for count in counts] + [LEAST] * (classes - kept)


def _train_frames(config: PhantomConfig, seed: int) -> list[Frame]:
    """Class by class: its images go round its patients; each class takes the next patients of one shuffled round."""
    patients = config.patients[0]
    order = numpy_rng(seed, "phantom", "patients").permutation(patients)
    counts = long_tail(config.train, len(SPACE), config.tail)
    frames: list[Frame] = []
    start = 0
    for name, count in zip(SPACE.names, counts, strict=True):
        spread = min(patients, max(LEAST, math.ceil(MOST_PATIENTS * patients * count / counts[0])))
        for i in range(count):
            patient = order[(start + i % spread) % patients]
            frames.append(Frame(f"train/{len(frames):06d}.png", (name,), f"train-{patient:02d}", "train"))
        start += spread
    return frames


def _balanced_frames(split: Split, total: int, patients: int) -> list[Frame]:
    """Classes in turn, and patients in turn after each round of the classes."""
    count, names = len(SPACE), SPACE.names
    return [
        Frame(f"{split}/{i:06d}.png", (names[i % count],), f"{split}-{i // count % patients:02d}", split)
        for i in range(total)
    ]


def phantom_space(task: Task) -> LabelSpace:
    """The instruments in the order of their frequency in train; for segmentation, after the background."""
    return LabelSpace(("background", *SPACE.names), background=True) if task == "segmentation" else SPACE


def phantom_frames(config: PhantomConfig, seed: int, task: Task) -> list[Frame]:
    """All frames, unrendered, in the order train, val, test; each shows one instrument, whatever the task.

    `file` and, for segmentation, `mask` are names only: the phantom lies on no disk.
    """
    frames = [
        *_train_frames(config, seed),
        *_balanced_frames("val", config.val, config.patients[1]),
        *_balanced_frames("test", config.test, config.patients[2]),
    ]
    return [replace(frame, mask=f"masks/{frame.file}") for frame in frames] if task == "segmentation" else frames


def _look(seed: int, patient: str) -> Look:
    return draw_look(numpy_rng(seed, "look", patient))


def _mask(scene: Scene, label: str) -> NDArray[np.uint8]:
    """The id map [S, S] of a scene of an instrument, in the space of segmentation."""
    return np.where(scene.tool > 0, phantom_space("segmentation").id(label), 0).astype(np.uint8)


def make_phantom(
    config: PhantomConfig, size: int, seed: int, task: Task, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Render the whole phantom; images uint8 RGB [N, size, size, 3], about 100 a second at 64 pixels.

    The images are the same for every task. For segmentation they have masks: the instrument, shaft and tip, where it is
    visible. `progress`: called with the images made and the images in all. Raises `BadInput` as `long_tail` does.
    """
    space, frames = phantom_space(task), phantom_frames(config, seed, task)
    looks = {patient: _look(seed, patient) for patient in {frame.group for frame in frames}}
    images = np.empty((len(frames), size, size, 3), np.uint8)
    masks = np.empty(images.shape[:3], np.uint8) if task == "segmentation" else None
    done = 0
    for split in SPLITS:
        for index, frame in enumerate(frame for frame in frames if frame.split == split):
            rng = numpy_rng(seed, "phantom", split, index)
            scene = render(INSTRUMENTS[SPACE.id(frame.label)], looks[frame.group], rng, size, DIFFICULTY)
            images[done] = scene.image
            if masks is not None:
                masks[done] = _mask(scene, frame.label)
            done += 1
            if progress:
                progress(done, len(frames))
    return Dataset(space, tuple(frames), images, masks=masks)


def oracle_images(count: int, size: int, seed: int, task: Task) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Images uint8 RGB [count, size, size, 3], classes in turn, each of a patient seen once, and the task's targets.

    What only a phantom has: plenty. A judge that learns from them knows the classes and none of the run's patients.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    masks = np.empty((count if task == "segmentation" else 0, size, size), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(SPACE)
    for i, label in enumerate(labels):
        rng = numpy_rng(seed, "phantom", "oracle", i)
        scene = render(INSTRUMENTS[label], draw_look(rng), rng, size, DIFFICULTY)
        images[i] = scene.image
        if task == "segmentation":
            masks[i] = _mask(scene, SPACE.names[label])
    if task == "segmentation":
        return images, masks
    return images, np.eye(len(SPACE), dtype=np.int64)[labels] if task == "presence" else labels


def fresh_images(
    config: PhantomConfig, size: int, seed: int, patients: Collection[str], per_class: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]:
    """New images of training patients, equally many of each class: the yardstick of memorisation.

    Within a class, each patient is seen as often as in train. `patients`: names of training patients, e.g. all of them.
    Returns images uint8 RGB [N, size, size, 3], instruments' numbers [N] and groups [N], class by class, `per_class` of
    each; a
    class that none of the patients shows in train is left out. Raises `ValueError` if that leaves none.
    """
    pools = by_label([frame for frame in _train_frames(config, seed) if frame.group in patients])
    if not pools:
        raise ValueError(f"none of {sorted(patients)} is a training patient with images")
    images = np.empty((len(pools) * per_class, size, size, 3), np.uint8)
    chosen: list[Frame] = []
    for label, pool in pools.items():
        tool, order = INSTRUMENTS[SPACE.id(label)], numpy_rng(seed, "phantom", "fresh", label).permutation(len(pool))
        for i in range(per_class):
            frame, rng = pool[order[i % len(pool)]], numpy_rng(seed, "phantom", "fresh", label, i)
            images[len(chosen)] = render(tool, _look(seed, frame.group), rng, size, DIFFICULTY).image
            chosen.append(frame)
    labels = np.array([SPACE.id(frame.label) for frame in chosen], np.int64)
    return images, labels, np.array([frame.group for frame in chosen])
