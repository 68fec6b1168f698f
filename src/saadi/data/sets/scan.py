"""From a set's folder to a `Scan`, as from a table: frames found, strided, split, and labels carved from masks."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from saadi.data.classes import ClassTable
from saadi.data.folders import MIN_GROUPS, groups_from_pattern, split_groups
from saadi.data.masks import open_mask, shown, unknown_values
from saadi.data.sets.catalogue import find_view
from saadi.data.sets.declare import Found, SurgicalSet, View, number, without
from saadi.data.table import Scan, check_folder
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import SPLITS, Frame, LabelSpace, Split, Task
from saadi.seeds import numpy_rng

WORKERS = min(8, os.cpu_count() or 1)
VAL_SHARE = 0.2
"""Of the training groups, where a published split has no val."""


def _root(folder: Path, inner: str) -> Path:
    """Where the set begins: the data folder, or within it the folders, or the last of them, that the archive adds."""
    parts = PurePosixPath(inner).parts
    inside = (folder.joinpath(*parts[at:]) for at in range(len(parts)))
    return next((path for path in inside if path.is_dir()), folder)


def _holds(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "nothing"


def _strided(found: Sequence[Found], every: int) -> list[Found]:
    """Every n-th frame of each group, the first one included."""
    seen: Counter[str] = Counter()
    kept = []
    for one in found:
        if seen[one.group] % every == 0:
            kept.append(one)
        seen[one.group] += 1
    return kept


def _keep(view: View, left_out: Sequence[str]) -> tuple[tuple[str, ...], ClassTable | None]:
    """The classes without those left out, and the table. Raises `BadInput` for a class that is not there."""
    for name in left_out:
        if name not in view.classes:
            near = difflib.get_close_matches(name, view.classes, 1, 0.4)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(view.classes)}"
            raise BadInput(f"data.leave_out: no class is called {name!r}; {hint}")
    names = tuple(name for name in view.classes if name not in left_out)
    if not names:
        raise BadInput("data.leave_out: leaves no class")
    return names, without(view.table, left_out) if view.table else None


def _carve(found: Sequence[Found], root: Path, table: ClassTable) -> list[Found]:
    """The frames with the classes that their masks show in any pixel."""

    def look(one: Found) -> Found:
        path = root / str(one.mask)
        mask = open_mask(path, table)
        if problem := unknown_values(path, mask, table):
            raise BadInput(problem)
        return replace(one, labels=shown(mask.ids, table.space), mask=None)

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(look, found))


def _labelled(
    found: Sequence[Found], root: Path, names: tuple[str, ...], table: ClassTable | None, task: Task
) -> tuple[list[Found], list[str]]:
    """The frames with their labels as a task wants them, of classification only those that show exactly one class."""
    frames = _carve(found, root, table) if table else list(found)
    frames = [replace(one, labels=tuple(name for name in names if name in one.labels)) for one in frames]
    if task != "classification":
        return frames, []
    single = [one for one in frames if len(one.labels) == 1]
    lost = len(frames) - len(single)
    note = f"{lost} of {len(frames)} images are left out, which do not show exactly one of {', '.join(names)}"
    return single, [note] if lost else []


def _drawn(found: Sequence[Found], names: Sequence[str], seed: int) -> dict[str, Split]:
    """A seeded split of the groups, 60/20/20, each class in each split where it can be. Raises `BadInput`."""
    groups = sorted({one.group for one in found})
    if len(groups) < MIN_GROUPS:
        raise BadInput(f"expected {MIN_GROUPS} groups or more to share out, found {len(groups)}")
    counts = np.zeros((len(groups), max(1, len(names))), np.int64)
    place = {group: row for row, group in enumerate(groups)}
    for one in found:
        for label in one.labels:
            counts[place[one.group], names.index(label)] += 1
    return {
        group: SPLITS[split]
        for group, split in zip(groups, split_groups(counts, numpy_rng(seed, "split")), strict=True)
    }


def _with_val(splits: dict[str, Split], seed: int) -> dict[str, Split]:
    """The split with a fifth of the training groups as val, by the seed; one at least stays in train."""
    train = sorted(group for group, split in splits.items() if split == "train")
    count = min(max(1, round(VAL_SHARE * len(train))), max(0, len(train) - 1))
    order = numpy_rng(seed, "split").permutation(len(train))
    moved: dict[str, Split] = {train[row]: "val" for row in order[:count]}
    return splits | moved


def _split(
    chosen: SurgicalSet, found: Sequence[Found], names: Sequence[str], seed: int
) -> tuple[dict[str, Split], list[str]]:
    """The split of each group and notes on it: published, or by the seed where that is all there is."""
    notes = [f"{chosen.title}: split {chosen.split}"]
    of_number: dict[int, Split] = {one: split for split, held in chosen.held.items() for one in held}
    given: dict[str, Split] = {one.group: one.split for one in found if one.split}
    there = {number(one.group) for one in found}
    for split, held in chosen.held.items():
        if lost := [one for one in held if one not in there]:
            notes.append(f"not found: {', '.join(map(str, lost))} of {split}, as the split has it")
    if not of_number and not given:
        splits = _drawn(found, names, seed)
    else:
        splits = given or {one.group: of_number.get(number(one.group) or 0, "train") for one in found}
        if "val" in {*chosen.held, *given.values()}:
            return splits, notes
        splits = _with_val(splits, seed)
    sizes = Counter(splits.values())
    notes.append(f"by seed {seed}: " + ", ".join(f"{sizes[split]} {split}" for split in SPLITS) + " groups")
    return splits, notes


def scan_set(config: DataConfig, folder: Path, seed: int, task: Task) -> Scan:
    """Find a public set's frames below `folder` as its declaration says. No image is opened, masks where labels are
    carved from them.

    Whatever the folder lacks is one problem: what was expected, what was found, where to get the data. Raises
    `BadInput` for settings that do not fit: an unknown set, view or class, a view that does not serve the task.
    """
    chosen, view = find_view(config.set, task)
    names, table = _keep(view, config.leave_out)
    source = f"get {chosen.title} from {chosen.url}"
    if problem := check_folder(folder):
        return Scan(problems=(f"{problem}, which must hold {chosen.expected}; {source}",))
    root = _root(folder, chosen.inner)
    try:
        found, notes = view.find(root)
        if not found:
            raise BadInput(f"expected {chosen.expected}, found {_holds(folder)}")
        if config.groups:
            if chosen.patients or found[0].split:
                raise BadInput("data.groups: this set says its groups or split itself; leave the setting out")
            groups, problems = groups_from_pattern([one.file for one in found], config.groups)
            if problems:
                return Scan(problems=tuple(problems))
            found = [replace(one, group=groups[one.file]) for one in found]
        found = _strided(found, config.every)
        masked = task == "segmentation"
        found, more = _labelled(found, root, names, table, task) if not masked else (found, [])
        splits, said = _split(chosen, found, names, seed)
    except BadInput as error:
        return Scan(problems=(f"{folder}: {error}; {source}",))
    if not chosen.patients and not config.groups and any(one.group == one.file for one in found):
        said.append("no patient is given: each image is a group, so a patient may be in two splits")
    before = root.relative_to(folder)
    frames = tuple(
        Frame(
            (before / one.file).as_posix(),
            one.labels,
            one.group,
            splits[one.group],
            (before / one.mask).as_posix() if masked and one.mask else None,
        )
        for one in found
    )
    space = table.space if masked and table else LabelSpace(names)
    said_all = (*notes, *more, *said)
    return Scan(frames, (), said_all, space, table if masked else None, window=chosen.window)
