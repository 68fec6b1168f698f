"""What `--dry-run` says of a run, and what it refuses as the run would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Command, Finished


@pytest.mark.parametrize(("seeds", "trainings"), [(1, 10), (2, 20)])
def test_a_dry_run_plans_and_writes_nothing(
    seeds: int, trainings: int, saadi: Command, tiny: Path, tmp_path: Path
) -> None:
    arguments = ("run", tiny, "--out", tmp_path / "run", "--dry-run", "--set", f"evaluation.seeds={seeds}")
    plan = json.loads(saadi(*arguments, "--json").out)
    assert plan["stages"]["downstream"]["trainings"] == trainings
    assert plan["classes"] == 8
    assert plan["disk"] > 0
    assert "in all" in saadi(*arguments).out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_what_is_led_and_says_nothing_beside_the_plan(
    saadi: Command, tiny: Path, tmp_path: Path
) -> None:
    def led(lead: float) -> int:
        settings = [f"sampling.lead={lead}", "evaluation.synthetic=16", "evaluation.drawn=3"]
        sets = [word for one in settings for word in ("--set", one)]
        done = saadi("run", tiny, "--out", tmp_path / "run", "--dry-run", "--json", *sets)
        assert done.err == ""
        return int(json.loads(done.out)["stages"]["drawing"]["led"])

    assert (led(0), led(0.1)) == (0, 3 * 3 * 16)  # two rounds and feedback: three are drawn for each that is used


def test_a_dry_run_refuses_what_the_run_would(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    for setting, word in (
        ("evaluation.classifier.model=vit_tiny_patch16_224", "evaluation.classifier.model"),
        ("preferences.criterion=beauty", "preferences.criterion"),
        ("evaluation.mixing=[0.01]", "evaluation.mixing"),
    ):
        saadi("run", tiny, "--out", tmp_path / "run", "--dry-run", "--set", setting).refused(word)


def test_the_plans_disk_holds_a_run(finished: Finished, saadi: Command, tmp_path: Path) -> None:
    plan = json.loads(saadi("run", finished.config, "--out", tmp_path / "run", "--dry-run", "--json").out)
    filled = sum(path.stat().st_size for path in finished.folder.rglob("*") if path.is_file())
    assert filled < plan["disk"] < 20 * filled


def test_the_demo_can_be_planned(saadi: Command, tmp_path: Path) -> None:
    """Elsewhere than by default: there the demo may have been run, with other settings, which a plan refuses, too."""
    plan = json.loads(saadi("demo", "--dry-run", "--json", "--set", "rounds=1", "--out", tmp_path / "demo").out)
    assert plan["stages"]["data"]["images"] > 1000
