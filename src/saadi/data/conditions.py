"""What samples are asked to show: the k-th condition of a class, for a purpose. The same for every arm and model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from saadi.config import RunConfig
from saadi.data import IGNORE, Dataset
from saadi.data.layouts import Layout, make_layout
from saadi.records import Condition
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


def conditions_of(config: RunConfig, train: Dataset, purpose: str) -> Conditions:
    """The conditions of a task, from its training images.

    Classification: the class. Presence: the classes that a training image with the class shows. Segmentation: a layout,
    of which the share `layouts.moved` moves the object of one training image onto an image of another group; donors
    take turns, and groups are as likely to be painted on, whether they have many images or few.
    """
    if config.task == "classification":
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
        if config.task == "presence":
            others = [other for other in train.frames[donor].labels if other != label]
            return Condition("+".join(sorted([label, *others])), (label, *others))
        elsewhere = sorted(set(groups.tolist()) - {str(groups[donor])})
        frame = donor
        if label in movable and elsewhere and rng.random() < config.layouts.moved:
            group = elsewhere[rng.integers(len(elsewhere))]
            frame = int(rng.choice(np.flatnonzero(groups == group)))
        return Condition(name, (label,), frame, donor)

    return chosen
