"""The loop of rounds ends by itself when val rises no more, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command, Finished, read_json

from saadi.evaluation.choices import shares_of, stalled


@pytest.mark.parametrize(
    ("reached", "patience", "over"),
    [
        ([0.5], 1, False),  # nothing aligned yet
        ([0.5, 0.6], 1, False),
        ([0.5, 0.5], 1, True),  # as good is not better
        ([0.5, 0.6, 0.55], 1, True),
        ([0.5, 0.6, 0.55], 2, False),
        ([0.5, 0.6, 0.55, 0.6], 2, True),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.9, 0.1, 0.1, 0.1], 0, False),  # all rounds
    ],
)
def test_a_loop_is_over_after_so_many_rounds_that_are_no_better(
    reached: list[float], patience: int, over: bool
) -> None:
    assert stalled(reached, patience) is over


def test_no_round_follows_one_that_does_not_raise_val(
    saadi: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_val = {"unaligned": 0.5, "round-1": 0.45}
    monkeypatch.setattr(
        "saadi.evaluation.choices.levels",
        lambda run, data, arm: dict.fromkeys(shares_of(run, arm), on_val.get(arm.name, 0.1)),
    )
    folder = tmp_path / "run"
    assert saadi("run", tiny, "--out", folder, "--set", "rounds=3", "--set", "patience=1").code == 0
    results = read_json(folder / "results.json")
    why = "1 of 3 rounds: balanced accuracy on val rose no more (unaligned 50.0 %, round-1 45.0 %)"
    assert results["val_choices"]["over"] == why
    assert why in results["notes"]
    assert "round-1" in results["arms"]
    assert "round-2" not in results["arms"]
    assert not (folder / "round-2").exists()
    assert "1 of 3 rounds" in (folder / "report.html").read_text(encoding="utf-8")
    assert json.loads(saadi("status", folder, "--json").out)["rounds"] == {"done": 1, "of": 3}


def test_a_round_that_changed_nothing_is_not_told_as_a_finding(
    saadi: Command, tiny: Path, tmp_path: Path, finished: Finished
) -> None:
    folder = tmp_path / "run"
    assert saadi("run", tiny, "--out", folder, "--set", "rounds=1", "--set", "preferences.margin=1e9").code == 0
    why = "round 1 changed nothing, its model is the one before: 0 preference pairs, 2 are needed"
    assert why in read_json(folder / "results.json")["notes"]
    assert why in (folder / "report.html").read_text(encoding="utf-8")
    assert read_json(finished.folder / "round-1/adapter/summary.json")["learnt"] is True
    assert not any("changed nothing" in note for note in read_json(finished.folder / "results.json")["notes"])
