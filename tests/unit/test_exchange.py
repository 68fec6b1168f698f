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
from saadi.manifests import MANIFEST
from saadi.records import Condition, Pair, Sample, Score, write_records

HEADER = "round,label,winner,loser\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with two samples each of two classes in round 1, one of them named like a formula."""
    folder = tmp_path / "run"
    (folder / "config.yaml").parent.mkdir()
    (folder / "config.yaml").touch()
    add_round(folder, 1)
    return folder


def add_round(folder: Path, k: int) -> None:
    place = folder / f"round-{k}"
    for part in ("samples", "scores", "pairs"):
        (place / part).mkdir(parents=True)
    samples = [
        Sample(f"r{k}-{c}-{i}", Condition.of(label), k, i, f"round-{k}/samples/{c}-{i}.png")
        for c, label in enumerate(("hook", "=1+1"))
        for i in range(2)
    ]
    write_records(place / "samples/samples.jsonl", samples)
    drawn(folder, k, "some images")
    write_records(place / "scores/scores.jsonl", [Score(s.id, "c", -float(s.seed), True, {}) for s in samples])
    pairs = [Pair(f"r{k}-0-0", f"r{k}-0-1", "hook", 1.0), Pair(f"r{k}-1-0", f"r{k}-1-1", "=1+1", 1.0)]
    write_records(place / "pairs/pairs.jsonl", pairs)


def drawn(folder: Path, k: int, what: str) -> None:
    """A stage's manifest: what was drawn in a round."""
    manifest = {"key": {"inputs": {}}, "outputs": {"0-0.png": what}}
    (folder / f"round-{k}/samples" / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


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
        ("round,label,winner\n1,hook,r1-0-0\n", ("no column 'loser', found 'round, label, winner'",)),
        (
            "round;label;winner;loser\n1;hook;a;b\n",
            ("found 'round;label;winner;loser'", "with commas between"),
        ),
        ("round\tlabel\twinner\tloser\n", ("found 'round\\tlabel", "with commas between")),
        ("", ("no column 'round', it is empty",)),
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


def test_an_export_into_no_folder_is_refused(run: Path, tmp_path: Path, saadi: Command) -> None:
    out = tmp_path / "nodir/pairs.csv"
    saadi("pairs", run, "--export", out).refused(f"there is no folder {out.parent}", "choose another --export")
    (tmp_path / "nodir").touch()
    saadi("pairs", run, "--export", out).refused(f"there is no folder {out.parent}")


def test_pairs_are_about_the_images_that_were_compared(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.csv"
    export_pairs(run, out)
    import_pairs(run, out, "add")
    drawn(run, 1, "others of the same names")
    with pytest.raises(BadInput, match=r"round-1\.json: is about images that are gone"):
        read_imported(run, 1)


def test_one_round_is_imported_at_a_time_and_voids_later_ones(run: Path, tmp_path: Path) -> None:
    add_round(run, 2)
    both, first, second = (tmp_path / name for name in ("both.csv", "first.csv", "second.csv"))
    export_pairs(run, both)
    header, *rows = both.read_text(encoding="utf-8").splitlines(keepends=True)
    for path, k in ((first, "1"), (second, "2")):
        path.write_text(header + "".join(row for row in rows if row.startswith(k)), encoding="utf-8")
    with pytest.raises(BadInput, match=r"rounds 1 and 2, .* one round at a time"):
        import_pairs(run, both, "add")
    assert not (run / "imported").exists()
    assert import_pairs(run, second, "add") == {2: 2}
    with pytest.raises(BadInput, match=r"round-2\.json: has pairs of round 2, .* delete it first"):
        import_pairs(run, first, "add")


@given(st.text())
def test_cells_are_safe_and_come_back(text: str) -> None:
    safe = safe_cell(text)
    assert not safe.startswith(("=", "+", "-", "@"))
    if not text.startswith("'"):
        assert plain_cell(safe) == text
