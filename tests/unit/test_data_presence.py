"""Which classes an image shows: columns has_<class> of 0 and 1, from the table to the data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segmented import edit, write

from saadi.data.audit import audit
from saadi.data.load import list_frames, load_dataset
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import Frame, Task

TASK: Task = "presence"
VOCALFOLDS = Path(__file__).parents[2].parent / "shared" / "data" / "vocalfolds"


def _without(folder: Path, column: str) -> None:
    """Take a column out of the table."""
    rows = [line.split(",") for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines()]
    out = rows[0].index(column)
    (folder / "labels.csv").write_text("\n".join(",".join(row[:out] + row[out + 1 :]) for row in rows))


def test_the_columns_say_what_an_image_shows(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    edit(folder, "A1.png,A,train,1,0", "A1.png,A,train,0,0")
    data = load_dataset(DataConfig(path=folder, size=32), 0, TASK)
    assert (data.space.names, data.space.background) == (("hook", "clip"), False)
    assert data.frames[:2] == (
        Frame("images/A0.png", ("hook", "clip"), "A", "train"),
        Frame("images/A1.png", (), "A", "train"),
    )
    assert data.masks is None
    assert data.counts() == {"hook": 15, "clip": 8}
    np.testing.assert_array_equal(data.presence[:3], [[True, True], [False, False], [True, True]])
    with pytest.raises(ValueError, match="to unpack"):
        _ = data.labels
    found = audit(DataConfig(path=folder, size=32), 0, TASK)
    assert (found.errors, found.warnings, found.pixels) == ([], [], {})
    assert found.classes["hook"] == {"train": 7, "val": 4, "test": 4}


def test_a_blank_after_has_is_no_part_of_the_class(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    edit(folder, "has_clip", "has_ clip")
    space, frames, _ = list_frames(DataConfig(path=folder), 0, TASK)
    assert (space.names, frames[0].labels) == (("hook", "clip"), ("hook", "clip"))


def test_presence_of_no_frames_has_the_shape_of_its_classes(tmp_path: Path) -> None:
    data = load_dataset(DataConfig(path=write(tmp_path / "set"), size=32), 0, TASK)
    assert data.take(np.zeros(0, np.int64)).presence.shape == (0, 2)


def test_one_class_will_do_where_images_lack_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    _without(folder, "has_hook")
    space, frames, _ = list_frames(DataConfig(path=folder), 0, TASK)
    assert (space.names, frames[1].labels) == (("clip",), ())


def test_a_class_in_every_training_image_is_a_warning(tmp_path: Path) -> None:
    found = audit(DataConfig(path=write(tmp_path / "set"), size=32), 0, TASK)
    assert found.errors == []
    assert found.warnings == ["class hook is in every training image: no model learns from these to miss it"]


SPOILT: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "neither 0 nor 1": (lambda at: edit(at, "A0.png,A,train,1,1", "A0.png,A,train,1,yes"), ("row 2", "'yes'; use 1")),
    "no mark": (lambda at: edit(at, "A0.png,A,train,1,1", "A0.png,A,train,,1"), ("row 2", "has_hook is empty")),
    "no columns": (lambda at: edit(at, "has_hook,has_clip", "hook,clip"), ("labels.csv", "name one has_<class>")),
    "no name": (lambda at: edit(at, "has_clip", "has_"), ("labels.csv", "column has_ names no class")),
    "twice": (lambda at: edit(at, "has_clip", "has_hook"), ("labels.csv", "has_hook is there twice")),
    "twice, with a blank": (
        lambda at: edit(at, "has_clip", "has_ hook"),
        ("labels.csv", "2 columns say whether 'hook' is shown; keep one"),
    ),
    "a long name": (lambda at: edit(at, "has_clip", "has_" + "x" * 61), ("labels.csv", "61 characters")),
    "never trained": (lambda at: edit(at, "train,1,1", "train,1,0"), ("clip has no training", "remove its column")),
    "too few": (lambda at: edit(at, "A0.png,A,train,1,1", "A0.png,A,train,1,0"), ("class clip has 3", "4 are needed")),
    "always": (lambda at: _without(at, "has_clip"), ("the only class, hook, is in every training image",)),
    "no test": (lambda at: edit(at, ",test", ",val"), ("no images in test", "data.test: [B]")),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_input_is_one_line_and_the_audit_s(tmp_path: Path, name: str) -> None:
    spoil, words = SPOILT[name]
    config = DataConfig(path=write(tmp_path / "set"), size=32)
    spoil(tmp_path / "set")
    with pytest.raises(BadInput) as refused:
        load_dataset(config, 0, TASK)
    line = str(refused.value)
    assert "\n" not in line
    assert all(word in line for word in words), line
    assert line in audit(config, 0, TASK).errors


@pytest.mark.skipif(not VOCALFOLDS.is_dir(), reason="the real set vocalfolds does not lie beside the project")
def test_the_real_set_vocalfolds() -> None:
    config = DataConfig(path=VOCALFOLDS)
    found = audit(config, 0, TASK)
    assert found.errors == []
    assert any("pathology has no images in val" in warning for warning in found.warnings)
    data = load_dataset(config, 0, TASK)
    assert len(data.frames) == 536
    assert data.space.names[3] == "pathology"
    assert data.presence.sum(0).tolist() == list(data.counts().values())
