"""Class folders, groups from a CSV or a pattern, and the split by group."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from saadi.data.audit import audit
from saadi.data.folders import scan_folders, split_groups
from saadi.data.load import list_frames
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import Frame, Task

PATTERN = r"(P\d+)_"


def _touch(folder: Path, files: Iterable[str]) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def _ten_patients(folder: Path) -> Path:
    return _touch(folder, (f"{kind}/P{p}_{i}.png" for p in range(10) for kind in ("hook", "clip") for i in range(2)))


def _refused(folder: Path, groups: str | None, *words: str) -> None:
    with pytest.raises(BadInput) as caught:
        scan_folders(folder, groups, 0).accept()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def _splits(frames: Iterable[Frame]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for frame in frames:
        splits.setdefault(frame.split, set()).add(frame.group)
    return splits


def test_a_pattern_and_a_drawn_split(tmp_path: Path) -> None:
    space, frames = scan_folders(_ten_patients(tmp_path), PATTERN, 0).accept()
    assert space.names == ("clip", "hook")
    assert len(frames) == 40
    assert {split: len(groups) for split, groups in _splits(frames).items()} == {"train": 6, "val": 2, "test": 2}
    assert list(scan_folders(tmp_path, PATTERN, 0).frames) == frames
    assert any(list(scan_folders(tmp_path, PATTERN, seed).frames) != frames for seed in (1, 2, 3))
    assert scan_folders(tmp_path, PATTERN, 0).notes == (
        "no split is given: 10 groups were shared out by seed 0 (6 train, 2 val, 2 test)",
    )


def test_a_drawn_split_gives_each_class_two_training_groups_where_it_can(tmp_path: Path) -> None:
    """One patient for each split would satisfy the other wishes, but cross-fitting needs two in train."""
    _touch(tmp_path, (f"hook/P{p}_0.png" for p in range(10)))
    _touch(tmp_path, (f"clip/P{p}_0.png" for p in range(3)))
    for seed in range(10):
        frames = scan_folders(tmp_path, PATTERN, seed).frames
        assert len({frame.group for frame in frames if (frame.label, frame.split) == ("clip", "train")}) >= 2

    counts = np.array([[1, 4, 3, 4], [2, 1, 4, 0], [0, 0, 4, 0], [3, 0, 0, 2], [0, 4, 0, 0]])
    for seed in range(5):  # of three patients for train, only these do
        assert np.flatnonzero(split_groups(counts, np.random.default_rng(seed)) == 0).tolist() == [0, 1, 3]


def test_split_folders_are_kept(tmp_path: Path) -> None:
    files = [f"{split}/{kind}/P{i}_0.JPG" for i, split in enumerate(("train", "val", "test")) for kind in ("a", "b")]
    frames = scan_folders(_touch(tmp_path, files), PATTERN, 0).frames
    assert _splits(frames) == {"train": {"P0"}, "val": {"P1"}, "test": {"P2"}}
    assert scan_folders(tmp_path, PATTERN, 0).notes == ()


def test_deeper_folders_count_and_hidden_or_other_files_do_not(tmp_path: Path) -> None:
    _touch(tmp_path, [f"{kind}/P{i}/x.tiff" for i in range(4) for kind in ("a", "b")])
    _touch(tmp_path, ["a/P0/._x.tiff", "a/.cache/y.png", ".git/z.png", "a/notes.txt"])
    assert {frame.file for frame in scan_folders(tmp_path, r"/(P\d)/", 0).frames} == {
        f"{kind}/P{i}/x.tiff" for i in range(4) for kind in ("a", "b")
    }


def test_files_that_are_left_out_are_said(tmp_path: Path) -> None:
    _ten_patients(tmp_path)
    aside = ["hook/Thumbs.db", "hook/.x.gif", "clip/notes.txt", "clip/a.json", "groups.csv", "clip/.old/x.gif"]
    drawn = scan_folders(_touch(tmp_path, aside), PATTERN, 0).notes
    assert len(drawn) == 1
    _touch(tmp_path, ["loose.png"])
    one = scan_folders(tmp_path, PATTERN, 0).notes
    assert one == (*drawn, "1 image lies in no class folder and is left out, first loose.png")
    _touch(tmp_path, ["loose.JPG", "hook/P1_7.gif", "hook/P1_8.GIF", "clip/P2/P2_3.heic", "clip/P2_4"])
    assert scan_folders(tmp_path, PATTERN, 0).notes == (
        *drawn,
        "4 files are no images by their ending (.gif, .heic, none) and left out, first clip/P2/P2_3.heic",
        "2 images lie in no class folder and are left out, first loose.JPG",
    )
    only = scan_folders(_touch(tmp_path / "only", ["train/a/P0_0.gif", "train/P0_1.png"]), PATTERN, 0)
    assert only.notes == (
        "1 file is no image by its ending (.gif) and left out, first train/a/P0_0.gif",
        "1 image lies in no class folder and is left out, first train/P0_1.png",
    )
    assert "no images" in only.problems[0]


def test_groups_and_splits_from_a_csv(tmp_path: Path) -> None:
    files = [f"{kind}/{i}.png" for kind in ("a", "b") for i in range(3)]
    _touch(tmp_path, files)
    table = tmp_path / "groups.csv"
    table.write_text(
        "file,group,split\n" + "".join(f"{f},G{f[2]},{('train', 'val', 'test')[int(f[2])]}\n" for f in files)
    )
    assert _splits(scan_folders(tmp_path, "groups.csv", 0).frames) == {"train": {"G0"}, "val": {"G1"}, "test": {"G2"}}

    table.write_text("file,group\n" + "".join(f"{f},G{f}\n" for f in files))
    shared_out = _splits(scan_folders(tmp_path, str(table), 0).frames)
    assert {split: len(groups) for split, groups in shared_out.items()} == {"train": 4, "val": 1, "test": 1}

    table.write_text("file,group\n" + "".join(f"{f},G{f[2]}\n" for f in files[1:]))
    _refused(tmp_path, "groups.csv", "1 of 6 images are not listed", "a/0.png")
    table.write_text("file,group\na/9.png,G\n" + "".join(f"{f},G{f[2]}\n" for f in files))
    _refused(tmp_path, "groups.csv", "row 2", "a/9.png", "remove them")
    table.write_text("file,group\na\\0.png,G\n" + "".join(f"{f},G{f[2]}\n" for f in files[1:]))
    _refused(tmp_path, "groups.csv", "row 2", "a\\0.png is no image", "use / between folders")
    table.write_text("file,group\n" + "".join(f"{f},G{f[2]}\n" for f in [*files, files[0]]))
    _refused(tmp_path, "groups.csv", "row 8", "keep one")
    table.write_text("file,group,split\n" + "".join(f"{f},G{f[2]},training\n" for f in files))
    _refused(tmp_path, "groups.csv", "row 2", "did you mean train?")
    _refused(tmp_path, "absent.csv", "no such file")


def test_folder_and_row_must_agree_about_the_split(tmp_path: Path) -> None:
    files = [f"{split}/{kind}/0.png" for split in ("train", "val", "test") for kind in ("a", "b")]
    _touch(tmp_path, files)
    (tmp_path / "g.csv").write_text("file,group,split\n" + "".join(f"{f},{f.split('/')[0]},val\n" for f in files))
    _refused(tmp_path, "g.csv", "test/a/0.png", "lies in test", "says val")


def test_bad_patterns_and_groups(tmp_path: Path) -> None:
    _ten_patients(tmp_path)
    _refused(tmp_path, None, "data.groups is not set")
    _refused(tmp_path, "(", "no regular expression")
    _refused(tmp_path, r"P\d+", "has no group")
    _refused(tmp_path, r"(P[1-9])_", "4 of 40 files", "clip/P0_0.png")
    _refused(tmp_path, r"^(hook|clip)/", "2 groups", "4 are needed to share out")


def test_bad_folders(tmp_path: Path) -> None:
    _refused(tmp_path / "absent", PATTERN, "no such data folder")
    _refused(tmp_path, PATTERN, "no images")
    _ten_patients(tmp_path)
    (tmp_path / "spare").mkdir()
    _refused(tmp_path, PATTERN, "spare", "no images")
    _touch(tmp_path, ["train/hook/P1_0.png"])
    _refused(tmp_path, PATTERN, "lies beside train, val or test")


@pytest.mark.parametrize(
    "names", [("Train", "Val", "Test"), ("training", "validation", "testing"), ("train", "valid", "test")]
)
def test_splits_by_another_name_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    """As classes they would be shared out anew, and the user's split would be lost without a word."""
    _touch(tmp_path, (f"{name}/{kind}/P{i}_{j}.png" for i, name in enumerate(names) for kind in "ab" for j in "01"))
    found = scan_folders(tmp_path, PATTERN, 0)
    assert found.frames == ()
    for name, split in zip(names, ("train", "val", "test"), strict=True):
        hints = [problem for problem in found.problems if f"unknown split {name!r}; did you mean {split}?" in problem]
        assert len(hints) == (name != split)
    (tmp_path / "extra").mkdir()
    _refused(tmp_path, PATTERN, "did you mean")


