"""results.json: valid JSON of what was measured, predictions whose rows are known, and no test result ever lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saadi.configfile import parse_config
from saadi.critics.tasks import TASKS
from saadi.data import Dataset
from saadi.evaluation import choices
from saadi.evaluation.arms import Arm
from saadi.evaluation.results import split_digest, write_results
from saadi.evaluation.statistics import holm
from saadi.records import Condition, Frame, LabelSpace, Sample, Split, write_records
from saadi.report import results_table, write_page
from saadi.store import Run
from saadi.workers import Crew

CLASSES = ("clip", "grasper", "hook", "stapler")
CONFIG = parse_config({"evaluation": {"seeds": 2, "bootstrap": 40, "mixing": [0.25, 0.5]}, "rounds": 1}, "a test")
DRAWN = tuple(Sample(f"s{k}", Condition.of(CLASSES[k % 4]), 0, k, f"round-1/samples/{k}.png") for k in range(4))
ARMS = [Arm("real"), Arm("unaligned", DRAWN, 4, 8), Arm("round-1", DRAWN, 8, 16)]


def make_data(absent: str | None) -> Dataset:
    """Three images of each class, of three patients, in each split; none of `absent` outside train. hook is rarest."""
    frames = [
        Frame(f"{split}-{label}-{k}.png", (label,), f"{split}-{k}", split)
        for split in ("train", "val", "test")
        for label in CLASSES
        for k in range(1 if (split, label) == ("train", "hook") else 2 if (split, label) == ("train", "stapler") else 3)
        if split == "train" or label != absent
    ]
    images = np.random.default_rng(0).integers(0, 256, (len(frames), 8, 8, 3), np.uint8)
    return Dataset(LabelSpace(CLASSES), tuple(frames), images, ("a note",))


def predictions(data: Dataset, arm: Arm, share: float, seed: int, split: Split) -> NDArray[np.float64]:
    """Log-probabilities in place of trained classifiers': better with synthetic images, and never of the last class."""
    labels = data.split(split).labels
    rng = np.random.default_rng([seed, len(arm.name), int(100 * share)])
    scores = rng.random((len(labels), len(CLASSES))) + (0.9 if arm.samples else 0.2) * np.eye(len(CLASSES))[labels]
    log_probabilities: NDArray[np.float64] = np.log(scores / scores.sum(1, keepdims=True))
    return log_probabilities


def prepare(run: Run, data: Dataset) -> None:
    """The stages that results are made from, as far as they are read; done again, they are skipped."""

    def real(folder: Path, _: Any) -> None:
        np.save(folder / "images.npy", data.images)
        write_records(folder / "frames.jsonl", data.frames)
        (folder / "space.json").write_text(json.dumps({"names": CLASSES, "background": False, "notes": data.notes}))

    def text(name: str, values: Any) -> Any:
        return lambda folder, _: (folder / name).write_text(json.dumps(values))

    run.stage("data", real)
    run.stage("round-1/adapter", text("summary.json", {"stopped_at": 9, "reason": "all steps done", "learnt": True}))
    run.stage("critic", text("critic.json", {"model": "small-cnn", "fold_of_group": {"train-0": 0}}))
    synthetic = {arm.name: {"n": 4, "kid": 0.1, "memorised": 0.05} for arm in ARMS if arm.samples}
    facts = {"synthetic": synthetic, "yardstick": "fresh images", "memorised_fresh": 0.05, "judge_gains": {}}
    run.stage("evaluation/images", text("images.json", facts))
    run.stage(
        "evaluation/membership",
        text("membership.json", {"against": "others", "base": {"auc": 0.6, "ci95": [0.5, 0.7]}}),
    )


@contextmanager
def no_training(data: Dataset) -> Iterator[None]:
    """No downstream model is trained."""

    def tell(out: Path, trainings: list[str], split: Split) -> None:
        answers = []
        for training in trainings:
            _, _, name, share, seed = training.split("/")
            (arm,) = (one for one in ARMS if one.name == name)
            answers.append(predictions(data, arm, float(share[4:]), int(seed[5:]), split))
        np.save(out / "answers.npy", np.stack(answers))
        further = TASKS["classification"].extra(data.split(split).labels, np.stack(answers), len(CLASSES))
        (out / "further.json").write_text(json.dumps(further))

    def job(crew: Crew, do: Any, *, trainings: list[str], recipe: Any, split: Split) -> Any:
        return lambda folder: tell(folder, trainings, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crew, "own_job", job)
        patch.setattr(choices, "val_answers", lambda run, arm, share, seed: predictions(data, arm, share, seed, "val"))
        yield


