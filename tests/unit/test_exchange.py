"""Preference pairs as CSV, out of a run and into one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st

from saadi.errors import BadInput
from saadi.exchange import Imported, export_pairs, import_pairs, plain_cell, read_imported, safe_cell
from saadi.records import Condition, Pair, Sample, Score, write_records

HEADER = "round,label,winner,loser\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with two samples each of two classes in round 1, one of them named like a formula."""
    folder = tmp_path / "run"
    for part in ("samples", "scores", "pairs"):
        (folder / "round-1" / part).mkdir(parents=True)
    (folder / "config.yaml").touch()
    samples = [
        Sample(f"r1-{k}-{i}", Condition.of(label), 1, i, f"round-1/samples/{k}-{i}.png")
        for k, label in enumerate(("hook", "=1+1"))
        for i in range(2)
    ]
    write_records(folder / "round-1/samples/samples.jsonl", samples)
    write_records(folder / "round-1/scores/scores.jsonl", [Score(s.id, "c", -float(s.seed), True, {}) for s in samples])
    pairs = [Pair("r1-0-0", "r1-0-1", "hook", 1.0), Pair("r1-1-0", "r1-1-1", "=1+1", 1.0)]
    write_records(folder / "round-1/pairs/pairs.jsonl", pairs)
    return folder


def test_what_was_exported_can_be_imported(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    assert export_pairs(run, out) == 2
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert rows[1]["label"] == "'=1+1"
    assert (rows[0]["winner_score"], rows[0]["loser_file"]) == ("-0", "round-1/samples/0-1.png")
    assert read_imported(run, 1) is None
    assert import_pairs(run, out, "replace") == {1: 2}
    pairs = (Pair("r1-0-0", "r1-0-1", "hook", 0.0), Pair("r1-1-0", "r1-1-1", "=1+1", 0.0))
    assert read_imported(run, 1) == Imported("replace", pairs)
    with pytest.raises(BadInput, match="is there already"):
        export_pairs(run, out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("round,label,winner\n1,hook,r1-0-0\n", ("no column 'loser'",)),
        (HEADER, ("holds no pair",)),
        (HEADER + "2,hook,r1-0-0,r1-0-1\n", ("line 2", "round '2'", "1")),
        (HEADER + "one,hook,r1-0-0,r1-0-1\n", ("line 2", "round 'one'")),
        (HEADER + "1,hook,r1-0-0,r1-0-9\n", ("line 2", "loser 'r1-0-9'", "no sample")),
        (HEADER + "1,hook,r1-0-0,r1-0-0\n", ("over itself",)),
        (HEADER + "1,hook,r1-0-0,r1-1-1\n", ("same", "prompt")),
        (HEADER + "1,clip,r1-0-0,r1-0-1\n", ("label 'clip'", "hook")),
        (HEADER + "1,hook,r1-0-0,r1-0-1\n1,hook,r1-0-1,r1-0-0\n", ("line 3", "twice")),
    ],
)
def test_a_table_that_is_none_is_refused_and_leaves_nothing(
    text: str, words: tuple[str, ...], run: Path, tmp_path: Path, saadi: Command
) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text(text, encoding="utf-8")
    saadi("pairs", run, "--import", table).refused(*words)
    assert not (run / "imported").exists()


def test_the_command_wants_one_file_and_says_what_to_do_next(run: Path, tmp_path: Path, saadi: Command) -> None:
    saadi("pairs", run).refused("--export", "--import")
    saadi("pairs", tmp_path, "--export", tmp_path / "x.csv").refused("not a run")
    out = tmp_path / "pairs.csv"
    assert json.loads(saadi("pairs", run, "--export", out, "--json").out)["pairs"] == 2
    told = saadi("pairs", run, "--import", out).out
    assert "2 pairs for round 1" in told
    assert "--redo round-1/pairs" in told


@given(st.text())
def test_cells_are_safe_and_come_back(text: str) -> None:
    safe = safe_cell(text)
    assert not safe.startswith(("=", "+", "-", "@"))
    if not text.startswith("'"):
        assert plain_cell(safe) == text
