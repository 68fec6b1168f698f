"""Folds: each group is tested once; what is said of all is the mean of single groups, or of all patients as one set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command
from segmented import write

from saadi import folds
from saadi.config import RunConfig
from saadi.configfile import parse_config
from saadi.data.load import labelled_frames
from saadi.errors import BadInput, Interrupted
from saadi.evaluation.statistics import Bootstrap
from saadi.evaluation.together import mean_of
from saadi.folds import checked_folds, fold_folder, folds_of, folds_table, run_folds
from saadi.manifests import REDO
from saadi.records import Frame, Task
from saadi.store import Begin


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fold is looked at before it is run."""
    for check in ("preflight", "check_settings"):
        monkeypatch.setattr(folds, check, lambda *_: None)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    values = {"task": "segmentation", "data": {"path": str(write(tmp_path / "data"))}, "evaluation": {"bootstrap": 50}}
    return parse_config(values, "test")


def frames_of(config: RunConfig) -> list[Frame]:
    return labelled_frames(config.data, config.seed, config.task)[1]


def test_each_group_is_the_test_set_once_and_val_is_the_one_before(config: RunConfig) -> None:
    found = folds_of(config, frames_of(config))
    assert [(group, fold.data.test, fold.data.val) for group, fold in found.items()] == [
        ("A", ("A",), ("D",)), ("B", ("B",), ("A",)), ("C", ("C",), ("B",)), ("D", ("D",), ("C",)),
    ]  # fmt: skip
    assert {(fold.seed, fold.patience) for fold in found.values()} == {(config.seed, 0)}  # the same arms in each


@pytest.mark.parametrize(("task", "having"), [("segmentation", "AB"), ("classification", "ABC")])
def test_val_leaves_every_class_to_learn_from(task: Task, having: str, config: RunConfig) -> None:
    """A class of two groups may not be test in one and val in the other; for classification two have to be left."""
    frames = [Frame(f"{group}-{label}", (label,), group, "train") for group in "ABCDE" for label in ("hook", "clip")]
    frames += [Frame(f"{group}-rare", ("rare",), group, "train") for group in having]
    made = folds_of(config.model_copy(update={"task": task}), frames)
    chosen = {name: fold.data.val[0] for name, fold in made.items()}
    assert chosen == {"A": "E", "B": "E", "C": "B" if task == "segmentation" else "E", "D": "C", "E": "D"}


def test_parts_share_out_groups_and_classes(config: RunConfig) -> None:
    labels = ["a", "b", "a", "b", "a", "b", "rare", "rare", "rare"]
    frames = [Frame(f"{k}.png", (label,), f"g{k}", "train") for k, label in enumerate(labels)]
    found = folds_of(config, frames, 3)
    assert list(found) == ["part-1", "part-2", "part-3"]
    tests = [fold.data.test for fold in found.values()]
    assert sorted(group for test in tests for group in test) == [f"g{k}" for k in range(9)]
    assert [fold.data.val for fold in found.values()] == [tests[2], tests[0], tests[1]]
    for test in tests:
        assert sorted(labels[int(group[1:])] for group in test) == ["a", "b", "rare"]


@pytest.mark.parametrize("parts", [2, 5])
def test_parts_are_three_at_least_and_none_is_empty(config: RunConfig, parts: int) -> None:
    with pytest.raises(BadInput, match=rf"^--parts {parts}: give 4, so that test and val leave two groups or more"):
        folds_of(config, frames_of(config), parts)
    frames = [Frame(f"{k}.png", ("hook",), f"g{k}", "train") for k in range(9)]
    for groups, told in ((5, "4 to 5"), (6, "3 to 6"), (9, "3 to 9")):
        with pytest.raises(BadInput, match=f"--parts 2: give {told}, so"):
            folds_of(config, frames[:groups], 2)


def test_what_is_wrong_with_a_fold_says_of_which(config: RunConfig, tmp_path: Path) -> None:
    """What one fold lacks is there in the data; what all of them lack is said of none."""
    values = {"data": {"path": str(config.data.path), "size": 32}, "device": "cpu"}
    few = parse_config({**values, "task": "segmentation"}, "test")
    with pytest.raises(BadInput, match=r"^fold A \(test A, val D\): critic.folds: .*; set it lower$"):
        checked_folds(few, tmp_path / "out")
    with pytest.raises(BadInput, match=r"^fold part-1 \(test .*, val .*\): .*; or give other --parts$"):
        checked_folds(few, tmp_path / "out", 3)
    odd = few.model_copy(update={"preferences": few.preferences.model_copy(update={"pairing": "x"})})
    with pytest.raises(BadInput, match=r"^preferences.pairing: unknown"):  # of any fold
        checked_folds(odd, tmp_path / "out")
    with pytest.raises(BadInput, match=r"^fold A \(test A, val D\): .* images in val; .*; or give --parts$"):
        checked_folds(few.model_copy(update={"critic": few.critic.model_copy(update={"folds": 2})}), tmp_path / "out")


