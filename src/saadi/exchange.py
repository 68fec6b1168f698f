"""Preference pairs as CSV, out of a run and into one: a surgeon's or another model's word beside the critic's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from saadi.errors import BadInput
from saadi.files import digest
from saadi.manifests import MANIFEST, read_manifest
from saadi.records import Pair, Sample, Score, read_json, read_records, write_atomic

Use = Literal["add", "replace"]

COLUMNS = ("round", "label", "winner", "loser")
"""What an imported table has to hold; other columns are ignored. The label is the reader's help and is checked."""
DANGEROUS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula, at the beginning of a cell."""


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe before what begins like one."""
    return f"'{text}" if text.startswith(DANGEROUS) else text


def plain_cell(text: str) -> str:
    """What `safe_cell` was made from."""
    return text[1:] if text.startswith("'") and text[1:].startswith(DANGEROUS) else text


@dataclass(frozen=True)
class Imported:
    """Pairs that were brought into a round from outside, and whether they add to the critic's or replace them."""

    use: Use
    pairs: tuple[Pair, ...]


def imported_path(folder: Path, round_: int) -> Path:
    """Where a run keeps the pairs imported into a round."""
    return folder / "imported" / f"round-{round_}.json"


def read_imported(folder: Path, round_: int) -> Imported | None:
    """The pairs imported into a round of the run in `folder`, if any were. Raises `BadInput` where the round's images
    are no longer those that were compared: their names are the same."""
    path = imported_path(folder, round_)
    values = read_json(path)
    if not values:
        return None
    if values.get("of", now := _images(folder, round_)) != now:
        why = f"is about images that are gone: those of round {round_} were drawn anew"
        raise BadInput(f"{path}: {why}; delete it, or export, judge and import the new ones")
    return Imported(values["use"], tuple(Pair(**pair) for pair in values["pairs"]))


def _images(folder: Path, round_: int) -> str:
    """What a round's candidates are, to the pixel."""
    name = f"round-{round_}/samples"
    return digest(read_manifest(folder / name / MANIFEST, name)["outputs"])


def _rounds(folder: Path) -> list[int]:
    return sorted(
        int(path.parent.parent.name.removeprefix("round-")) for path in folder.glob("round-*/pairs/pairs.jsonl")
    )


def export_pairs(folder: Path, out: Path) -> int:
    """Write the pairs of every round of a run as CSV; returns how many. Raises `BadInput` where there are none yet,
    where `out` is there already, and where it has no folder to be in."""
    rounds = _rounds(folder)
    if not rounds:
        raise BadInput(f"{folder}: no round has pairs yet; run it first")
    if out.exists():
        raise BadInput(f"{out}: is there already; nothing is overwritten, choose another --export")
    if not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}; make it, or choose another --export")
    rows: list[tuple[object, ...]] = [(*COLUMNS, "margin", "winner_score", "loser_score", "winner_file", "loser_file")]
    for round_ in rounds:
        place = folder / f"round-{round_}"
        samples = {one.id: one for one in read_records(place / "samples/samples.jsonl", Sample)}
        scores = {one.sample: one.value for one in read_records(place / "scores/scores.jsonl", Score)}
        for pair in read_records(place / "pairs/pairs.jsonl", Pair):
            both = (pair.winner, pair.loser)
            rows.append(
                (
                    *(round_, safe_cell(pair.label), *both, f"{pair.margin:.6g}"),
                    *(f"{scores[one]:.6g}" for one in both),
                    *(samples[one].file for one in both),
                )
            )
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    write_atomic(out, table.getvalue())
    return len(rows) - 1


def _read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV with their line numbers. Raises `BadInput`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            table = csv.DictReader(handle)
            found = list(table.fieldnames or ())
            missing = [name for name in COLUMNS if name not in found]
            rows = [(table.line_num, {key: str(row.get(key) or "").strip() for key in COLUMNS}) for row in table]
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read as CSV: {error}") from None
    if missing:
        there = f"found {', '.join(found)!r:.80}" if found else "it is empty"
        needs = f"it needs {', '.join(COLUMNS)}, with commas between"
        raise BadInput(f"{path}: no column {missing[0]!r}, {there}; {needs}")
    return rows


def _pair(where: str, row: dict[str, str], samples: dict[str, Sample]) -> Pair:
    """One row as a pair of known samples of one condition. Raises `BadInput`."""
    for side in ("winner", "loser"):
        if row[side] not in samples:
            raise BadInput(f"{where}: {side} {row[side]!r:.60} is no sample of round {row['round']}")
    winner, loser = samples[row["winner"]], samples[row["loser"]]
    if winner.id == loser.id:
        raise BadInput(f"{where}: {winner.id} cannot win over itself")
    if winner.condition != loser.condition:
        raise BadInput(f"{where}: {winner.id} and {loser.id} were not asked to show the same; a pair shares its prompt")
    if plain_cell(row["label"]) != winner.label:
        raise BadInput(f"{where}: label {row['label']!r:.60}, but {winner.id} was asked to show {winner.label}")
    return Pair(winner.id, loser.id, winner.label, 0.0)


def import_pairs(folder: Path, table: Path, use: Use) -> dict[int, int]:
    """Bring pairs from a CSV into a round of a run; returns how many, by round. They count when the round's pairs are
    made anew, upon which the images of later rounds are drawn anew, too.

    Raises `BadInput` for a table that is not one, for samples that the run has not, for a pair of two conditions, for
    one that is there twice or both ways, for pairs of several rounds, and where a later round has imported ones.
    """
    known = {
        round_: {one.id: one for one in read_records(folder / f"round-{round_}/samples/samples.jsonl", Sample)}
        for round_ in _rounds(folder)
    }
    found: dict[int, list[Pair]] = {}
    for line, row in _read_table(table):
        where = f"{table}, line {line}"
        if not row["round"].isdigit() or int(row["round"]) not in known:
            rounds = ", ".join(map(str, known)) or "none"
            raise BadInput(f"{where}: round {row['round']!r:.20} has no samples in this run; those with some: {rounds}")
        round_ = int(row["round"])
        pair, others = _pair(where, row, known[round_]), found.setdefault(round_, [])
        if any({one.winner, one.loser} == {pair.winner, pair.loser} for one in others):
            raise BadInput(f"{where}: {pair.winner} and {pair.loser} are compared twice")
        others.append(pair)
    if not found:
        raise BadInput(f"{table}: holds no pair")
    first, *rest = sorted(found)
    anew = f"images of later rounds are drawn anew once round {first} has other pairs"
    if rest:
        raise BadInput(f"{table}: has pairs of rounds {first} and {rest[0]}, but {anew}; import one round at a time")
    for later in (round_ for round_ in known if round_ > first):
        if (path := imported_path(folder, later)).exists():
            raise BadInput(f"{path}: has pairs of round {later}, but {anew}; delete it first")
    _keep(folder, first, use, found[first])
    return {first: len(found[first])}


def _keep(folder: Path, round_: int, use: Use, pairs: Sequence[Pair]) -> None:
    path = imported_path(folder, round_)
    path.parent.mkdir(exist_ok=True)
    values: dict[str, Any] = {"use": use, "of": _images(folder, round_), "pairs": [asdict(pair) for pair in pairs]}
    write_atomic(path, json.dumps(values, indent=1) + "\n")
