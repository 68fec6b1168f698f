"""The folder contract: `images/`, `labels.csv` with a row an image, and for segmentation `masks/`, `classes.json`."""

from __future__ import annotations

import csv
import difflib
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from saadi.data.classes import ClassTable, check_label, read_classes
from saadi.data.images import Window, find_outside
from saadi.errors import BadInput
from saadi.exchange import plain_cell
from saadi.records import SPLITS, Frame, LabelSpace, Split, Task

COLUMNS: dict[Task, tuple[str, ...]] = {
    "classification": ("file", "label", "group", "split"),
    "segmentation": ("file", "mask", "group", "split"),
    "presence": ("file", "group", "split"),
}
NO_CLASSES = LabelSpace(())
HAS = "has_"
"""What the columns of presence begin with."""


@dataclass(frozen=True)
class Scan:
    """What a data folder says it holds. `problems`: one line each; `frames`: those whose files exist, `absent`: the
    others; `classes`: how to read the masks of segmentation, which alone know the labels of its frames; `window`: what
    is used of each image, where that is not all of it."""

    frames: tuple[Frame, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    space: LabelSpace = NO_CLASSES
    classes: ClassTable | None = None
    absent: tuple[Frame, ...] = ()
    window: Window | None = None

    def accept(self) -> tuple[LabelSpace, list[Frame]]:
        """The classes and the frames. Raises `BadInput` with the first problem."""
        if self.problems:
            raise BadInput(self.problems[0])
        return self.space, list(self.frames)


def label_space(frames: Iterable[Frame]) -> LabelSpace:
    """The classes that occur, sorted by name."""
    return LabelSpace(tuple(sorted({label for frame in frames for label in frame.labels})))


def parse_split(text: str) -> Split:
    """`train`, `val` or `test`. Raises `BadInput` that names the nearest of them."""
    for name in SPLITS:
        if text == name:
            return name
    near = difflib.get_close_matches(text.lower(), SPLITS, 1, 0.4)
    raise BadInput(f"unknown split {text!r}" + (f"; did you mean {near[0]}?" if near else "; use train, val or test"))


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), prefix: str | None = None
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Rows of a CSV file, by line number (the header is 1), with the named columns only, and problems, one line each.

    A byte order mark, CRLF, blank lines, blanks around a value and further columns are tolerated. An `optional` column,
    or one that begins with `prefix`, is in the rows if it is in the header. A row in which a value is empty or not
    printable is a problem and left out.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    problems: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            header = [name.strip() for name in next(reader, [])]
            more = dict.fromkeys(name for name in header if prefix and name.startswith(prefix))
            columns = [name for name in (*required, *optional, *more) if name in header]
            if not set(required) <= set(columns):
                lacking = ", ".join(name for name in required if name not in header)
                found = ", ".join(header) or "nothing"
                other = ";" in found or "\t" in found
                need = f"the header must name {', '.join(required)}" + ", with commas between" * other
                return [], [f"{path}: column {lacking} is missing (found: {found:.200}); {need}"]
            if twice := [name for name in columns if header.count(name) > 1]:
                return [], [f"{path}: column {twice[0]} is there twice; keep one"]
            for cells in reader:
                row, where = reader.line_num, f"{path}, row {reader.line_num}"
                if not any(cell.strip() for cell in cells):
                    continue
                if any(cell.strip() for cell in cells[len(header) :]):
                    problems.append(
                        f"{where}: {len(cells)} cells, {len(header)} columns; quote values that hold a comma"
                    )
                    continue
                values = dict(zip(header, (cell.strip() for cell in cells), strict=False))
                bad = next((name for name in columns if not values.get(name) or not values[name].isprintable()), None)
                if bad is None:
                    rows.append((row, {name: values[name] for name in columns}))
                elif values.get(bad):
                    problems.append(f"{where}: {bad} {values[bad]!r:.80} holds control characters; remove them")
                else:
                    problems.append(f"{where}: {bad} is empty; fill it in or remove the row")
    except FileNotFoundError:
        return [], [f"{path}: no such file; it must be a CSV with the columns {', '.join(required)}"]
    except UnicodeDecodeError:
        return [], [f"{path}: not UTF-8 text; save it as CSV in UTF-8"]
    except (OSError, csv.Error) as error:
        return [], [f"{path}: cannot be read as CSV: {error}"]
    if not rows and not problems:
        problems.append(f"{path}: no rows under the header; list one image a row")
    return rows, problems


def check_folder(folder: Path) -> str | None:
    """What is wrong with a data folder, or None."""
    try:
        if not folder.exists():
            return f"{folder}: no such data folder; set data.path"
        if not folder.is_dir():
            return f"{folder}: not a folder; set data.path to the folder that holds the images"
        next(folder.iterdir(), None)
    except OSError as error:
        return f"{folder}: cannot be read ({error.strerror}); change its permissions, or set data.path"
    return None


