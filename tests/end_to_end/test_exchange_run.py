"""Pairs that a person turned round count, once the round is made anew."""

from __future__ import annotations

import csv
from pathlib import Path

from conftest import Command, Finished

from saadi.files import file_digest
from saadi.records import Pair, read_records

ADAPTER = "round-1/adapter/pytorch_lora_weights.safetensors"


def test_imported_pairs_are_learnt_from_on_the_users_word(finished: Finished, tmp_path: Path, saadi: Command) -> None:
    folder, table = finished.copy(tmp_path), tmp_path / "pairs.csv"
    assert saadi("pairs", folder, "--export", table).code == 0
    rows = [row for row in csv.DictReader(table.open(encoding="utf-8")) if row["round"] == "1"]
    with table.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("round", "label", "winner", "loser"))
        writer.writerows((1, row["label"], row["loser"], row["winner"]) for row in rows)
    assert saadi("pairs", folder, "--import", table, "--replace").code == 0
    before, command = file_digest(folder / ADAPTER), ("run", finished.config, "--out", folder, "--final")
    saadi(*command).refused("round-1/pairs", "--redo round-1/pairs")
    assert file_digest(folder / ADAPTER) == before
    assert saadi(*command, "--redo", "round-1/pairs").code == 0
    turned = read_records(folder / "round-1/pairs/pairs.jsonl", Pair)
    assert [(pair.winner, pair.loser) for pair in turned] == [(row["loser"], row["winner"]) for row in rows]
    assert file_digest(folder / ADAPTER) != before
