"""Settings of preferences that cannot work together are refused before any work begins."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from saadi.configfile import demo_config, dump_config, load_config, parse_config
from saadi.errors import BadInput
from saadi.manifests import MANIFEST
from saadi.preferences import CRITERIA, Criterion
from saadi.preflight import check_models, preflight


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


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_a_task_needs_no_more_than_its_name(task: str, tmp_path: Path) -> None:
    preflight(parse_config({"task": task, "data": {"source": "phantom"}}, "test"), tmp_path / "run")


@pytest.mark.parametrize("name", ["surgical_tool", "surgical tool"])
def test_every_prompt_of_presence_is_tried(name: str, tmp_path: Path) -> None:
    """Names are told as words; all that an image shows, and one class more, has to fit into a prompt."""
    names = [f"{name}_{letter}" for letter in "abcdefgh"]
    (tmp_path / "images").mkdir()
    rows = [",".join(("file", "group", "split", *(f"has_{one}" for one in names)))]
    for number in range(64):
        split = ("train", "train", "val", "test")[number % 4]
        shows = [str(int(k == number // 4 % 8 or (k < 3 and number < 8))) for k in range(8)]
        rows.append(",".join((f"images/{number}.png", f"{split}{number // 4 % 4}", split, *shows)))
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(tmp_path / f"images/{number}.png")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    values = {
        "task": "presence",
        "base": {"prompt": "as it comes, an image of {label}"},
        "critic": {"folds": 2},
        "data": {"path": str(tmp_path), "size": 32},
    }
    preflight(parse_config(values, "test"), tmp_path / "run")
    table.write_text(table.read_text().replace("0,0,0,0,0\n", "1,1,1,1,1\n"))
    with pytest.raises(BadInput, match=r"tokens, the text encoder takes 40; shorten the class name or base.prompt"):
        preflight(parse_config(values, "test"), tmp_path / "run")


@pytest.mark.parametrize("criterion", ["influence", "learnability"])
def test_criteria_of_classes_are_not_for_masks(criterion: str, tmp_path: Path) -> None:
    match = f"^preferences.criterion: {criterion} is for classification; for segmentation: region-dice, region-iou$"
    refuse(tmp_path, match, task="segmentation", preferences={"criterion": criterion})


def test_a_folder_that_the_run_would_refuse_is_refused(tmp_path: Path) -> None:
    """Of another configuration, even where the base is finished; of somebody else; a file, or below one."""
    config = parse_config({"data": {"source": "phantom", "size": 32}, "device": "cpu"}, "test")
    folder, file = tmp_path / "run", tmp_path / "mine.txt"
    (folder / "base").mkdir(parents=True)
    manifest = '{"key": {"inputs": {}}, "outputs": {}}'
    (folder / "base" / MANIFEST).write_text(manifest, encoding="utf-8")
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    preflight(config, folder)
    other = config.model_copy(update={"rounds": 7})
    with pytest.raises(BadInput, match=r"another configuration: rounds \(2 before, 7 now\)"):
        preflight(other, folder)
    with pytest.raises(BadInput, match=r"--redo bass: no such stage .* did you mean base"):
        preflight(other, folder, ["bass"])
    preflight(other, folder, ["base"])
    file.touch()
    with pytest.raises(BadInput, match="is not empty and not a run"):
        preflight(config, tmp_path)
    with pytest.raises(BadInput, match=r"^\S+mine\.txt: is a file; choose another folder with --out$"):
        preflight(config, file)
    with pytest.raises(BadInput, match=r"^\S+mine\.txt/run: \S+mine\.txt is a file; choose another"):
        preflight(config, file / "run")


def test_the_nearest_name_is_told(tmp_path: Path) -> None:
    match = r"^preferences.penalties: unknown 'memorization'; did you mean memorisation\?$"
    refuse(tmp_path, match, preferences={"penalties": {"memorization": 1}})
    match = r"^preferences.penalties: unknown 'ugly'; one of memorisation, out-of-support, similarity$"
    refuse(tmp_path, match, preferences={"penalties": {"ugly": 1}})
    refuse(tmp_path, r"unknown 'best-wurst'; did you mean best-worst\?$", preferences={"pairing": "best-wurst"})


def test_a_criterion_of_ones_own_needs_a_run_without_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mine(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        return logits[np.arange(len(labels)), labels]

    monkeypatch.setitem(CRITERIA, "mine", Criterion("classification", mine))
    config = demo_config(0, ("preferences.criterion=mine",))
    monkeypatch.setattr("saadi.preflight.crew_size", lambda _: 0)
    preflight(config, tmp_path / "run")
    monkeypatch.setattr("saadi.preflight.crew_size", lambda _: 2)
    with pytest.raises(BadInput, match=rf"mine: worker processes do not import {__name__}; set threads: 1"):
        preflight(config, tmp_path / "run")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda one: one.stem
)
def test_every_config_names_models_that_there_are(path: Path) -> None:
    assert check_models(load_config(path))["critic.judge"]
