"""classes.json: ids or colours, the background first, and one clear line for each thing that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saadi.data.classes import UNKNOWN, ClassTable, read_classes
from saadi.records import IGNORE


def _read(folder: Path, text: str) -> tuple[ClassTable | None, list[str]]:
    (folder / "classes.json").write_text(text, encoding="utf-8")
    return read_classes(folder / "classes.json")


def _good(folder: Path, values: dict[str, Any]) -> ClassTable:
    table, problems = _read(folder, json.dumps(values))
    assert problems == []
    assert table
    return table


def test_ids_are_sorted_and_the_first_is_the_background(tmp_path: Path) -> None:
    table = _good(tmp_path, {"7": "hook", "0": "background", "2": " clip ", "9": None})
    assert (table.space.names, table.space.asked) == (("background", "clip", "hook"), ("clip", "hook"))
    assert table.space.background
    assert table.lookup[[0, 2, 7, 9, 255, 3]].tolist() == [0, 1, 2, IGNORE, IGNORE, UNKNOWN]
    assert table.say(7) == "7"


def test_255_may_be_a_class_and_two_ids_one(tmp_path: Path) -> None:
    table = _good(tmp_path, {"0": "background", "255": "tool", "1": "tool"})
    assert table.names == ("background", "tool")
    assert table.lookup[[0, 1, 255, 254]].tolist() == [0, 1, 1, UNKNOWN]


def test_colours_stay_in_order_and_the_first_with_a_class_is_the_background(tmp_path: Path) -> None:
    table = _good(tmp_path, {"#FFFFFF": None, "0, 0, 0": "tissue", "255,0,0": "hook", "#00ff7f": "clip"})
    assert table.names == ("tissue", "hook", "clip")
    assert table.lookup[[0xFFFFFF, 0, 0xFF0000, 0x00FF7F, 1]].tolist() == [IGNORE, 0, 1, 2, UNKNOWN]
    assert table.say(0x00FF7F) == "#00ff7f"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ("{}", "expected an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"0": "background", "tool": "1"}', "'tool' is no id from 0 to 255"),
        ('{"0": "background", "256": "tool"}', "'256' is no id"),
        ('{"0": "background", "-1": "tool"}', "'-1' is no id"),
        ('{"#000000": "background", "256,0,0": "tool"}', "'256,0,0' is no id"),
        ('{"0": "background", "1": "tool", "1": "clip"}', "1 is listed twice"),
        ('{"#000000": "background", "#FF0000": "tool", "255,0,0": "clip"}', "255,0,0 is listed twice"),
        ('{"0": "background", "#ff0000": "tool"}', "lists ids and colours"),
        ('{"0": "background", "1": 3}', "1: 3 is no class name"),
        ('{"0": "background", "1": {"name": "tool"}}', "is no class name"),
        ('{"0": "background", "1": " "}', "is no class name"),
        ('{"0": "background", "1": "a\\u0007"}', "control characters"),
        (json.dumps({"0": "background", "1": "x" * 61}), "61 characters"),
        ('{"1": "tool", "2": "clip"}', "id 0 must be the background"),
        ('{"0": null, "1": "tool", "2": "clip"}', "id 0 must be the background"),
        ('{"0": "background", "1": null}', "only background"),
        ('{"#000000": null}', "only nothing but null"),
        (json.dumps({str(i): f"c{i}" for i in range(256)}), "256 classes; at most 254"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    table, problems = _read(tmp_path, text)
    assert table is None
    (problem,) = problems
    assert words in problem
    assert str(tmp_path / "classes.json") in problem
    assert "\n" not in problem


def test_all_problems_are_listed_and_files_that_are_none(tmp_path: Path) -> None:
    _, problems = _read(tmp_path, '{"0": "background", "x": "a", "1": 2, "0": "b"}')
    assert len(problems) == 3
    assert "no such file" in read_classes(tmp_path / "absent.json")[1][0]
    assert "cannot be read" in read_classes(tmp_path)[1][0]
    (tmp_path / "classes.json").write_bytes(b"\xff\xfe{}")
    assert "cannot be read" in read_classes(tmp_path / "classes.json")[1][0]
