"""The folder contract: `images/` and a `labels.csv` with `file,label,group,split`; and the checks all sources share."""

from __future__ import annotations

import csv
import difflib
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from saadi.data.images import find_outside
from saadi.errors import BadInput
from saadi.records import SPLITS, Frame, LabelSpace, Split

COLUMNS = ("file", "label", "group", "split")
LONGEST_LABEL = 60


@dataclass(frozen=True)
class Scan:
    """What a data folder says it holds. `problems`: one line each; `frames`: those whose files exist."""

    frames: tuple[Frame, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def accept(self) -> tuple[LabelSpace, list[Frame]]:
        """The classes, sorted by name, and the frames. Raises `BadInput` with the first problem."""
        if self.problems:
            raise BadInput(self.problems[0])
        return label_space(self.frames), list(self.frames)


def label_space(frames: Iterable[Frame]) -> LabelSpace:
    """The classes that occur, sorted by name."""
    return LabelSpace(tuple(sorted({frame.label for frame in frames})))


def parse_split(text: str) -> Split:
    """`train`, `val` or `test`. Raises `BadInput` that names the nearest of them."""
    for name in SPLITS:
        if text == name:
            return name
    near = difflib.get_close_matches(text.lower(), SPLITS, 1, 0.4)
    raise BadInput(f"unknown split {text!r}" + (f"; did you mean {near[0]}?" if near else "; use train, val or test"))


def read_rows(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """Rows of a CSV file, by line number (the header is 1), with the named columns only, and problems, one line each.

    A byte order mark, CRLF, blank lines, blanks around a value and further columns are tolerated. An `optional` column
    is in the rows if it is in the header. A row in which a value is empty or not printable is a problem and left out.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    problems: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            header = [name.strip() for name in next(reader, [])]
            columns = [name for name in (*required, *optional) if name in header]
            if not set(required) <= set(columns):
                lacking = ", ".join(name for name in required if name not in header)
                found = ", ".join(header) or "nothing"
                need = f"the header must name {', '.join(required)}"
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


def check_label(label: str) -> str | None:
    """What is wrong with a class name, or None: it goes into prompts and file names."""
    if not label.isprintable():
        return f"label {label!r:.80} holds control characters; remove them"
    if len(label) > LONGEST_LABEL:
        return f"label {label[:20]!r}... has {len(label)} characters; use at most {LONGEST_LABEL}"
    return None


def check_frames(frames: Sequence[Frame], where: str) -> list[str]:
    """Problems of a set of frames as a whole: groups in two splits, one class only, classes without training images."""
    problems: list[str] = []
    first: dict[str, dict[Split, str]] = {}
    for frame in frames:
        first.setdefault(frame.group, {}).setdefault(frame.split, frame.file)
    for group, splits in first.items():
        if len(splits) > 1:
            seen = " and ".join(f"{split} ({file})" for split, file in splits.items())
            problems.append(f"{where}: group {group} is in {seen}; put all images of a group into one split")
    names = label_space(frames).names
    if len(names) == 1:
        problems.append(f"{where}: only one class ({names[0]}); at least two are needed")
    trained = {frame.label for frame in frames if frame.split == "train"}
    problems += [
        f"{where}: class {name} has no training images; move a group that shows it into train, or leave the class out"
        for name in names
        if name not in trained
    ]
    return problems


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


def scan_table(folder: Path) -> Scan:
    """Read `labels.csv` in a data folder and collect every problem rather than the first. Opens no image.

    Problems: a missing folder, table, column, value or file; an unknown split; a file listed twice or outside the
    folder; a group in two splits; only one class; a class without training images.
    """
    if problem := check_folder(folder):
        return Scan(problems=(problem,))
    table = folder / "labels.csv"
    rows, problems = read_rows(table, COLUMNS)
    frames: list[Frame] = []
    seen: dict[str, int] = {}
    for row, values in rows:
        file = posixpath.normpath(values["file"])
        try:
            find_outside(folder / file, folder)
            if file in seen:
                raise BadInput(f"{file} is listed in row {seen[file]} already; keep one")
            if problem := check_label(values["label"]):
                raise BadInput(problem)
            frame = Frame(file, (values["label"],), values["group"], parse_split(values["split"]))
        except BadInput as error:
            problems.append(f"{table}, row {row}: {error}")
            continue
        seen[file] = row
        frames.append(frame)
    present = [frame for frame in frames if is_file(folder / frame.file)]
    if len(present) < len(frames):
        there = set(present)
        lost = next(frame.file for frame in frames if frame not in there)
        problems.append(
            f"{table}, row {seen[lost]}: {lost} is not in {folder} ({len(frames) - len(present)} of {len(frames)} "
            "files are missing); `file` is relative to that folder"
        )
    return Scan(tuple(present), (*problems, *check_frames(frames, str(table))))