def is_file(path: Path) -> bool:
    """Whether a file is there for us; names too long for the file system and locked folders count as absent."""
    try:
        return path.is_file()
    except OSError:
        return False


def absence_hint(name: str, there: Callable[[str], bool]) -> str:
    """What to do about a file that is listed but not `there`, where its name betrays it: how it goes on, or nothing."""
    if "\\" in name:
        return "; use / between folders"
    if any(there(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")):
        return "; there is a file of that name in another Unicode form: rename it, or copy its name into the table"
    return ""


def _labels(values: dict[str, str], task: Task) -> tuple[str, ...]:
    """The classes a row names; of segmentation none, since the masks say them. Raises `BadInput`."""
    if task == "classification":
        label = plain_cell(values["label"])
        if problem := check_label(label):
            raise BadInput(problem)
        return (label,)
    for name, value in values.items():
        if name.startswith(HAS) and value not in ("0", "1"):
            raise BadInput(f"{name} is {value!r:.40}; use 1 for an image that shows it, else 0")
    return tuple(_class_of(name) for name, value in values.items() if name.startswith(HAS) and value == "1")


def _class_of(column: str) -> str:
    """The class that a column of presence is about."""
    return column.removeprefix(HAS).strip()


def _has_columns(table: Path, columns: Sequence[str]) -> tuple[LabelSpace, list[str]]:
    """The classes of presence, in the order of their columns, and problems."""
    names = tuple(_class_of(name) for name in columns if name.startswith(HAS))
    if not names:
        return NO_CLASSES, [f"{table}: no column says what an image shows; name one has_<class> for each class"]
    problems = [f"{table}: column {HAS} names no class; rename it"] if "" in names else []
    twice = (name for name in dict.fromkeys(names) if names.count(name) > 1)
    problems += [f"{table}: {names.count(name)} columns say whether {name!r:.80} is shown; keep one" for name in twice]
    return LabelSpace(names), problems + [f"{table}: {problem}" for name in names if (problem := check_label(name))]


def scan_table(folder: Path, task: Task) -> Scan:
    """Read `labels.csv` in a data folder and collect every problem rather than the first. Opens no image.

    Classes are sorted by name (classification), in the order of their columns (presence), or those of `classes.json`
    (segmentation), whose frames have no labels yet. Problems: a missing folder, table, column, value or file; an
    unknown split or mark; an image or a mask listed twice or outside the folder; what `read_classes` refuses.
    """
    if problem := check_folder(folder):
        return Scan(problems=(problem,))
    table = folder / "labels.csv"
    rows, problems = read_rows(table, COLUMNS[task], prefix=HAS if task == "presence" else None)
    space, classes = NO_CLASSES, None
    if task == "segmentation":
        classes, more = read_classes(folder / "classes.json")
        space, problems = classes.space if classes else space, more + problems
    elif task == "presence" and rows:
        space, more = _has_columns(table, list(rows[0][1]))
        problems = more + problems
    frames: list[Frame] = []
    seen: dict[str, int] = {}
    for row, values in rows:
        paths = {kind: posixpath.normpath(values[kind]) for kind in ("file", "mask") if kind in values}
        try:
            for kind, path in paths.items():
                find_outside(folder / path, folder)
                if path in seen:
                    again = "keep one" if kind == "file" else "each image has a mask of its own"
                    raise BadInput(f"{path} is listed in row {seen[path]} already; {again}")
            labels, split = _labels(values, task), parse_split(values["split"])
        except BadInput as error:
            problems.append(f"{table}, row {row}: {error}")
            continue
        seen |= dict.fromkeys(paths.values(), row)
        frames.append(Frame(paths["file"], labels, values["group"], split, paths.get("mask")))
    gone: set[str] = set()
    for kind in ("file", "mask"):
        if lost := [path for frame in frames if (path := getattr(frame, kind)) and not is_file(folder / path)]:
            problems.append(
                f"{table}, row {seen[lost[0]]}: {lost[0]} is not in {folder} ({len(lost)} of {len(frames)} {kind}s are "
                f"missing); `{kind}` is relative to that folder"
                + absence_hint(lost[0], lambda name: is_file(folder / name))
            )
            gone |= set(lost)
    absent = tuple(frame for frame in frames if {frame.file, frame.mask} & gone)
    present = tuple(frame for frame in frames if not {frame.file, frame.mask} & gone)
    if task == "classification":
        space = label_space(present)
    return Scan(present, tuple(problems), space=space, classes=classes, absent=absent)
