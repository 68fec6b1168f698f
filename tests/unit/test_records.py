"""Records on disk: JSON Lines that come back as they went, whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saadi.records import (
    Condition,
    Frame,
    LabelSpace,
    Pair,
    Sample,
    Score,
    by_label,
    read_records,
    write_atomic,
    write_records,
)

SAMPLES = [
    Sample(f"s{k}", Condition.of(label), 1, 2**62 + k, f"{k}.png") for k, label in enumerate(("hook", "clip", "hook"))
]


def test_label_space() -> None:
    space = LabelSpace(("hook", "clip"))
    assert (len(space), space.id("clip")) == (2, 1)
    with pytest.raises(ValueError, match="tuple"):
        space.id("saw")
    assert space.asked == ("hook", "clip")
    assert LabelSpace(("background", "hook", "clip"), background=True).asked == ("hook", "clip")


def test_the_label_of_a_frame_is_its_only_one() -> None:
    assert Frame("0.png", ("hook",), "p", "train").label == "hook"
    for labels in ((), ("hook", "clip")):
        with pytest.raises(ValueError, match="to unpack"):
            _ = Frame("0.png", labels, "p", "train").label


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAMPLES[0].label = "clip"  # type: ignore[misc]


def test_a_line_a_record(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    write_records(path, SAMPLES)
    lines = path.read_text(encoding="utf-8").splitlines()
    condition = {"id": "clip", "labels": ["clip"], "frame": None, "donor": None, "start": None}
    own = {"id": "s1", "condition": condition, "round": 1, "seed": 2**62 + 1, "file": "1.png", "mask": None}
    assert json.loads(lines[1]) == own
    assert read_records(path, Sample) == SAMPLES
    write_records(path, [])
    assert read_records(path, Sample) == []


def test_scores_and_pairs_come_back(tmp_path: Path) -> None:
    score = Score("s0", "critic-loss", -0.1234567890123456, True, {"probability": 1e-300})
    pair = Pair("s0", "s2", "hook", 1 / 3)
    write_records(tmp_path / "scores.jsonl", [score])
    write_records(tmp_path / "pairs.jsonl", [pair])
    assert read_records(tmp_path / "scores.jsonl", Score) == [score]
    assert read_records(tmp_path / "pairs.jsonl", Pair) == [pair]


TEXT = st.text(max_size=12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=3).map(tuple), TEXT, st.none() | TEXT), max_size=4))
def test_any_text_comes_back(
    rows: list[tuple[str, tuple[str, ...], str, str | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    frames = [Frame(file, labels, group, "train", mask) for file, labels, group, mask in rows]
    path = tmp_path_factory.mktemp("records") / "frames.jsonl"
    write_records(path, frames)
    assert read_records(path, Frame) == frames


def test_by_label_keeps_the_order() -> None:
    groups = by_label(SAMPLES)
    assert list(groups) == ["hook", "clip"]
    assert [sample.id for sample in groups["hook"]] == ["s0", "s2"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    write_atomic(path, "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
