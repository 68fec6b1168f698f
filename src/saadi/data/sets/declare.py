"""What is declared of a public set: where its frames lie, what its masks mean, how it is split, where it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from saadi.data.classes import ClassTable
from saadi.data.images import Window
from saadi.data.sets.openers import Opener, grey
from saadi.records import IGNORE, Split, Task

BACKGROUND = "background"


@dataclass(frozen=True)
class Found:
    """One frame on disk: paths relative to the set's root, the video or patient, what labels and split files say."""

    file: str
    group: str
    labels: tuple[str, ...] = ()
    mask: str | None = None
    split: Split | None = None


Finder = Callable[[Path], tuple[list[Found], list[str]]]
"""From the set's root to its frames and notes for people. Raises `BadInput` for what is not as published."""


@dataclass(frozen=True)
class View:
    """One way to look at a set: its classes, and the tasks it serves, the usual one first.

    With a `table` labels are read from masks: which classes an image shows (presence), or of the images that show
    exactly one, which (classification). `names`: the classes of a view without masks, in the order of their ids.
    """

    name: str
    tasks: tuple[Task, ...]
    find: Finder
    table: ClassTable | None = None
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, without the background."""
        return self.table.names[1:] if self.table else self.names


@dataclass(frozen=True)
class SurgicalSet:
    """A public set. `layout`: what its folder must hold, for errors; `inner`: folders that its archive wraps around it,
    any of which `data.path` may name or hold; `split`: the default one in words; `held`: the numbers of the groups of
    val and test, all others being train, none where split files or the seed say it; `patients`: whether paths name the
    video or patient; `unverified`: what was not seen on disk or in a paper. `window`: what is used of each image.

    `videos`: the numbers of its videos where other sets number the same ones alike, as those after Cholec80 do, and
    `usual`: those of them that models are usually trained on. `shares`: by another set's name, what is known of images
    in common that have no number.
    """

    name: str
    title: str
    layout: str
    views: tuple[View, ...]
    split: str
    licence: str
    citation: str
    url: str
    held: Mapping[Split, Sequence[int]] = field(default_factory=dict)
    inner: str = ""
    patients: bool = True
    unverified: tuple[str, ...] = ()
    window: Window | None = None
    videos: frozenset[int] = frozenset()
    usual: frozenset[int] = frozenset()
    shares: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """What `data.path` must hold, in words."""
        return f"{self.layout} (in {self.inner}, or without it)" if self.inner else self.layout


def number(group: str) -> int | None:
    """The last number in a group's name, padded or not: 5 of `Video05`, `video5` and `seq_5`."""
    digits = re.findall(r"\d+", group)
    return int(digits[-1]) if digits else None


def table_of(
    title: str, values: Mapping[int, str | None], opener: Opener = grey, *, colours: bool = False
) -> ClassTable:
    """A table of ids, or `colours` as 0xRRGGBB, each with its class, None where nothing is known.

    Classes come in the order of `values` after the background, which need not occur in a mask.
    """
    names = tuple(dict.fromkeys((BACKGROUND, *(name for name in values.values() if name is not None))))
    ids = {value: IGNORE if name is None else names.index(name) for value, name in values.items()}
    return ClassTable(names, ids, colours, opener=opener, listed=f"the table of {title}")


def without(table: ClassTable, left_out: Sequence[str]) -> ClassTable:
    """The table with the pixels of some classes ignored."""
    names = tuple(name for name in table.names if name not in left_out)
    ids = {
        value: IGNORE if number == IGNORE or table.names[number] in left_out else names.index(table.names[number])
        for value, number in table.values.items()
    }
    return replace(table, names=names, values=ids)
