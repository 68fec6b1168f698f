"""Folds: each group is the test set once, and what is said of all is the mean of what each says."""

from __future__ import annotations

import json
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
from saadi.errors import BadInput
from saadi.evaluation.statistics import Bootstrap
from saadi.folds import fold_folder, folds_of, folds_table, run_folds, together
from saadi.store import Begin


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    values = {"task": "segmentation", "data": {"path": str(write(tmp_path / "data"))}, "evaluation": {"bootstrap": 50}}
    return parse_config(values, "test")


def test_each_group_is_the_test_set_once_and_val_is_the_one_before(config: RunConfig) -> None:
    found = folds_of(config)
    assert [(group, fold.data.test, fold.data.val) for group, fold in found.items()] == [
        ("A", ("A",), ("D",)), ("B", ("B",), ("A",)), ("C", ("C",), ("B",)), ("D", ("D",), ("C",)),
    ]  # fmt: skip
    assert {(fold.seed, fold.patience) for fold in found.values()} == {(config.seed, 0)}  # the same arms in each


def test_folds_need_four_groups_and_real_images(config: RunConfig) -> None:
    table = Path(str(config.data.path)) / "labels.csv"
    table.write_text(table.read_text().replace(",C,val", ",A,train"))
    with pytest.raises(BadInput, match="3 groups"):
        folds_of(config)
    with pytest.raises(BadInput, match="phantom"):
        folds_of(parse_config({"data": {"source": "phantom"}}, "test"))


def test_together_is_the_mean_of_the_folds_that_have_the_class() -> None:
    boots = [
        Bootstrap({"real": np.array([0.2, np.nan])}, {"real": np.array([[0.1, np.nan], [0.3, np.nan]])}, "image"),
        Bootstrap({"real": np.array([0.4, 0.8])}, {"real": np.array([[0.5, 0.8], [0.3, np.nan]])}, "image"),
    ]
    whole = together(boots)
    np.testing.assert_allclose(whole.point["real"], [0.3, 0.8])
    np.testing.assert_allclose(whole.draws["real"], [[0.3, 0.8], [0.3, np.nan]])


def fake_run(config: RunConfig, folder: Path, *, final: bool, begin: Begin, redo: Sequence[str] = ()) -> dict[str, Any]:
    """What a finished run leaves: predictions of two trainings on four images, `round-1` perfect, `real` half of it."""
    (folder / "evaluation").mkdir(parents=True)
    truth = np.zeros((4, 8, 8), np.uint8)
    truth[:, 2:4], truth[:, 5:7] = 1, 2
    half = np.where(np.arange(8) < 4, truth, 0)
    answers = {"real": np.stack([half, half]), "round-1": np.stack([truth, truth])}
    names = {"files": np.arange(4).astype(str), "groups": np.array([config.data.test[0]] * 4)}
    np.savez(folder / "evaluation/predictions-test.npz", allow_pickle=False, targets=truth, **names, **answers)
    iou = {"A": None, "B": 0.25, "C": 0.5, "D": 0.75}[config.data.test[0]]
    return {"metric": "dice", "n_test": 4, "arms": {arm: {"n_generated": 7, "iou": iou} for arm in answers}}


def test_folds_are_run_and_read_together(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "run", fake_run)
    monkeypatch.setattr(folds, "preflight", lambda *_: None)
    results = run_folds(config, tmp_path / "out")
    assert json.loads((tmp_path / "out/folds.json").read_text()) == results
    real = results["arms"]["real"]
    assert real["mean"] == pytest.approx(2 / 3)  # half of the area, nothing else: 2 * 0.5 / (0.5 + 1)
    assert real["per_fold"] == pytest.approx(dict.fromkeys("ABCD", 2 / 3))
    assert real["n_generated"] == 28
    assert real["iou"] == 0.5  # of the three folds that have one
    assert results["arms"]["round-1"]["mean"] == 1
    assert results["gains"]["round-1 - real"]["mean"] == pytest.approx(1 / 3)
    assert "given these 4 groups" in results["interval"]["given"]
    assert folds_table(results).splitlines()[1].split() == ["real", "66.7", "66.7", "66.7", "66.7"]
    assert fold_folder(tmp_path, "a/b c").name == "test-a-b-c"


def test_the_command_says_what_is_wrong(saadi: Command, tmp_path: Path) -> None:
    path = tmp_path / "phantom.yaml"
    path.write_text("data: {source: phantom}\n")
    saadi("folds", path, "--out", tmp_path / "out").refused("phantom", "fresh patients")
    assert not (tmp_path / "out").exists()
