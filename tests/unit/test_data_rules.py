"""What is asked of labelled frames, and groups that the configuration puts into another split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, write_config
from segmented import write

from saadi.data.audit import audit
from saadi.data.load import list_frames, load_dataset, scan_source
from saadi.data.rules import class_warnings, duplicates, group_problems, training_problems
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig, PhantomConfig
from saadi.records import Frame, LabelSpace, Split, Task

SPACE = LabelSpace(("hook", "clip"))


def _frames(rows: str) -> list[Frame]:
    """Frames from words like `P1:train:hook+clip`, four of each."""
    found = []
    for word in rows.split():
        group, split, labels = word.split(":")
        shown = tuple(label for label in labels.split("+") if label)
        found += [Frame(f"{word}{i}", shown, group, split) for i in range(4)]  # type: ignore[arg-type]
    return found


GOOD = "P1:train:hook P1:train:clip P2:train:hook P2:train:clip P3:val:hook P3:val:clip P4:test:hook P4:test:clip"


@pytest.mark.parametrize("task", ["classification", "segmentation", "presence"])
def test_nothing_is_wrong_with_good_frames(task: Task) -> None:
    frames = _frames(GOOD)
    assert training_problems(SPACE, frames, "here", task) == group_problems(frames, "here") == []
    assert class_warnings(SPACE, frames, task) == []


@pytest.mark.parametrize("task", ["segmentation", "presence"])
def test_a_val_that_shows_nothing_is_refused(task: Task) -> None:
    healthy = GOOD.replace("P3:val:hook", "P3:val:").replace("P3:val:clip", "P3:val:")
    (problem,) = training_problems(SPACE, _frames(healthy), "here", task)
    assert problem.startswith("here: no image in val shows any class; move a group there that shows some")
    assert training_problems(SPACE, _frames(healthy + " P5:val:clip"), "here", task) == []


def test_a_group_is_in_one_split() -> None:
    (problem,) = group_problems(_frames(GOOD.replace("P3", "P1")), "here")
    assert problem.startswith("here: group P1 is in train (P1:train:hook0) and val (P1:val:hook0); put all")


def test_a_class_in_one_training_group_is_refused_for_classification_alone() -> None:
    frames = _frames(GOOD.replace("P2:train:clip ", ""))
    (problem,) = training_problems(SPACE, frames, "here", "classification")
    assert "here: class clip occurs in 1 training group; 2 are needed" in problem
    for task in ("segmentation", "presence"):
        assert training_problems(SPACE, frames, "here", task) == []
        (warning,) = class_warnings(SPACE, frames, task)
        assert "class clip occurs in 1 training group (P1)" in warning


@pytest.mark.parametrize(
    ("task", "follows"),
    [
        ("classification", "nothing can be said about it there"),
        ("segmentation", "its Dice there is no evidence"),
        ("presence", "what is measured of it there is no evidence"),
    ],
)
def test_a_class_that_a_split_lacks(task: Task, follows: str) -> None:
    frames = _frames(GOOD.replace("P3:val:clip", "P3:val:"))
    if task == "classification":
        frames = [frame for frame in frames if frame.labels]
    assert class_warnings(SPACE, frames, task) == [f"class clip has no images in val: {follows}"]


def test_one_class_and_classes_that_are_not_trained() -> None:
    one = LabelSpace(("hook",))
    hooks = _frames("P1:train:hook P2:train:hook P3:val:hook P4:test:hook")
    assert "here: only one class (hook)" in training_problems(one, hooks, "here", "classification")[0]
    assert "in every training image" in training_problems(one, hooks, "here", "presence")[0]
    assert training_problems(one, hooks, "here", "segmentation") == []
    lacking = training_problems(SPACE, hooks, "here", "segmentation")
    assert lacking == [
        "here: class clip has no training images (a mask's 255 is ignored unless classes.json lists it); "
        "move a group that shows it into train, "
        "or map it to null in classes.json, or of a set name it in data.leave_out"
    ]


@pytest.mark.parametrize("task", ["classification", "segmentation", "presence"])
def test_class_names_that_differ_only_in_case_or_blanks_are_a_warning(task: Task) -> None:
    frames = _frames(GOOD + " " + GOOD.replace("hook", "Hook"))
    (warning,) = class_warnings(LabelSpace(("hook", "clip", "Hook")), frames, task)
    assert warning == "classes 'hook', 'Hook' differ only in case or in blanks; if they are one, spell it one way"
    (warning,) = class_warnings(LabelSpace(("a  clip", "A clip ", "b")), [], task)
    assert "classes 'a  clip', 'A clip ' differ" in warning


def test_duplicates_name_all_labels() -> None:
    frames = _frames("P1:train:hook+clip P4:test:")
    across, _ = duplicates([frames[0], frames[4]], ["same", "same"])
    assert across == [
        "the same image in two splits: P1:train:hook+clip0 (train, hook, clip), P4:test:0 (test); keep one"
    ]


def _splits(folder: Path, task: Task = "segmentation", **settings: Any) -> dict[str, Split]:
    scan = scan_source(DataConfig(path=folder, **settings), 0, task)
    assert scan.problems == ()
    return {frame.group: frame.split for frame in scan.frames}


def test_named_groups_are_val_and_test_and_what_was_there_goes_to_train(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    assert _splits(folder) == {"A": "train", "B": "train", "C": "val", "D": "test"}
    assert _splits(folder, val=("B",)) == {"A": "train", "B": "val", "C": "train", "D": "test"}
    assert _splits(folder, test=("A",)) == {"A": "test", "B": "train", "C": "val", "D": "train"}
    assert _splits(folder, test=("A",), val=("D",)) == {"A": "test", "B": "train", "C": "train", "D": "val"}
    assert _splits(folder, "presence", val=("D", "D"), test=("C",)) == {
        "A": "train",
        "B": "train",
        "C": "test",
        "D": "val",
    }
    notes = scan_source(DataConfig(path=folder, test=("A",), val=("C", "D")), 0, "presence").notes
    assert notes == ("splits as the configuration says: val is C, D and test is A",)


def test_named_groups_are_for_class_folders_too(tmp_path: Path) -> None:
    for group in "ABCDE":
        for label in ("hook", "clip"):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{group}_0.png").touch()
    config = DataConfig(source="folders", path=tmp_path, groups="(.)_", val=("E",), test=("A",))
    frames = scan_source(config, 0, "classification").frames
    assert {frame.group for frame in frames if frame.split == "val"} == {"E"}
    assert {frame.group for frame in frames if frame.split == "test"} == {"A"}


def test_a_group_in_two_splits_is_mended_by_naming_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace("C0.png,C,val", "C0.png,D,val"))
    with pytest.raises(BadInput, match="group D is in val"):
        load_dataset(DataConfig(path=folder), 0, "presence")
    assert _splits(folder, "presence", test=("D",))["D"] == "test"


def test_groups_that_are_not_there(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    for settings, words in (
        ({"test": ("d",)}, "data.test: no group is called 'd'; did you mean D?"),
        ({"val": ("OP9",)}, "data.val: no group is called 'OP9'; there are A, B, C, D"),
        ({"val": ("A",), "test": ("A",)}, "data.val and data.test: both name A; a group is in one split"),
    ):
        config = DataConfig(path=folder, size=32).model_copy(update=settings)
        with pytest.raises(BadInput) as refused:
            load_dataset(config, 0, "segmentation")
        assert str(refused.value) == words
        found = audit(config, 0, "segmentation")
        assert (found.errors, found.counted) == ([words], False)


def test_a_check_of_a_misspelt_group_says_that_alone(saadi: Command, table: Path, tmp_path: Path) -> None:
    """The images of the group that was meant for val are counted only once it is found."""
    source = {"source": "table", "path": "table", "size": 32}
    folds = {"critic": {"folds": 9}}
    config = write_config(tmp_path / "config.yaml", data=source | {"val": ["P9"]}, **folds)
    (error,) = json.loads(saadi("check", config, "--json").out)["errors"]
    assert "data.val: no group is called 'P9'" in error
    config = write_config(tmp_path / "config.yaml", data=source, **folds)
    (error,) = json.loads(saadi("check", config, "--json").out)["errors"]
    assert "critic.folds: 9 folds" in error


def test_a_phantom_s_patients_are_not_named() -> None:
    config = DataConfig(source="phantom", phantom=PhantomConfig(train=16, val=8, test=8), val=("val-00",))
    with pytest.raises(BadInput, match=r"data\.phantom\.patients shares out"):
        list_frames(config, 0, "classification")
