"""Further rivals by `evaluation.rivals`: arms like all others, of the same cost, in plan, results and page."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import Command, Finished, read_json

RIVALS = ("randaugment", "mixup", "cutmix")


def test_every_rival_is_an_arm(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    strong = "evaluation.strong={model: resnet10t, steps: 3, batch: 4}"
    changes = ("--set", f"evaluation.rivals=[{', '.join(RIVALS)}]", "--set", "rounds=1", "--set", strong)
    folder = tmp_path / "run"
    outcome = saadi("run", tiny, "--out", folder, *changes, "--final")
    assert outcome.code == 0, outcome.err
    results = read_json(folder / "results.json")
    arms = results["arms"]
    assert {"real-randaugment", "real-mixup", "real-cutmix", "real-strong"} < set(arms)
    assert (arms["real-strong"]["steps"], arms["real"]["steps"]) == (3, 2)
    assert arms["real-cutmix"]["n_synthetic"] == arms["real-cutmix"]["unet_evaluations"] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "real, CutMix" in page
    plan = json.loads(saadi("run", tiny, *changes, "--dry-run", "--json").out)
    trained = list((folder / "evaluation/trainings").glob("*/*/seed-*/model.safetensors"))
    assert plan["stages"]["downstream"]["trainings"] == len(trained)
    assert read_json(folder / "evaluation/membership/membership.json")["aligned"]["ci95"]


def test_a_lead_costs_no_pass_and_changes_what_is_drawn(finished: Finished) -> None:
    results, sets = finished.results, finished.folder / "evaluation/sets"
    arms, drawn = results["arms"], "00-00000.png"
    assert (
        arms["feedback"]["unet_evaluations"] == 3 * arms["unaligned"]["unet_evaluations"]
    )  # three of which one is used
    assert arms["unpicked"]["unet_evaluations"] == arms["unled"]["unet_evaluations"]
    assert results["judge_gains"].keys() == {f"{arm} - unaligned" for arm in ("winners", "unpicked", "unled")}
    for led, plain in (("feedback", "unaligned"), ("round-2", "unled")):  # of the same noise, and one model
        assert (sets / led / drawn).read_bytes() != (sets / plain / drawn).read_bytes()


def test_no_lead_no_rival_that_is_led(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    changes = ("--set", "sampling.lead=0", "--set", "rounds=1")
    assert saadi("run", tiny, "--out", tmp_path / "run", *changes).code == 0
    results = read_json(tmp_path / "run" / "results.json")
    assert not {"feedback", "unled"} & set(results["arms"])
    assert results["judge_gains"].keys() == {"winners - unaligned", "unpicked - unaligned"}
    plan = json.loads(saadi("run", tiny, *changes, "--dry-run", "--json").out)
    trained = list((tmp_path / "run/evaluation/trainings").glob("*/*/seed-*/model.safetensors"))
    assert plan["stages"]["downstream"]["trainings"] == len(trained)


def test_without_controls_only_the_method_is_trained(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    changes = ("--set", "evaluation.controls=false", "--set", "rounds=1")
    assert saadi("run", tiny, "--out", tmp_path / "run", *changes).code == 0
    assert set(read_json(tmp_path / "run" / "results.json")["arms"]) == {
        *("real", "real-pretrained", "unaligned", "round-1"),
    }
    assert not (tmp_path / "run/winners").exists()
    plan = json.loads(saadi("run", tiny, *changes, "--dry-run", "--json").out)
    assert plan["stages"]["downstream"]["trainings"] == 4 * 2


def test_a_lead_needs_a_solver_that_says_what_it_expects(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    saadi("run", tiny, "--out", tmp_path / "run", "--set", "sampling.solver=ddim").refused("sampling.lead", "dpm++")
    assert not (tmp_path / "run").exists()
