"""Class names, and `classes.json`: what the values in a mask mean, by id or by colour."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi.records import IGNORE, LabelSpace

LONGEST_LABEL = 60
UNKNOWN = 254
"""In decoded masks: a value that the table does not list."""

_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_NUMBERS = re.compile(r"(\d{1,3}) *, *(\d{1,3}) *, *(\d{1,3})")


def check_label(label: str) -> str | None:
    """What is wrong with a class name, or None: it goes into prompts and file names."""
    if not label.isprintable():
        return f"label {label!r:.80} holds control characters; remove them"
    if len(label) > LONGEST_LABEL:
        return f"label {label[:20]!r}... has {len(label)} characters; use at most {LONGEST_LABEL}"
    return None


@dataclass(frozen=True)
class ClassTable:
    """`names`: the classes, the background first. `values`: of each value in a mask, an id or, with `colours`,
    0xRRGGBB, the class id or `IGNORE`. `opener`: reads a mask that is not one plain PNG as values uint8 [H, W, K], ids
    (K = 1) or RGB (K = 3); `listed`: what lists the values, for errors."""

    names: tuple[str, ...]
    values: dict[int, int]
    colours: bool = False
    opener: Callable[[Path], NDArray[np.uint8]] | None = None
    listed: str = "classes.json"

    @property
    def space(self) -> LabelSpace:
        """The classes as the method knows them."""
        return LabelSpace(self.names, background=True)

    @cached_property
    def lookup(self) -> NDArray[np.uint8]:
        """Class id, `IGNORE` or `UNKNOWN` by value: [256] for ids, [2 ** 24] for colours."""
        found = np.full(1 << 24 if self.colours else 256, UNKNOWN, np.uint8)
        if not self.colours:
            found[IGNORE] = IGNORE
        found[list(self.values)] = list(self.values.values())
        return found

    def say(self, value: int) -> str:
        """A value as `classes.json` would write it."""
        return f"#{value:06x}" if self.colours else str(value)


def _value(key: str) -> tuple[int, bool] | None:
    """An id and False, or a colour as 0xRRGGBB and True; None for what is neither."""
    if found := _HEX.fullmatch(key):
        return int(found[1], 16), True
    if found := _NUMBERS.fullmatch(key):
        red, green, blue = map(int, found.groups())
        return ((red << 16) + (green << 8) + blue, True) if max(red, green, blue) < 256 else None
    return (int(key), False) if re.fullmatch(r"\d{1,3}", key) and int(key) < 256 else None


def read_classes(path: Path) -> tuple[ClassTable | None, list[str]]:
    """Read `classes.json`; the table, None where there is a problem, and the problems, one line each.

    Keys are all ids, 0 .. 255, or all colours, `#rrggbb` or `r,g,b`; a value is a class, or null for pixels of which
    nothing is known. The background is id 0, or the first colour that has a class; the other classes follow in the
    order of their ids, or of the colours in the file. Values of one name are one class. Id 255 is null unless listed.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_pairs)
    except FileNotFoundError:
        example = '{"0": "background", "1": "tool"}'
        return None, [f"{path}: no such file; it must say what the values in the masks mean, as in {example}"]
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{path}: cannot be read: {error}"]
    except ValueError as error:
        return None, [f"{path}: not valid JSON: {error}"]
    except RecursionError:
        return None, [f"{path}: nested too deeply; map ids or colours to names"]
    if not isinstance(entries, _Pairs) or not entries:
        return None, [f"{path}: expected an object that maps ids or colours to names"]
    listed: dict[int, str | None] = {}
    kinds: set[bool] = set()
    problems: list[str] = []
    for key, name in entries:
        value = _value(key.strip())
        if value is None:
            problems.append(f"{path}: {key!r:.40} is no id from 0 to 255 and no colour like #ff0000 or 255,0,0")
        elif value[0] in listed:
            problems.append(f"{path}: {key} is listed twice; keep one")
        elif problem := _check_name(name):
            problems.append(f"{path}: {key}: {problem}")
        else:
            listed[value[0]] = name and name.strip()
            kinds.add(value[1])
    if problems:
        return None, problems
    if len(kinds) > 1:
        return None, [f"{path}: lists ids and colours; masks hold one or the other"]
    colours = kinds == {True}
    if not colours:
        listed = dict(sorted(listed.items()))
        if listed.get(0) is None:
            return None, [f'{path}: id 0 must be the background and have a name, as in "0": "background"']
    names = tuple(dict.fromkeys(name for name in listed.values() if name is not None))
    if len(names) < 2:
        found = names[0] if names else "nothing but null"
        return None, [f"{path}: only {found}; name the background and at least one class"]
    if len(names) > UNKNOWN:
        return None, [f"{path}: {len(names)} classes; at most {UNKNOWN} can be told apart"]
    ids = {value: IGNORE if name is None else names.index(name) for value, name in listed.items()}
    return ClassTable(names, ids, colours), []


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys: a `dict` would keep the last of equal ones and say nothing."""


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    return _Pairs(pairs)


def _check_name(name: Any) -> str | None:
    """What is wrong with the value of a key, or None."""
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip():
        return f"{name!r:.40} is no class name; give a text, or null for pixels of which nothing is known"
    return check_label(name)
