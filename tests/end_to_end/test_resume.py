"""Killed anywhere, the same command resumes and ends with the same results; two runs never share a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command, Finished
from remains import differs, made
from survival import Point, finish, kill_and_resume

from saadi import workers
from saadi.configfile import load_config
from saadi.manifests import MANIFEST
from saadi.store import Run

POINTS = {
    0: (
        Point("base/checkpoint.safetensors", 0.1, "SIGKILL"),
        Point("round-1/samples/00-00001.png", 0.0, "SIGTERM"),
        Point("round-1/adapter/checkpoint.safetensors", 0.0, "SIGINT"),
        Point("round-2/adapter/manifest.json", 0.0, "SIGKILL"),
        Point("evaluation/trainings/unaligned/mix-0.5/seed-1/manifest.json", 0.1, "SIGTERM"),
    ),
    2: (
        Point("round-1/samples/.unfinished", 0.2, "SIGKILL"),
        Point("evaluation/trainings/unaligned/mix-0.5/seed-1/manifest.json", 0.1, "SIGINT"),
    ),
}
"""By the crew's size, where a run is killed: before a file is laid into place, and in the midst of work. Many more:
`benchmarks/survival.py`."""


def _mtimes(folder: Path) -> dict[str, int]:
    return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob(MANIFEST)}


@pytest.mark.parametrize("crew", POINTS)
def test_killed_again_and_again(crew: int, finished: Finished, tmp_path: Path) -> None:
    folder, arguments = tmp_path / "run", ["run", finished.config, "--out", tmp_path / "run", "--final"]
    for row in kill_and_resume(arguments, folder, POINTS[crew], crew):
        assert row["good"], row
        assert not (folder / "results.json").exists()
    finish(arguments, folder, crew)
    assert not differs(folder, finished.folder)  # to the bit: the arms alone, near chance, prove little


def test_the_second_of_two_is_refused(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    with Run(folder, load_config(finished.config)):
        saadi("run", finished.config, "--out", folder).refused(str(folder), "another saadi")
    assert saadi("run", finished.config, "--out", folder).code == 0


def test_a_changed_config_is_refused(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    before = (folder / "config.yaml").read_bytes()
    changed = saadi("run", finished.config, "--out", folder, "--set", "alignment.beta=2.0")
    changed.refused("alignment.beta (0.1 before, 2.0 now)", "--redo")
    assert (folder / "config.yaml").read_bytes() == before


def test_redo_makes_a_stage_anew_and_what_follows(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    before = _mtimes(folder)
    outcome = saadi("run", finished.config, "--out", folder, "--final", "--redo", "round-2/pairs")
    assert outcome.code == 0, outcome.err
    after = _mtimes(folder)
    assert after.keys() == before.keys()
    anew = {name for name, at in after.items() if at != before[name]}
    trainings = {
        f"evaluation/trainings/{arm}/mix-0.5/seed-{seed}" for arm in ("round-2", "unpicked", "unled") for seed in (0, 1)
    }
    measured = {"evaluation/images", "evaluation/membership"}
    later = {
        "round-2/pairs",
        "round-2/adapter",
        "evaluation/sets/round-2",
        "evaluation/sets/unled",
        *measured,
        *trainings,
    }
    assert anew == later
    assert made(folder) == made(finished.folder)
    assert Finished(folder, finished.config).results["arms"] == finished.results["arms"]


def test_jobs_side_by_side_give_what_they_give_in_turn(
    saadi: Command, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path)
    monkeypatch.setattr(workers, "crew_size", lambda config: 2)
    asked: set[str] = set()
    ask = workers.Crew._ask

    def listen(crew: workers.Crew, job: str) -> None:
        asked.add(json.loads(job)["name"])
        ask(crew, job)

    monkeypatch.setattr(workers.Crew, "_ask", listen)
    outcome = saadi("run", finished.config, "--out", folder, "--final", "--redo", "critic")
    assert outcome.code == 0, outcome.err
    assert made(folder) == made(finished.folder)
    assert not (folder / ".parts").exists()
    assert asked == {"fit_network", "judge", "paint", "paint_led", "tell", "train", "wonder"}
    assert Finished(folder, finished.config).results["arms"] == finished.results["arms"]


def test_redo_of_an_unknown_stage_is_refused(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    saadi("run", finished.config, "--out", folder, "--redo", "round-3/pairs").refused("round-3/pairs", "round-2/pairs")


@pytest.mark.parametrize("file", ["base/log.jsonl", "round-1/samples/00-00000.png"])
def test_files_changed_behind_its_back_are_named(file: str, saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    with (folder / file).open("ab") as handle:
        handle.write(b"\n")
    saadi("run", finished.config, "--out", folder).refused(file, "was changed", "--redo")
    (folder / file).unlink()
    saadi("run", finished.config, "--out", folder).refused(file, "is missing", "--redo")