def test_classes_may_be_called_valid_and_invalid(tmp_path: Path) -> None:
    _touch(tmp_path, (f"{kind}/P{p}_0.png" for p in range(10) for kind in ("valid", "invalid")))
    space, _ = scan_folders(tmp_path, PATTERN, 0).accept()
    assert space.names == ("invalid", "valid")


def test_one_class_and_untrained_classes(tmp_path: Path) -> None:
    one = _touch(tmp_path / "one", (f"hook/P{i}_0.png" for i in range(5)))
    files = ["train/a/P0_0.png", "train/b/P0_0.png", "val/c/P1_0.png", "test/a/P2_0.png"]
    two = _touch(tmp_path / "two", files)
    for folder, words in ((one, r"only one class \(hook\)"), (two, "class c has no training images")):
        with pytest.raises(BadInput, match=words):
            list_frames(DataConfig(source="folders", path=folder, groups=PATTERN), 0, "classification")


@pytest.mark.parametrize("task", ["segmentation", "presence"])
def test_folders_say_one_class_only(tmp_path: Path, task: Task) -> None:
    config = DataConfig(source="folders", path=_ten_patients(tmp_path), groups=PATTERN)
    with pytest.raises(BadInput, match=f"folders say one class of an image, not what {task} needs; use table"):
        list_frames(config, 0, task)
    assert "use table" in audit(config, 0, task).errors[0]