def test_folds_need_four_groups_and_real_images(config: RunConfig, tmp_path: Path) -> None:
    three = [frame for frame in frames_of(config) if frame.group != "C"]
    with pytest.raises(BadInput, match="3 groups"):
        folds_of(config, three)
    with pytest.raises(BadInput, match="phantom"):
        run_folds(parse_config({"data": {"source": "phantom"}}, "test"), tmp_path)


def test_it_is_the_mean_of_the_folds_that_have_the_class() -> None:
    boots = [
        Bootstrap({"real": np.array([0.2, np.nan])}, {"real": np.array([[0.1, np.nan], [0.3, np.nan]])}, "image"),
        Bootstrap({"real": np.array([0.4, 0.8])}, {"real": np.array([[0.5, 0.8], [0.3, np.nan]])}, "image"),
    ]
    whole = mean_of(boots)
    np.testing.assert_allclose(whole.point["real"], [0.3, 0.8])
    np.testing.assert_allclose(whole.draws["real"], [[0.3, 0.8], [0.3, np.nan]])


def fake_run(config: RunConfig, folder: Path, *, final: bool, begin: Begin, redo: Sequence[str] = ()) -> dict[str, Any]:
    """What a finished run leaves: predictions of two trainings on four images of each group. `round-1` is perfect but
    in D, where it sees nothing and val chose it all the same; `round-2` and `real` are half of it."""
    (folder / "evaluation").mkdir(parents=True)
    groups = np.repeat(config.data.test, 4)
    truth = np.zeros((len(groups), 8, 8), np.uint8)
    truth[:, 2:4], truth[:, 5:7] = 1, 2
    half, best = np.where(np.arange(8) < 4, truth, 0), np.where((groups == "D")[:, None, None], 0, truth)
    answers = {"real": half, "round-1": best, "round-2": half}
    names = {"files": np.arange(len(groups)).astype(str), "groups": groups, "targets": truth}
    twice = {arm: np.stack([one, one]) for arm, one in answers.items()}
    np.savez(folder / "evaluation/predictions-test.npz", allow_pickle=False, **names, **twice)
    iou = {"A": None, "B": 0.25, "C": 0.5, "D": 0.75}[config.data.test[0]]
    return {
        "val_choices": {"round": "round-2" if "A" in config.data.test else "round-1"},
        "arms": {arm: {"n_generated": 7 + k, "iou": iou} for k, arm in enumerate(answers)},
    }


def test_folds_are_run_and_read_together(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "run", fake_run)
    unchecked(monkeypatch)
    results = run_folds(config, tmp_path / "out")
    assert json.loads((tmp_path / "out/folds.json").read_text()) == results
    real, chosen = results["arms"]["real"], results["arms"]["chosen"]
    half = 2 / 3  # half of the area, nothing else: 2 * 0.5 / (0.5 + 1)
    assert real["mean"] == pytest.approx(half)
    assert real["per_fold"] == real["per_group"] == pytest.approx(dict.fromkeys("ABCD", half))
    assert (real["n_generated"], chosen["n_generated"]) == (28, 9 + 3 * 8)
    assert real["iou"] == 0.5  # of the three folds that have one
    assert chosen["per_fold"] == pytest.approx({"A": half, "B": 1, "C": 1, "D": 0})
    assert chosen["mean"] == pytest.approx((half + 2) / 4)
    gain = results["gains"]["chosen - real"]
    assert gain["mean"] == pytest.approx((half + 2) / 4 - half)
    assert gain["least_group"] == ["D", pytest.approx(-half)]
    assert gain["least_class"][1] == pytest.approx(gain["mean"])  # both classes are seen alike
    assert results["interval"]["unit"] == "image"
    assert "given these 4 groups" in results["interval"]["given"]
    lines = folds_table(results).splitlines()
    assert lines[1].split() == ["real", "66.7", "66.7", "66.7", "66.7"]
    assert lines[-2] == "chosen on val: A round-2, B round-1, C round-1, D round-1"
    assert lines[-1].startswith("chosen - real, least of groups: D -66.7, of classes ")


