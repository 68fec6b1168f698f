"""Loading and auditing a data folder; one real set where it lies beside the project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saadi.data.audit import Audit, audit, nearest, normalise, render_audit
from saadi.data.images import identity
from saadi.data.load import load_dataset
from saadi.errors import BadInput
from saadi.files import file_digest
from saadi.imageconfig import DataConfig, PhantomConfig
from saadi.records import Task

TASK: Task = "classification"
REAL = Path(__file__).parents[2].parent / "shared" / "data" / "gyn-lap-tool-type"
GROUPS = (("A", "train"), ("B", "train"), ("C", "val"), ("D", "test"))


def _pixels(key: int, height: int = 24, width: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(key).integers(0, 256, (height, width, 3), np.uint8)


def _data(folder: Path, drop: str = "", wide: bool = False) -> DataConfig:
    """16 noise images of two classes, two of each in each of four groups; rows that hold `drop` are left out."""
    rows: list[str] = []
    (folder / "images").mkdir(parents=True)
    for group, split in GROUPS:
        for label in ("hook", "clip"):
            for i in range(2):
                row = f"images/{group}{label}{i}.png,{label},{group},{split}"
                if drop and drop in row:
                    continue
                shape = (24, 72) if wide and label == "clip" else (24, 24)
                Image.fromarray(_pixels(len(rows), *shape)).save(folder / row.split(",")[0])
                rows.append(row)
    (folder / "labels.csv").write_text("\n".join(["file,label,group,split", *rows]))
    return DataConfig(path=folder, size=32)


def test_a_table_is_read_in_its_order(tmp_path: Path) -> None:
    config = _data(tmp_path)
    Image.fromarray(_pixels(0)).convert("L").save(tmp_path / "images" / "Ahook0.png")
    calls: list[tuple[int, int]] = []
    data = load_dataset(config.model_copy(update={"size": 24}), 0, TASK, lambda *call: calls.append(call))
    assert data.images.shape == (16, 24, 24, 3)
    np.testing.assert_array_equal(data.images[5], _pixels(5))
    assert data.notes == ("1 grey image converted to RGB",)
    assert data.counts() == {"clip": 8, "hook": 8}
    assert calls[-1] == (16, 16)


def test_class_folders_are_read_and_the_drawn_split_is_said(tmp_path: Path) -> None:
    for p in range(6):
        for label in ("hook", "clip"):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(_pixels(p)).save(tmp_path / label / f"P{p}.png")
    data = load_dataset(DataConfig(source="folders", path=tmp_path, groups=r"(P\d)", size=32), 0, TASK)
    assert len(data.frames) == 12
    assert data.notes[0].startswith("no split is given: 6 groups")


def test_the_phantom_is_rendered() -> None:
    phantom = PhantomConfig(train=16, val=8, test=8, patients=(2, 1, 1))
    assert load_dataset(DataConfig(source="phantom", phantom=phantom, size=32), 0, TASK).images.shape == (32, 32, 32, 3)
    alone = phantom.model_copy(update={"patients": (1, 1, 1)})
    with pytest.raises(BadInput, match="cross-fitted"):
        load_dataset(DataConfig(source="phantom", phantom=alone), 0, TASK)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("Bclip1", "class clip has 3 training images; 4 are needed"),
        ("/C", "no images in val"),
        ("/D", "no images in test"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path: Path, drop: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_dataset(_data(tmp_path, drop), 0, TASK)


def test_one_training_group_is_refused(tmp_path: Path) -> None:
    config = _data(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace(",B,", ",A,"))
    with pytest.raises(BadInput, match="1 groups in train"):
        load_dataset(config, 0, TASK)


def test_a_class_in_one_training_group_is_refused(tmp_path: Path) -> None:
    config = _data(tmp_path)
    table = tmp_path / "labels.csv"
    text = table.read_text()
    for i in range(2):  # four hooks in train, all of patient A
        text = text.replace(f"images/Bhook{i}.png,hook,B", f"images/Bhook{i}.png,hook,A")
    table.write_text(text)
    expected = "class hook occurs in 1 training group; 2 are needed to cross-fit the critic: move another"
    with pytest.raises(BadInput, match=expected) as refused:
        load_dataset(config, 0, TASK)
    assert audit(config, 0, TASK).errors == [str(refused.value)]


@pytest.mark.parametrize("label", ["hook", "clip"])
def test_the_same_bytes_in_two_splits_are_refused_by_name(label: str, tmp_path: Path) -> None:
    config, images = _data(tmp_path), tmp_path / "images"
    for copy in (f"B{label}0", f"B{label}1", f"C{label}0", f"C{label}1", f"D{label}1"):
        (images / f"{copy}.png").write_bytes((images / "Ahook1.png").read_bytes())
    with pytest.raises(BadInput, match="the same image in two splits") as refused:
        load_dataset(config, 0, TASK)
    line = str(refused.value)
    assert "\n" not in line
    for file in ("images/Ahook1.png (train, hook)", f"images/C{label}0.png (val, {label})", f"images/D{label}1.png"):
        assert file in line
    assert [f"{tmp_path}: {error}" for error in audit(config, 0, TASK).errors] == [line]


def test_the_same_bytes_within_a_split_are_loaded(tmp_path: Path) -> None:
    config = _data(tmp_path)
    (tmp_path / "images" / "Aclip1.png").write_bytes((tmp_path / "images" / "Aclip0.png").read_bytes())
    assert len(load_dataset(config, 0, TASK).frames) == 16


def test_no_path_and_a_broken_image(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"data\.path is not set"):
        load_dataset(DataConfig(), 0, TASK)
    config = _data(tmp_path)
    (tmp_path / "images" / "Chook0.png").write_bytes(b"")
    with pytest.raises(BadInput, match=r"Chook0\.png: empty file"):
        load_dataset(config, 0, TASK)


def test_a_clean_audit(tmp_path: Path) -> None:
    found = audit(_data(tmp_path), 0, TASK)
    assert found.errors == found.warnings == []
    assert found.classes == {name: {"train": 4, "val": 2, "test": 2} for name in ("clip", "hook")}
    assert found.groups["C"] == {"train": 0, "val": 4, "test": 0}
    assert json.loads(json.dumps(found.to_json()))["classes"] == found.classes
    assert render_audit(found).endswith("0 errors, 0 warnings")


def test_an_audit_lists_everything(tmp_path: Path) -> None:
    config = _data(tmp_path, drop="Dclip", wide=True)
    images = tmp_path / "images"
    (images / "Ahook0.png").write_bytes(b"")
    (images / "Bhook0.png").write_bytes(b"broken")
    (images / "Chook0.png").write_bytes((images / "Ahook1.png").read_bytes())
    (images / "Aclip1.png").write_bytes((images / "Aclip0.png").read_bytes())
    with Image.open(images / "Dhook0.png") as image:
        image.save(images / "Bhook1.png", compress_level=0)  # other bytes, same picture
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text() + "\nimages/absent.png,hook,A,val\nimages/Dhook0.png,hook,D,test\n")

    found = audit(config, 0, TASK)
    for words in ("Ahook0.png: empty", "Bhook0.png: not an image", "two splits: images/Ahook1", "group A is in train"):
        assert sum(words in error for error in found.errors) == 1
    for words in ("absent.png is not in", "is listed in row"):
        assert sum(words in error for error in found.errors) == 1
    assert len(found.errors) == 6
    for words in (
        "the same image twice",
        "1 images of test have a near-copy in train",
        "median width/height is 1 for hook and 3 for clip",
    ):
        assert sum(words in warning for warning in found.warnings) == 1
    assert len(found.warnings) == 3
    assert not found.counted  # so that nothing follows from it, as that clip has no images in test
    text = render_audit(found)
    assert all(entry in text for entry in (*found.errors, *found.warnings))


def test_the_shape_of_narrow_crops_is_not_said_to_be_zero(tmp_path: Path) -> None:
    config = _data(tmp_path)
    for i, path in enumerate(sorted((tmp_path / "images").glob("?clip?.png"))):
        Image.fromarray(_pixels(100 + i, 750, 3)).save(path)
    (warning,) = [warning for warning in audit(config, 0, TASK).warnings if "shape" in warning]
    assert "median width/height is 0.004 for clip and 1 for hook" in warning


def test_images_that_show_next_to_nothing_are_a_warning(tmp_path: Path) -> None:
    config, images = _data(tmp_path), tmp_path / "images"
    dark = _pixels(99) // 16
    dark[0, 0] = 255  # one hot pixel
    Image.fromarray(dark).save(images / "Bclip0.png")
    (warning,) = audit(config, 0, TASK).warnings
    assert warning == "1 image is of one colour or uses less than a tenth of the range, first images/Bclip0.png"

    for i in range(2):  # what a camera of 12 bits gives
        values = np.random.default_rng(i).integers(0, 4096, (24, 24)).astype(np.uint16)
        Image.fromarray(values).save(images / f"Chook{i}.png")
    clear = np.dstack([_pixels(100), np.zeros((24, 24), np.uint8)])
    Image.fromarray(clear).save(images / "Dclip0.png")
    (warning,) = audit(config, 0, TASK).warnings
    assert warning.startswith("4 images are of one colour or use less than a tenth of the range, first images/Bclip0")
    assert "2 of 16 bits, where 65535 becomes white" in warning
    assert "1 with an alpha channel, where what is transparent becomes black" in warning


def test_fine_textures_and_even_colours_show_something(tmp_path: Path) -> None:
    """Averaged, a fine texture is grey; and red beside green of the same brightness is grey in grey."""
    config, images = _data(tmp_path), tmp_path / "images"
    checks = (np.indices((240, 240)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.dstack([checks] * 3)).save(images / "Bclip0.png")
    halves = np.zeros((24, 24, 3), np.uint8)
    halves[:, :12, 0], halves[:, 12:, 1] = 200, 102
    Image.fromarray(halves).save(images / "Bclip1.png")
    assert audit(config, 0, TASK).warnings == []


def test_the_same_image_under_two_labels(tmp_path: Path) -> None:
    config = _data(tmp_path)
    (tmp_path / "images" / "Aclip0.png").write_bytes((tmp_path / "images" / "Ahook0.png").read_bytes())
    assert any("under two labels" in warning for warning in audit(config, 0, TASK).warnings)


def test_audits_of_nothing(tmp_path: Path) -> None:
    assert "data.path" in audit(DataConfig(), 0, TASK).errors[0]
    assert "no such data folder" in audit(DataConfig(path=tmp_path / "absent"), 0, TASK).errors[0]
    assert "rendered" in audit(DataConfig(source="phantom"), 0, TASK).notes[0]
    assert audit(DataConfig(source="phantom", phantom=PhantomConfig(train=3)), 0, TASK).errors


def test_long_lists_are_cut_short() -> None:
    text = render_audit(Audit({}, {}, [], [f"e{i}" for i in range(25)], []))
    assert "error: ... and 5 more" in text
    assert "25 errors" in text


def test_flat_images_resemble_nothing() -> None:
    rows = np.stack([np.full(16, 7.0), np.arange(16.0), 300 - 2 * np.arange(16.0)]).astype(np.float32)
    index, value = nearest(normalise(rows), normalise(rows), chunk=2)
    np.testing.assert_allclose(value, [0, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(index[1:], [1, 2])


@pytest.mark.skipif(not REAL.is_dir(), reason="the real set gyn-lap-tool-type does not lie beside the project")
def test_a_real_set() -> None:
    config = DataConfig(path=REAL)
    assert audit(config, 0, TASK).errors == []
    data = load_dataset(config, 0, TASK)
    assert data.counts() == {"type1": 521, "type2": 281, "type3": 450, "type5": 114}
    assert 40 < data.images.mean() < 200


def test_images_of_one_colour_are_nobodys_copies(tmp_path: Path) -> None:
    """CholecT50's frames out of the body are black in every video."""
    for name, colour in (("black", "black"), ("another", "black"), ("noise", None)):
        image = Image.effect_noise((8, 8), 60).convert("RGB") if colour is None else Image.new("RGB", (8, 8), colour)
        image.save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "noise.png", tmp_path / "copy.png")
    paths = [tmp_path / f"{name}.png" for name in ("black", "another", "noise", "copy")]
    black, another, noise, copy = (identity(path, Image.open(path)) for path in paths)
    assert black != another
    assert copy == noise == file_digest(paths[2])
