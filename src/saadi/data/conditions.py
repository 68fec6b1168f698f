"""What samples are asked to show: the k-th condition of a class, for a purpose. The same for every arm and model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from saadi.config import RunConfig
from saadi.data import Dataset
from saadi.data.layouts import Layout, make_layout
from saadi.records import IGNORE, Condition
from saadi.seeds import numpy_rng

Conditions = Callable[[str, int], Condition]
"""A class and a number to a condition."""


def things_of(config: RunConfig, train: Dataset) -> list[int]:
    """Ids of the classes that may be moved, and replaced: those named, or else all that are asked for."""
    return [train.space.id(name) for name in config.layouts.things or train.space.asked]


def layout_of(config: RunConfig, train: Dataset, condition: Condition, cell: int) -> Layout:
    """The layout of a condition. What a replaced thing hid is background where all classes are things, else unknown."""
    assert train.masks is not None
    frame, donor = condition.place
    things = things_of(config, train)
    return make_layout(
        numpy_rng(config.seed, "layout", condition.id),
        np.asarray(train.masks[frame]),
        train.space.id(condition.label),
        None if donor == frame else np.asarray(train.masks[donor]),
        things,
        config.layouts,
        cell,
        erased=0 if len(things) == len(train.space.asked) else IGNORE,
    )


def requests_of(
    config: RunConfig, train: Dataset, conditions: Sequence[Condition], maps: NDArray[np.uint8] | None
) -> tuple[NDArray[Any], ...]:
    """What N images are to show, in the form a task's criterion takes: class ids [N]; sets [N, A] of 0 and 1; or their
    id maps [N, S, S], known in the painted region and a rim around it only, and the ids asked for in them [N]."""
    space = train.space
    ids = np.array([space.id(one.label) for one in conditions])
    if config.task == "classification":
        return (ids,)
    if maps is None:
        return (np.array([[name in one.labels for name in space.names] for one in conditions], np.int64),)
    known = maps.copy()
    for row, one in enumerate(conditions):
        region = layout_of(config, train, one, 1).region
        near = ndimage.distance_transform_edt(~region) <= config.layouts.rim[0] * len(region)
        known[row][~near] = IGNORE
    return known, ids


def conditions_of(config: RunConfig, train: Dataset, purpose: str) -> Conditions:
    """The conditions of a task, from its training images.

    Classification: the class. Presence: the classes that a training image with the class shows. Of both, where samples
    start from training images (`sampling.strength` below 1), that image; they take turns. Segmentation: a layout, of
    which the share `layouts.moved` moves the object of one training image onto an image of another group; donors take
    turns, and groups are as likely to be painted on, whether they have many images or few.
    """
    edits = config.sampling.strength < 1
    if config.task == "classification" and not edits:
        return lambda label, number: Condition.of(label)
    shows = {name: np.flatnonzero([name in frame.labels for frame in train.frames]) for name in train.space.asked}
    groups = train.groups
    movable = {train.space.names[number] for number in things_of(config, train)}

    def chosen(label: str, number: int) -> Condition:
        rng = numpy_rng(config.seed, "condition", purpose, label, number)
        rows = shows[label]
        turn = numpy_rng(config.seed, "donors", purpose, label, number // len(rows)).permutation(len(rows))
        donor = int(rows[turn[number % len(rows)]])
        name = f"{purpose}-{label}-{number:05d}"
        if config.task != "segmentation":
            labels = (label, *(other for other in train.frames[donor].labels if other != label))
            return Condition(name, labels, start=donor) if edits else Condition("+".join(sorted(labels)), labels)
        elsewhere = sorted(set(groups.tolist()) - {str(groups[donor])})
        frame = donor
        if label in movable and elsewhere and rng.random() < config.layouts.moved:
            group = elsewhere[rng.integers(len(elsewhere))]
            frame = int(rng.choice(np.flatnonzero(groups == group)))
        return Condition(name, (label,), frame, donor)

    return chosen
