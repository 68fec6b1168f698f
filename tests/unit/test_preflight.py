"""Settings of preferences that cannot work together are refused before any work begins."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from saadi.configfile import parse_config
from saadi.errors import BadInput
from saadi.preflight import preflight


def refuse(folder: Path, match: str, **sections: object) -> None:
    config = parse_config({"data": {"source": "phantom", "size": 32}, "device": "cpu", **sections}, "test")
    with pytest.raises(BadInput, match=match):
        preflight(config, folder)


def test_influence_is_of_one_member(tmp_path: Path) -> None:
    match = r"^critic.copies: 2; influence is of one member's last layer: set it to 1$"
    refuse(tmp_path, match, preferences={"criterion": "influence"}, critic={"copies": 2})


def test_influence_needs_the_features_that_the_last_layer_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = ModuleType("lab")
    lab.make = lambda classes: nn.Sequential(nn.Flatten(), nn.Linear(3072, classes))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lab", lab)
    match = r"^preferences.criterion: influence: lab:make: Sequential does not tell what its last layer sees"
    critic = {"classifier": {"model": "lab:make"}}
    refuse(tmp_path, match, preferences={"criterion": "influence"}, critic=critic)


@pytest.mark.parametrize("criterion", ["influence", "learnability"])
def test_criteria_of_classes_are_not_for_masks(criterion: str, tmp_path: Path) -> None:
    match = f"^preferences.criterion: {criterion} is for classification; for segmentation: region-dice, region-iou$"
    refuse(tmp_path, match, task="segmentation", preferences={"criterion": criterion})


def test_the_nearest_name_is_told(tmp_path: Path) -> None:
    match = r"^preferences.penalties: unknown 'memorization'; did you mean memorisation\?$"
    refuse(tmp_path, match, preferences={"penalties": {"memorization": 1}})
    match = r"^preferences.penalties: unknown 'ugly'; one of memorisation, out-of-support, similarity$"
    refuse(tmp_path, match, preferences={"penalties": {"ugly": 1}})
    refuse(tmp_path, r"unknown 'best-wurst'; did you mean best-worst\?$", preferences={"pairing": "best-wurst"})
