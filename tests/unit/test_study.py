"""A study's table is of the committed files alone: levels from predictions, choices from val, intervals over seeds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from study import compared, level_of, report
from study_figure import draw, save

STUDIES = Path(__file__).parents[2] / "studies"
TRUTH = "0000111122"
STUDY: dict[str, Any] = {
    "endpoints": {
        "chosen - real": {"more": "chosen", "than": "real"},
        "chosen - strongest": {"more": "chosen", "than": "strongest"},
        "rare": {"more": "chosen", "than": "real", "among": "rare"},
        "two - one": {"more": "round-2", "than": "one-round/round-1"},
    }
}


def _wrong(count: int) -> str:
    """The truth with the first `count` images of class 0 taken for 1."""
    return "1" * count + TRUTH[count:]


def _unit(of_real: int, of_round: int, *, spoilt_rare: bool = False) -> dict[str, Any]:
    """A seed: by arm, how many of the four images of class 0 are wrong in both trainings."""
    rare = TRUTH[:-1] + "0" if spoilt_rare else TRUTH
    predictions = {
        "real": [_wrong(of_real)] * 2,
        "real-cutmix": [_wrong(1)] * 2,
        "unaligned": [_wrong(2)] * 2,
        "round-1": [_wrong(4), TRUTH],
        "round-2": [_wrong(of_round) if not spoilt_rare else rare] * 2,
    }
    val = {"real": 0.5, "real-cutmix": 0.6, "unaligned": 0.9, "round-1": 0.4, "round-2": 0.7}
    base = {
        "classes": ["a", "b", "c"], "rare_classes": ["c"], "truth": TRUTH, "predictions": predictions,
        "val_choices": {"round": "round-2", "val_balanced_accuracy": val}, "arms": {arm: {} for arm in predictions},
        "synthetic": {
            "unaligned": {"judge_agreement": 0.5, "memorised": 0.25, "kid": 0.5},
            "round-2": {"judge_agreement": 1 - of_real / 8, "memorised": 0.0, "kid": 0.75},
        },
        "membership": {"base": {"auc": 0.5 + of_real / 16}, "aligned": {"auc": 0.75}},
    }  # fmt: skip
    return {**base, "variants": {"one-round": {**base, "predictions": {**predictions, "round-1": [_wrong(3)]}}}}


def test_a_level_is_balanced_accuracy_averaged_over_trainings() -> None:
    unit = _unit(2, 0)
    assert level_of(unit, "real") == pytest.approx((0.5 + 1 + 1) / 3)
    assert level_of(unit, "round-1") == pytest.approx((0.5 + 1 + 1) / 3)  # wrong in one training, right in the other
    assert level_of(unit, "chosen") == 1
    assert level_of(_unit(2, 0, spoilt_rare=True), "chosen", "rare") == 0.5


def test_the_round_and_the_strongest_real_recipe_are_chosen_on_val() -> None:
    unit = _unit(2, 1)
    unit["val_choices"]["round"] = "round-1"
    assert level_of(unit, "chosen") == level_of(unit, "round-1")
    assert level_of(unit, "strongest") == level_of(unit, "real-cutmix")  # not the unaligned arm, better on val


def test_endpoints_are_paired_by_seed() -> None:
    units = [_unit(4, 0), _unit(2, 0), _unit(0, 0)]
    assert compared(units, STUDY["endpoints"]["chosen - real"]) == pytest.approx([1 / 3, 1 / 6, 0])
    assert compared(units, STUDY["endpoints"]["two - one"]) == pytest.approx([1 / 4] * 3)
    told = report(STUDY, units)
    entry = told["endpoints"]["chosen - real"]
    half = 4.302653 * np.std([1 / 3, 1 / 6, 0], ddof=1) / np.sqrt(3)
    assert entry["mean"] == pytest.approx(1 / 6)
    assert entry["ci95"] == pytest.approx([1 / 6 - half, 1 / 6 + half])
    assert entry["least"] == 0
    assert entry["p_holm"] >= 0.2
    assert entry["least_class"] == ("b", 0.0)
    assert told["endpoints"]["two - one"]["least_class"][1] == 0
    assert (
        told["endpoints"]["rare"]["least_class"][0] == "c"
    )  # of the rare classes, not the one that gains least of all
    same = report(STUDY, [_unit(2, 0)] * 2)["endpoints"]["chosen - real"]
    assert (same["mean"], same["p_holm"]) == (pytest.approx(1 / 6), 1)
    assert told["arms"]["real"]["by_seed"] == pytest.approx([2 / 3, 5 / 6, 1])
    assert "ci95" not in report(STUDY, units[:1])["endpoints"]["rare"]


def test_looks_are_those_of_the_chosen_round_paired_by_seed() -> None:
    told = report(STUDY, [_unit(4, 0), _unit(2, 0), _unit(0, 0)])["images"]
    assert told.keys() == {"chosen - unaligned"}
    agreement = told["chosen - unaligned"]["judge_agreement"]
    assert agreement["by_seed"] == pytest.approx([0.0, 0.25, 0.5])
    assert agreement["levels"] == pytest.approx([0.75, 0.5])
    assert told["chosen - unaligned"]["memorised"]["mean"] == -0.25


def test_the_picture_shows_every_arm_and_endpoint_and_is_the_same_twice(tmp_path: Path) -> None:
    told = report(STUDY, [_unit(4, 0), _unit(2, 0), _unit(0, 0)])
    arms, endpoints = draw(told).axes
    assert [label.get_text() for label in arms.get_yticklabels()] == list(told["arms"])
    assert [label.get_text() for label in endpoints.get_yticklabels()] == list(STUDY["endpoints"])
    by_seed = endpoints.lines[0].get_xdata()
    assert sorted(np.asarray(by_seed)) == pytest.approx([0, 100 / 6, 100 / 3])
    for name in ("one.svg", "two.svg"):
        save(draw, told, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_how_far_a_model_gives_its_training_images_away_is_told_by_seed() -> None:
    told = report(STUDY, [_unit(4, 0), _unit(2, 0), _unit(0, 0)])["membership"]
    assert told["base"]["by_seed"] == [0.75, 0.625, 0.5]
    assert told["rise"]["by_seed"] == [0, 0.125, 0.25]
    assert told["rise"]["mean"] == told["aligned"]["mean"] - told["base"]["mean"] == 0.125


def test_the_page_of_studies_says_what_the_committed_files_say() -> None:
    study = STUDIES / "phantom-classification"
    asked = yaml.safe_load((study / "study.yaml").read_text(encoding="utf-8"))
    told = report(asked, [json.loads(path.read_text(encoding="utf-8")) for path in sorted(study.glob("seed-*.json"))])
    page = (STUDIES.parent / "docs/study.md").read_text(encoding="utf-8")
    for entry in (*told["endpoints"].values(), *told["further"].values()):
        mean, (low, high) = 100 * entry["mean"], (100 * bound for bound in entry["ci95"])
        assert re.search(rf"{re.escape(f'{mean:+.1f}')}\*{{0,2}} \({low:.1f} to {high:.1f}\)", page), entry["mean"]
    for arm, entry in told["arms"].items():
        assert f"| `{arm}` | {100 * entry['mean']:.1f} |" in page


def test_what_was_not_asked_beforehand_is_told_apart() -> None:
    units = [_unit(4, 0), _unit(2, 0), _unit(0, 0)]
    for unit in units:
        unit["arms"] = {**unit["arms"], "real-pretrained": {}}
        unit["predictions"] = {**unit["predictions"], "real-pretrained": [TRUTH] * 2}
    told = report(STUDY, units)
    # The others are no arms of this study
    assert list(told["further"]) == ["real-pretrained - real", "chosen - real-pretrained"]
    assert told["further"]["chosen - real-pretrained"]["mean"] == 0
    assert told["further"]["real-pretrained - real"]["mean"] == pytest.approx(1 / 6)
    assert "p_holm" not in told["further"]["real-pretrained - real"]
