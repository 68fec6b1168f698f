"""Further rivals by `evaluation.rivals`: arms like all others, of the same cost, in plan, results and page."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Command, read_json

RIVALS = ("randaugment", "mixup", "cutmix", "feedback")


def test_every_rival_is_an_arm(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    changes = ("--set", f"evaluation.rivals=[{', '.join(RIVALS)}]", "--set", "rounds=1")
    folder = tmp_path / "run"
    outcome = saadi("run", tiny, "--out", folder, *changes, "--final")
    assert outcome.code == 0, outcome.err
    results = read_json(folder / "results.json")
    arms = results["arms"]
    assert {"real-randaugment", "real-mixup", "real-cutmix", "feedback"} < set(arms)
    assert arms["real-cutmix"]["n_synthetic"] == arms["real-cutmix"]["unet_evaluations"] == 0
    for fact in ("n_synthetic", "n_generated", "unet_evaluations", "steps"):
        assert arms["feedback"][fact] == arms["unaligned"][fact]
    assert "feedback" in results["synthetic"]
    assert results["judge_gain"]["of"] == "unpicked - unaligned"
    pixels = [(folder / f"evaluation/sets/{arm}/00-00000.png").read_bytes() for arm in ("feedback", "unaligned")]
    assert pixels[0] != pixels[1]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "real, CutMix" in page
    plan = json.loads(saadi("run", tiny, *changes, "--dry-run", "--json").out)
    trained = list((folder / "evaluation/trainings").glob("*/*/seed-*/model.safetensors"))
    assert plan["stages"]["downstream"]["trainings"] == len(trained)
    assert read_json(folder / "evaluation/membership/membership.json")["aligned"]["ci95"]


def test_feedback_needs_a_solver_that_says_what_it_expects(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    changes = ("--set", "evaluation.rivals=[feedback]", "--set", "sampling.solver=ddim")
    saadi("run", tiny, "--out", tmp_path / "run", *changes).refused("evaluation.rivals: feedback", "dpm++")
    assert not (tmp_path / "run").exists()
