"""Class folders: `<class>/...` or `{train,val,test}/<class>/...`, the patient from a CSV or the file's path."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saadi.data.classes import check_label
from saadi.data.images import find_outside
from saadi.data.table import Scan, absence_hint, check_folder, label_space, parse_split, read_rows
from saadi.errors import BadInput
from saadi.records import SPLITS, Frame, Split
from saadi.seeds import numpy_rng

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
BESIDE = (".csv", ".json", ".txt", ".md", ".db", ".ini")
"""What may lie among images without being meant as one: tables, notes, and what file browsers leave behind."""

SPLIT_WORDS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""What people call the folders of a split, in small letters."""

SHARES = (0.6, 0.2, 0.2)
MIN_GROUPS = 4
"""Two to train on, since the critic is cross-fitted by group, and one each for val and test."""

TRIALS = 200

Found = tuple[str, str, Split | None]
"""A file relative to the data folder, its class, and its split if a folder says so."""


def _deal(counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One random split [G] in which each split first takes a group for every class it can, train before the others.

    Train takes a second one, which cross-fitting needs, as far as that does not make it larger.
    """
    groups = len(counts)
    order = rng.permutation(groups)
    rarest_first = np.argsort((counts > 0).sum(0), kind="stable")
    split = np.full(groups, -1)

    def cover(name: int, most: int, times: int = 1) -> None:
        for label in rarest_first:
            held = order[(split[order] < 0) & (counts[order, label] > 0)]
            shown_in = (counts[split == name, label] > 0).sum()
            if len(held) and shown_in < times and (split == name).sum() < most:
                split[held[0]] = name

    cover(0, groups - 2)
    least = max(1, round(SHARES[1] * groups))
    train = max(int((split == 0).sum()), groups - 2 * least)
    val = (groups - train) // 2
    test = groups - train - val
    cover(0, train, times=2)
    cover(2, test)
    cover(1, val)
    sizes = np.array([train, val, test]) - [(split == name).sum() for name in range(3)]
    split[order[split[order] < 0]] = np.repeat(np.arange(3), sizes)
    return split


def split_groups(counts: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Share groups out to train, val and test, about 60/20/20, each class in train and, where it can be, in the others.

    `counts` [G, C]: images by group and class, G >= 3. Returns [G], an index into `SPLITS`; no split is empty. The best
    of `TRIALS` random deals: fewest classes missing from train, then in one training group only, which cross-fitting
    cannot use, then missing from val and test, then nearest to the shares in the images of each class.
    """
    totals = counts.sum(0)

    def cost(split: NDArray[np.int64]) -> tuple[int, int, int, float]:
        held = np.stack([counts[split == name].sum(0) for name in range(3)])
        away = np.abs(held / np.maximum(totals, 1) - np.array(SHARES)[:, None]).sum()
        shown_in = (counts[split == 0] > 0).sum(0)
        return int((shown_in == 0).sum()), int((shown_in == 1).sum()), int((held[1:] == 0).sum()), float(away)

    return min((_deal(counts, rng) for _ in range(TRIALS)), key=cost)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """Files below a folder, relative to `root`, sorted: images, and others that may be meant as such; none hidden."""
    files = sorted(path.relative_to(root) for path in folder.rglob("*") if path.is_file())
    shown = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    images = [file.as_posix() for file in shown if file.suffix.lower() in SUFFIXES]
    return images, [file.as_posix() for file in shown if file.suffix.lower() not in (*SUFFIXES, *BESIDE)]


def _left_out(others: list[str], loose: list[str]) -> list[str]:
    """Notes on the files of class folders that are no images, and on images that lie in no class folder."""
    notes = []
    if others:
        endings = ", ".join(sorted({Path(file).suffix.lower() or "none" for file in others})[:5])
        are = "files are no images by their ending" if len(others) > 1 else "file is no image by its ending"
        notes.append(f"{len(others)} {are} ({endings}) and left out, first {others[0]}")
    if loose:
        lie = "images lie in no class folder and are" if len(loose) > 1 else "image lies in no class folder and is"
        notes.append(f"{len(loose)} {lie} left out, first {loose[0]}")
    return notes


def _loose(places: list[Path], root: Path) -> list[str]:
    """Images directly in a folder that is to hold folders, relative to `root`."""
    files = sorted(path for place in places for path in place.iterdir() if not path.name.startswith("."))
    return [path.relative_to(root).as_posix() for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]


def _misnamed(folder: Path, tops: list[Path]) -> list[str]:
    """Top folders that mean a split but are not named as one: taken for classes, they would undo the user's split.

    `valid` beside `invalid` may be classes; what is called after training beside others is none.
    """
    meant = [top.name for top in tops if top.name.strip().lower() in SPLIT_WORDS]
    if len(meant) < len(tops) and not any(name.strip().lower().startswith("train") for name in meant):
        return []
    problems = []
    for name in meant:
        try:
            parse_split(name)
        except BadInput as error:
            problems.append(f"{folder}: {error} Rename the folder: of splits they are called train, val and test")
    return problems


def _find(folder: Path) -> tuple[list[Found], list[str], list[str]]:
    """All images by class and, if the top folders are splits, by split; problems; and notes on what is left out."""
    tops = _visible(folder)
    if problems := _misnamed(folder, tops):
        return [], problems, []
    others = [top.name for top in tops if top.name not in SPLITS]
    if len(others) < len(tops) and others:
        beside = f"{folder}: {others[0]} lies beside train, val or test; move class folders into these or use none"
        return [], [beside], []
    lost: list[str] = []
    loose = _loose([folder] if others else [folder, *tops], folder)
    found: list[Found] = []
    for top in tops:
        split = None if others else parse_split(top.name)
        for kind in [top] if others else _visible(top):
            files, more = _files(kind, folder)
            lost += more
            found += [(file, kind.name, split) for file in files]
            if not files and split is None:
                problems.append(f"{kind}: no images ({', '.join(SUFFIXES)}); add some or remove the class folder")
            if problem := check_label(kind.name):
                problems.append(f"{folder}: {problem}")
    if not found:
        problems = [f"{folder}: no images; expected a folder for each class, or train, val and test folders of these"]
    return found, list(dict.fromkeys(problems)), _left_out(lost, loose)


def groups_from_pattern(files: list[str], pattern: str) -> tuple[dict[str, str], list[str]]:
    """The patient of each file, by the first group of a regular expression searched in its path; and problems."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        return {}, [f"data.groups: {pattern!r} is no regular expression: {error}; a table of groups must end in .csv"]
    if not compiled.groups:
        return {}, [f"data.groups: {pattern!r} has no group; put the patient's part in brackets, as in (P\\d+)"]
    matches = {file: match[1] for file in files if (match := compiled.search(file)) and match[1]}
    if lost := [file for file in files if file not in matches]:
        found = f"{pattern!r} names no patient in {len(lost)} of {len(files)} files, first {lost[0]}"
        return matches, [f"data.groups: {found}; widen the expression or list the groups in a CSV"]
    return matches, []


def _from_csv(files: list[str], path: Path) -> tuple[dict[str, str], dict[str, Split], list[str]]:
    """Groups and, where the CSV has them, splits by file; and problems."""
    rows, problems = read_rows(path, ("file", "group"), ("split",))
    groups: dict[str, str] = {}
    splits: dict[str, Split] = {}
    there, absent = set(files), []
    for row, values in rows:
        file = Path(values["file"]).as_posix()
        if file in groups:
            problems.append(f"{path}, row {row}: {file} is listed before; keep one")
            continue
        if file not in there:
            absent.append((row, file))
        groups[file] = values["group"]
        try:
            if "split" in values:
                splits[file] = parse_split(values["split"])
        except BadInput as error:
            problems.append(f"{path}, row {row}: {error}")
    if absent:
        row, file = absent[0]
        hint = absence_hint(file, there.__contains__) or "; remove them"
        problems.append(f"{path}, row {row}: {file} is no image of the folder ({len(absent)} such rows){hint}")
    if rows and (lost := [file for file in files if file not in groups]):
        problems.append(f"{path}: {len(lost)} of {len(files)} images are not listed, first {lost[0]}; add their rows")
    return groups, splits, problems


def scan_folders(folder: Path, groups: str | None, seed: int) -> Scan:
    """Find the images in class folders and collect every problem rather than the first. Opens no image.

    `groups`: a CSV, recognised by its ending and relative to `folder`, with `file,group` and perhaps `split`; or a
    regular expression, searched in each file's path relative to `folder`, whose first group is the patient. A split
    that neither the folders nor the CSV give is drawn by group (`split_groups`), deterministically in `seed`. Problems:
    no folder, images or groups; a bad expression; a file without a group; fewer than `MIN_GROUPS` groups to share out.
    """
    if problem := check_folder(folder):
        return Scan(problems=(problem,))
    if not groups:
        hint = "give a CSV (file,group) or a regular expression, so that no patient is in two splits"
        return Scan(problems=(f"data.groups is not set; {hint}",))
    found, problems, notes = _find(folder)
    if not found:
        return Scan(problems=tuple(problems), notes=tuple(notes))
    files = [file for file, _, _ in found]
    problems += [f"{folder}: {file!r} holds control characters; rename it" for file in files if not file.isprintable()]
    for file in files:
        try:
            find_outside(folder / file, folder)
        except BadInput as error:
            problems.append(str(error))
    given: dict[str, Split] = {}
    if groups.lower().endswith(".csv"):
        owner, given, more = _from_csv(files, folder / groups)
    else:
        owner, more = groups_from_pattern(files, groups)
    problems += more
    problems += [
        f"{folder}: {file} lies in {split} but its row says {given[file]}; make them agree"
        for file, _, split in found
        if split and given.get(file, split) != split
    ]
    if problems:
        return Scan(problems=tuple(problems), notes=tuple(notes))
    splits = {file: place for file, _, split in found if (place := split or given.get(file))}
    if not splits:
        named = len(set(owner.values()))
        if named < MIN_GROUPS:
            needed = f"{MIN_GROUPS} are needed to share out: 2 to train, 1 for val, 1 for test"
            return Scan(problems=(f"data.groups: {named} groups in {folder}; {needed}",), notes=tuple(notes))
        splits, note = _draw(found, owner, seed)
        notes = [note, *notes]
    frames = tuple(Frame(file, (label,), owner[file], splits[file]) for file, label, _ in found)
    return Scan(frames, (), tuple(notes), label_space(frames))


def _draw(found: list[Found], owner: dict[str, str], seed: int) -> tuple[dict[str, Split], str]:
    """A seeded split of all files by group, and a note that says so."""
    names, group = np.unique([owner[file] for file, _, _ in found], return_inverse=True)
    labels, label = np.unique([label for _, label, _ in found], return_inverse=True)
    counts = np.zeros((len(names), len(labels)), np.int64)
    np.add.at(counts, (group, label), 1)
    split = split_groups(counts, numpy_rng(seed, "split"))
    shares = ", ".join(f"{count} {name}" for name, count in zip(SPLITS, np.bincount(split, minlength=3), strict=True))
    note = f"no split is given: {len(names)} groups were shared out by seed {seed} ({shares})"
    return {file: SPLITS[split[g]] for (file, _, _), g in zip(found, group, strict=True)}, note