def test_no_two_folds_share_a_folder(tmp_path: Path) -> None:
    names = ["OP1", "OP-1", "OP 1", "OP/1", "\u60a3\u8005\u7532", "\u60a3\u8005\u4e59"]
    places = [fold_folder(tmp_path, name) for name in names]
    assert len({*places}) == len(names)
    assert all(place.parent == tmp_path for place in places)
    assert [place.name for place in places[:2]] == ["test-OP1", "test-OP-1"]


def test_only_the_first_of_several_processes_reads_the_folds(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "run", lambda *_, **__: {})
    unchecked(monkeypatch)
    assert run_folds(config, tmp_path / "out") == {}
    assert not (tmp_path / "out/folds.json").exists()


def test_parts_are_read_as_one_set(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "run", fake_run)
    unchecked(monkeypatch)
    results = run_folds(config, tmp_path / "out", 3)
    assert sorted(group for fold in results["folds"].values() for group in fold["test"]) == list("ABCD")
    assert results["interval"]["unit"] == "group"
    # Of 16 images with as much to see in each, round-1 sees 12 wholly and 4 not at all
    assert results["arms"]["round-1"]["mean"] == pytest.approx(2 * 12 / (12 + 16))
    assert results["arms"]["round-1"]["per_group"] == pytest.approx({"A": 1, "B": 1, "C": 1, "D": 0})
    low, high = results["arms"]["round-1"]["ci95"]
    assert low < 0.7
    assert high == 1


def test_the_command_says_what_is_wrong(saadi: Command, tmp_path: Path) -> None:
    path = tmp_path / "phantom.yaml"
    path.write_text("data: {source: phantom}\n")
    saadi("folds", path, "--out", tmp_path / "out").refused("phantom", "fresh patients")
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_parts_that_cannot_be(saadi: Command, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"task: segmentation\ndata: {{path: {write(tmp_path / 'data')}}}\n")
    saadi("folds", path, "--parts", "9", "--out", tmp_path / "out").refused("--parts 9", "give 4")
    assert not (tmp_path / "out").exists()


def test_folds_can_be_planned_and_what_has_begun_made_anew(
    saadi: Command, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"task: segmentation\ndata: {{path: {config.data.path}, size: 32}}\n")
    unchecked(monkeypatch)
    monkeypatch.setattr("saadi.plan.estimate", lambda fold: {"test": list(fold.data.test)})
    planned = json.loads(saadi("folds", path, "--dry-run", "--json", "--out", tmp_path / "out").out)
    assert planned == {"folds": 4, "each": {"test": ["A"]}}
    assert not (tmp_path / "out").exists()

    asked = {}

    def begun(fold: RunConfig, place: Path, *, redo: Sequence[str], **_: Any) -> dict[str, Any]:
        asked[fold.data.test[0]] = redo
        return {}

    monkeypatch.setattr(folds, "run", begun)
    (fold_folder(tmp_path / "out", "B")).mkdir(parents=True)
    (fold_folder(tmp_path / "out", "B") / "config.yaml").touch()
    run_folds(config, tmp_path / "out", redo=["base"])
    assert asked == {"A": (), "B": ["base"], "C": (), "D": ()}


def test_a_redo_of_folds_that_is_stopped_makes_none_anew_twice(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchecked(monkeypatch)
    asked: list[tuple[str, list[str]]] = []
    stopped_in = ["C"]

    def made(fold: RunConfig, place: Path, *, redo: Sequence[str], **given: Any) -> dict[str, Any]:
        asked.append((fold.data.test[0], list(redo)))
        if [fold.data.test[0]] == stopped_in:
            raise Interrupted
        shutil.rmtree(place)
        return fake_run(fold, place, redo=redo, **given)

    monkeypatch.setattr(folds, "run", made)
    for name in "ABCD":
        (fold_folder(tmp_path, name)).mkdir()
        (fold_folder(tmp_path, name) / "config.yaml").touch()
    with pytest.raises(Interrupted):
        run_folds(config, tmp_path, redo=["base"])
    assert asked == [(name, ["base"]) for name in "ABC"]
    asked.clear()
    stopped_in.clear()
    run_folds(config, tmp_path)  # with the word or without it
    assert asked == [("A", []), ("B", []), ("C", ["base"]), ("D", ["base"])]
    assert not (tmp_path / REDO).exists()