def results_of(folder: Path, *, final: bool, absent: str | None = None, redo: bool = False) -> Any:
    """Results, written in a run's folder and read back from it as strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    data = make_data(absent)
    with no_training(data), Run(folder, CONFIG, redo=["evaluation/images"] if redo else ()) as run:
        prepare(run, data)
        written = write_results(run, data, ARMS, final=final)
    read = json.loads((folder / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert written == read
    return read


def test_a_class_without_images_is_none_and_the_page_stands(tmp_path: Path) -> None:
    found = results_of(tmp_path / "run", final=True, absent="hook")
    assert found["rare_classes"] == ["hook", "stapler"]
    for arm in found["arms"].values():
        assert arm["per_class"]["hook"] is None
        assert arm["per_class"]["stapler"] == arm["rare_mean"]
        assert 0 <= arm["mean"] <= 1
    page = write_page(tmp_path / "run").read_text(encoding="utf-8")
    assert "no test image shows them: hook" in page


def test_rare_classes_without_images_are_none_throughout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saadi.evaluation.results.rare_classes", lambda counts: ("hook",))
    found = results_of(tmp_path / "run", final=False, absent="hook")
    for arm in found["arms"].values():
        assert (arm["rare_mean"], arm["rare_ci95"]) == (None, [None, None])
    for gain in found["gains"].values():
        assert (gain["rare"], gain["rare_ci95"]) == (None, [None, None])
        assert gain["mean"] is not None
    assert "not measured" in results_table(found)
    assert "no validation image shows them: hook" in write_page(tmp_path / "run").read_text(encoding="utf-8")


def test_p_values_of_the_gains_are_corrected_for_their_number(tmp_path: Path) -> None:
    gains = results_of(tmp_path / "run", final=False)["gains"]
    assert set(gains) == {"unaligned - real", "round-1 - real", "round-1 - unaligned"}
    assert {name: gain["p_holm"] for name, gain in gains.items()} == holm({k: gain["p"] for k, gain in gains.items()})


def test_rows_of_the_predictions_are_named(tmp_path: Path) -> None:
    results_of(tmp_path / "run", final=True)
    shown = make_data(None).split("test")
    with np.load(tmp_path / "run/evaluation/predictions-test.npz", allow_pickle=False) as kept:
        assert kept["files"].tolist() == [frame.file for frame in shown.frames]
        assert kept["targets"].tolist() == shown.labels.tolist()
        assert kept["round-1"].shape == (2, len(shown.frames), 4)
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_the_hash_of_the_test_set_is_of_names_labels_and_pixels(tmp_path: Path) -> None:
    data = make_data(None)
    whole = split_digest(data, "test")
    assert results_of(tmp_path / "run", final=False)["hashes"]["test_set"] == whole
    test, train = len(data.frames) - 1, 0
    for row, differs in ((test, True), (train, False)):
        images = data.images.copy()
        images[row, 0, 0, 0] ^= 1
        assert (split_digest(replace(data, images=images), "test") != whole) == differs
        frames = list(data.frames)
        frames[row] = replace(frames[row], labels=("hook",))
        assert (split_digest(replace(data, frames=tuple(frames)), "test") != whole) == differs
    assert split_digest(replace(data, images=data.images[:, ::-1]), "test") != whole
    blank, hooks = (np.full(data.images.shape[:3], value, np.uint8) for value in (0, 1))
    assert len({split_digest(replace(data, masks=masks), "test") for masks in (None, blank, hooks)}) == 3


def test_val_results_do_not_replace_final_ones(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert results_of(folder, final=False)["final"] is False
    final = results_of(folder, final=True)
    assert (final["final"], final["split"]) == (True, "test")
    assert results_of(folder, final=False) == final
    assert results_of(folder, final=True) == final
    assert len((folder / "test-reads.jsonl").read_text().splitlines()) == 2
    assert not list(folder.rglob("*-final-*"))


def test_final_results_of_stages_made_anew_are_kept_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = results_of(folder, final=True)
    val = results_of(folder, final=False, redo=True)
    assert (val["final"], val["split"]) == (False, "val")
    assert val["notes"] == ["a note", "results-final-1.json holds final results of stages since made anew"]
    assert json.loads((folder / "results-final-1.json").read_text()) == first
    assert "results-final-1.json" in write_page(folder).read_text(encoding="utf-8")
