"""Every public set, laid out as it is published: it is read, split as declared, and else refused in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command
from sets_on_disk import BUILDERS, frame, mask, stripes

from saadi.configfile import load_config
from saadi.data.load import load_dataset, scan_source
from saadi.data.sets.catalogue import SETS, describe, find_view
from saadi.data.sets.declare import number
from saadi.data.sets.leaks import leak_warnings, shared_videos
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import IGNORE, SPLITS, Frame, Split, Task

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = {
    "cholecseg8k": {"train": {"video01", "video09"}, "val": {"video17"}, "test": {"video12"}},
    "cholec80": {"train": {"video01", "video02"}, "val": {"video33"}, "test": {"video41"}},
    "cholect50": {"train": {"VID01", "VID02"}, "val": {"VID08"}, "test": {"VID06", "VID111"}},
    "dsad": {"train": {"01", "04"}, "val": {"03"}, "test": {"02"}},
    "endovis17": {
        "train": {"instrument_dataset_4", "instrument_dataset_6"},
        "val": {"instrument_dataset_2"},
        "test": {"instrument_dataset_1"},
    },
    "cadis": {"train": {"Video01", "Video03"}, "val": {"Video05"}, "test": {"Video02"}},
    "cataract-1k": {"train": {"case_5301", "case_5302"}, "val": {"case_5315"}, "test": {"case_5329"}},
}
VIEWS = [(one.name, view.name, task) for one in SETS.values() for view in one.views for task in view.tasks]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The miniature of a set, made once, to be read only."""
    folders: dict[str, Path] = {}

    def build(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            BUILDERS[name](folders[name])
        return folders[name]

    return build


def _config(name: str, folder: Path, **more: object) -> DataConfig:
    return DataConfig.model_validate({"source": "set", "set": name, "path": folder, "size": 64, **more})


def _refused(config: DataConfig, task: Task, *words: str) -> None:
    with pytest.raises(BadInput) as caught:
        scan_source(config, 0, task).accept()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(("name", "view", "task"), VIEWS)
def test_every_view_is_read(name: str, view: str, task: Task, built: Callable[[str], Path]) -> None:
    if (view, task) == ("binary", "presence"):
        pytest.skip("its only class is in every image of the miniature")
    data = load_dataset(_config(f"{name}/{view}", built(name)), 3, task)
    declared = find_view(f"{name}/{view}", task)[1]
    assert data.space.asked == declared.classes
    assert data.space.background == (task == "segmentation") == (data.masks is not None)
    assert {frame.split for frame in data.frames} == {*SPLITS}
    if expected := GROUPS.get(name):
        for split in SPLITS:
            assert {frame.group for frame in data.frames if frame.split == split} == expected[split]
    if task != "classification":
        assert {label for frame in data.frames for label in frame.labels} == {*declared.classes}
    assert len({frame.file for frame in data.frames}) == len(data.frames)


@pytest.mark.parametrize("name", SETS)
def test_another_folder_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    chosen = SETS[name]
    task = chosen.views[0].tasks[0]
    _refused(_config(name, tmp_path), task, str(tmp_path), f"expected {chosen.expected}", "found holiday", chosen.url)
    _refused(_config(name, tmp_path / "nowhere"), task, "no such data folder", chosen.expected, chosen.url)


@pytest.mark.parametrize("name", SETS)
def test_every_set_says_where_it_is_from(name: str) -> None:
    (said,) = [one for one in describe() if one["name"] == name]
    assert all(said[key] for key in ("title", "views", "layout", "split", "licence", "citation", "url"))
    assert all(view["classes"] and view["tasks"] for view in said["views"])
    assert not {*SETS[name].held.get("val", ())} & {*SETS[name].held.get("test", ())}


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_a_config_that_fits_it(name: str, built: Callable[[str], Path]) -> None:
    config = load_config(CONFIGS / f"{name}.yaml", (f"data.path={built(name)}",))
    assert str(config.data.set).partition("/")[0] == name
    scan = scan_source(config.data, 0, config.task)
    assert scan.accept()[1]
    assert {*config.layouts.things} <= {*scan.space.asked}


def test_the_list_says_of_every_set_what_it_is_and_whose(saadi: Command) -> None:
    told = saadi("datasets").out
    blocks = {block.partition(":")[0]: block for block in told.split("\n\n")}
    for one in SETS.values():
        for view in one.views:
            assert f"{one.name}/{view.name} ({', '.join(view.tasks)}): {', '.join(view.classes)}" in blocks[one.name]
        for said in (one.title, one.split, one.licence, one.citation, one.url, *one.unverified):
            assert said in blocks[one.name]


def test_one_more_set_is_what_the_docs_say_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of docs/data.md, as they stand there."""
    page = (CONFIGS.parent / "docs/data.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"### One more set\n.*?```python\n(.*?)```", page, re.DOTALL)
    assert len(lines.splitlines()) < 40
    names: dict[str, Any] = {}
    exec(lines, names)
    monkeypatch.setitem(SETS, "mine", names["MINE"])
    for case in ("case05", "case06", "case07", "case9", "case08", "case10"):
        for k in range(4):
            frame(tmp_path / f"{case}/frames/{k}.png")
            mask(tmp_path / f"{case}/masks/{k}.png", stripes((0, 1, 2, 255)))
    data = load_dataset(_config("mine", tmp_path), 0, "segmentation")
    assert data.space.asked == ("hook", "clip")
    assert {one.group for one in data.frames if one.split == "train"} == {"case05", "case06"}
    assert {one.group for one in data.frames if one.split == "test"} == {"case9", "case10"}
    assert data.masks is not None
    assert {*np.unique(data.masks)} == {0, 1, 2, IGNORE}
    assert load_dataset(_config("mine", tmp_path), 0, "presence").frames[0].labels == ("hook", "clip")
    (tmp_path / "case05/masks/0.png").unlink()
    _refused(_config("mine", tmp_path), "segmentation", "case05", "https://example.org/mine")


def test_unknown_names_have_a_nearest_one(built: Callable[[str], Path]) -> None:
    folder = built("cholecseg8k")
    _refused(_config("cholecsegk", folder), "segmentation", "'cholecsegk'", "did you mean cholecseg8k?")
    _refused(_config("cadis/task2", folder), "segmentation", "no view 'task2'", "did you mean task-2?")
    _refused(_config("cholec80", folder), "segmentation", "cholec80 serves presence and classification")
    _refused(_config("cholecseg8k", folder, leave_out=["graspr"]), "segmentation", "did you mean grasper?")
    _refused(DataConfig(source="set", path=folder), "segmentation", "data.set is not set")


def test_padded_and_unpadded_numbers_are_the_same() -> None:
    assert [number(name) for name in ("Video05", "video5", "seq_5", "case_5315", "VID111", "x")] == [
        5, 5, 5, 5315, 111, None,
    ]  # fmt: skip


def test_the_configuration_may_split_otherwise(built: Callable[[str], Path]) -> None:
    scan = scan_source(_config("cadis", built("cadis"), test=["Video01"]), 0, "segmentation")
    assert {frame.group for frame in scan.frames if frame.split == "test"} == {"Video01"}


def test_every_nth_frame_of_each_group(built: Callable[[str], Path]) -> None:
    scan = scan_source(_config("cholect50", built("cholect50"), every=4), 0, "presence")
    assert [frame.file for frame in scan.frames[:2]] == ["videos/VID01/000000.png", "videos/VID01/000004.png"]
    assert len(scan.frames) == 2 * 5


def test_classes_left_out(built: Callable[[str], Path]) -> None:
    folder = built("hyperkvasir")
    scan = scan_source(_config("hyperkvasir", folder, leave_out=["ileum"]), 0, "classification")
    assert len(scan.frames) == 220
    assert "ileum" not in scan.space.names
    left = _config("cadis/task-1", built("cadis"), leave_out=["Skin"])
    data = load_dataset(left, 0, "segmentation")
    assert data.masks is not None
    whole = load_dataset(_config("cadis/task-1", built("cadis")), 0, "segmentation")
    assert whole.masks is not None
    skin = whole.masks == whole.space.id("Skin")
    assert skin.any()
    assert np.unique(data.masks[skin]).tolist() == [255]


def test_a_seeded_split_is_by_group_and_said(built: Callable[[str], Path]) -> None:
    config = _config("lapgyn4/surgical-actions", built("lapgyn4"))
    scan = scan_source(config, 1, "classification")
    assert {frame.group for frame in scan.frames} == {f"c_{one}" for one in range(6)}  # operations
    assert not any("each image is a group" in note for note in scan.notes)
    assert any("by seed 1" in note for note in scan.notes)
    assert scan == scan_source(config, 1, "classification")
    assert scan_source(config, 2, "classification").frames != scan.frames
    alone = scan_source(_config("lapgyn4/instrument-count", built("lapgyn4")), 1, "classification")
    assert any("each image is a group" in note for note in alone.notes)
    config = _config("lapgyn4/instrument-count", built("lapgyn4"), groups=r"(p\d)_")
    assert {frame.group for frame in scan_source(config, 1, "classification").frames} == {f"p{one}" for one in range(6)}
    _refused(_config("cadis", built("cadis"), groups="(.)"), "segmentation", "data.groups", "leave the setting out")


@pytest.mark.parametrize(("name", "train", "test"), [("endovis18", 3, {"seq_2"}), ("kvasir-seg", 16, None)])
def test_val_is_drawn_from_train_where_none_is_published(
    name: str, train: int, test: set[str] | None, built: Callable[[str], Path]
) -> None:
    scan = scan_source(_config(name, built(name)), 0, "segmentation")
    groups = {split: {frame.group for frame in scan.frames if frame.split == split} for split in SPLITS}
    assert len(groups["train"]) + len(groups["val"]) == train
    assert len(groups["val"]) == max(1, round(train / 5))
    assert groups["test"] == (test or {f"k{one}" for one in range(16, 20)})


@pytest.mark.parametrize("inner", ["", "Segmentation_dataset", "Segmentation_dataset/Annotations"])
def test_the_path_may_name_any_of_the_archives_folders(inner: str, built: Callable[[str], Path]) -> None:
    scan = scan_source(_config("cataract-1k", built("cataract-1k") / inner), 0, "segmentation")
    assert len(scan.accept()[1]) == 8


@pytest.mark.parametrize(
    ("name", "task", "lines"),
    [
        (
            "cholecseg8k",
            "segmentation",
            [
                "videos 12 of test are in Cholec80 (cholec80), too, where models are usually trained on them: use no "
                "model or weights from there that have seen them",
                "videos 17 of val are in Cholec80 (cholec80), too, where models are usually trained on them: use no "
                "model or weights from there that have seen them",
                "videos 12 of test are in CholecT50 (cholect50), too: use no model or weights from there that have "
                "seen them",
            ],
        ),
        (
            "cholect50",
            "presence",
            [
                "videos 06 of test are in Cholec80 (cholec80), too, where models are usually trained on them: use no "
                "model or weights from there that have seen them",
                "videos 08 of val are in Cholec80 (cholec80), too, where models are usually trained on them: use no "
                "model or weights from there that have seen them",
            ],
        ),
    ],
)
def test_check_names_videos_that_other_sets_hold(
    name: str, task: Task, lines: list[str], built: Callable[[str], Path], saadi: Command, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"task: {task}\ndata: {{source: set, set: {name}, path: {built(name)}, size: 64}}\n")
    found = json.loads(saadi("check", config, "--json").out)
    assert [line for line in found["warnings"] if line.startswith("videos ")] == lines
    assert all("images in val" in error or "folds" in error for error in found["errors"])  # a miniature has few


def test_training_videos_that_are_held_out_elsewhere_are_named() -> None:
    lines = leak_warnings("cholec80", [Frame("a", (), f"video{number:02d}", "train") for number in (1, 12, 17, 41)])
    assert lines.pop().startswith("some images of LapGyn4's instrument-count are of Cholec80")
    assert lines == [
        "videos 12, 17 of train are usually val or test in CholecSeg8k (cholecseg8k): what is trained here must not be "
        "tested on them there",
        "videos 12 of train are usually val or test in CholecT50 (cholect50): what is trained here must not be tested "
        "on them there",
    ]
    assert leak_warnings("cadis", [Frame("a", (), "Video12", "test")]) == []
    for one, other in (("kvasir-seg", "hyperkvasir"), ("hyperkvasir", "kvasir-seg")):
        (line,) = leak_warnings(one, [])
        assert f"({other})" in line


def test_shared_videos_are_those_that_both_hold() -> None:
    chosen, cholec80, cholect50 = SETS["cholecseg8k"], SETS["cholec80"], SETS["cholect50"]
    groups: dict[Split, list[str]] = {
        split: [f"video{video:02d}" for video in videos] for split, videos in chosen.held.items()
    }
    assert shared_videos(chosen, groups, cholec80) == {"test": [12, 20, 48, 55], "val": [17, 52]}
    assert shared_videos(chosen, groups, cholect50) == {"test": [12, 48], "val": [52]}
    frames = [Frame("a", (), group, split) for split, named in groups.items() for group in named]
    assert "are in Cholec80 (cholec80), too, where models are usually trained on video 12, 20: use" in " ".join(
        leak_warnings("cholecseg8k", frames)
    )
    assert shared_videos(cholec80, {"train": ["video01", "x"], "val": ["video80"]}, chosen) == {"train": [1]}


def test_a_video_of_the_published_split_that_is_not_there_is_said(built: Callable[[str], Path]) -> None:
    scan = scan_source(_config("cadis", built("cadis")), 0, "segmentation")
    assert "not found: 7, 16 of val, as the split has it" in scan.notes
    assert "not found: 12, 22 of test, as the split has it" in scan.notes


def test_the_list_as_json_holds_what_the_text_does(saadi: Command) -> None:
    assert json.loads(saadi("datasets", "--json").out) == describe()


def test_an_image_that_lacks_an_organs_mask_is_refused(tmp_path: Path) -> None:
    BUILDERS["dsad"](tmp_path)
    next(tmp_path.glob("multilabel/01/mask00_liver.png")).unlink()
    words = ("images lack a mask", "expected multilabel/01/mask00_liver.png", SETS["dsad"].url)
    _refused(_config("dsad", tmp_path), "segmentation", *words)


def test_a_damaged_set_names_what_is_missing(tmp_path: Path) -> None:
    BUILDERS["cadis"](tmp_path)
    shutil.rmtree(tmp_path / "Video03/Labels")
    _refused(_config("cadis", tmp_path), "segmentation", "2 of 8 images have no mask", "Video03", SETS["cadis"].url)
