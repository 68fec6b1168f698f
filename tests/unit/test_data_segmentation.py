"""Loading and auditing a folder with masks; two real sets where they lie beside the project."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from segmented import HEIGHT, WIDTH, edit, repaint, values, write

from saadi.data.audit import audit, render_audit
from saadi.data.load import list_frames, load_dataset
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import IGNORE, Frame, Task

TASK: Task = "segmentation"
SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def _config(folder: Path, **settings: Any) -> DataConfig:
    return DataConfig(path=folder, size=32, **settings)


def _warned(folder: Path, *words: str) -> None:
    """Assert one warning that holds `words`, and no error."""
    found = audit(_config(folder), 0, TASK)
    assert found.errors == []
    assert sum(all(word in warning for word in words) for warning in found.warnings) == 1, found.warnings


def test_images_and_masks_are_read_and_labelled(tmp_path: Path) -> None:
    config = _config(write(tmp_path / "set"))
    data = load_dataset(config, 0, TASK)
    assert data.masks is not None
    assert (data.images.shape, data.masks.shape) == ((16, 32, 32, 3), (16, 32, 32))
    assert (data.space.names, data.space.background) == (("background", "hook", "clip"), True)
    assert data.frames[0] == Frame("images/A0.png", ("hook", "clip"), "A", "train", "masks/A0.png")
    assert data.frames[1].labels == ("hook",)
    assert data.counts() == {"hook": 16, "clip": 8}
    np.testing.assert_array_equal(data.presence[:4], [[True, True], [True, False]] * 2)
    padded = data.images.sum(-1)[0] == 0
    np.testing.assert_array_equal(data.masks[0][[0, 31]] == IGNORE, padded[[0, 31]])
    assert set(np.unique(data.masks)) == {0, 1, 2, IGNORE}
    held = data.split("test")
    assert held.masks is not None
    np.testing.assert_array_equal(held.masks, data.masks[12:])


def test_frames_are_listed_with_the_labels_that_loading_finds(tmp_path: Path) -> None:
    config = _config(write(tmp_path / "set"))
    space, frames, notes = list_frames(config, 0, TASK)
    data = load_dataset(config, 0, TASK)
    assert (space, tuple(frames), notes) == (data.space, data.frames, data.notes)


def test_labels_are_those_of_the_square(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    mask = values(1)
    mask[:, WIDTH - 2 :] = 2  # cut off by a crop
    repaint(folder, "A1.png", mask)
    assert load_dataset(_config(folder), 0, TASK).frames[1].labels == ("hook", "clip")
    assert load_dataset(_config(folder, square="crop"), 0, TASK).frames[1].labels == ("hook",)
    found = audit(_config(folder, square="crop"), 0, TASK)
    assert [w for w in found.warnings if "class clip is lost in 1 of the 9 masks" in w and "masks/A1.png" in w]


def test_colours_name_classes_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    by_id = load_dataset(_config(folder), 0, TASK)
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    for path in (folder / "masks").iterdir():
        Image.fromarray(palette[np.asarray(Image.open(path))]).save(path)
    names = {"#000000": "background", "#ff0000": "hook", "0,0,255": "clip"}
    (folder / "classes.json").write_text(json.dumps(names))
    by_colour = load_dataset(_config(folder), 0, TASK)
    assert (by_colour.frames, by_colour.space) == (by_id.frames, by_id.space)
    np.testing.assert_array_equal(by_colour.masks, by_id.masks)


def test_a_clean_audit_counts_pixels(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    found = audit(_config(folder), 0, TASK)
    assert found.errors == found.warnings == []
    assert found.classes == {"clip": {"train": 4, "val": 2, "test": 2}, "hook": {"train": 8, "val": 4, "test": 4}}
    whole = WIDTH * HEIGHT
    hook, clip = 256 / whole, 0.5 * 18 * 16 / whole
    shares = {"background": 1 - hook - clip, "hook": hook, "clip": clip}
    for name, share in shares.items():
        assert found.pixels[name] == pytest.approx(dict.fromkeys(("train", "val", "test"), share))
    assert list(found.pixels) == list(shares)
    assert json.loads(json.dumps(found.to_json()))["pixels"] == found.pixels
    assert f"hook         {hook:.1%}" in render_audit(found)
    repaint(folder, "A1.png", np.full((HEIGHT, WIDTH), IGNORE, np.uint8))
    assert any(
        note.startswith("6.2% of the masks' pixels are ignored: 255") for note in audit(_config(folder), 0, TASK).notes
    )
    assert sum(audit(_config(folder), 0, TASK).pixels[name]["train"] for name in shares) == pytest.approx(1)


def _paint(name: str, value: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        mask = values(0)
        mask[:3, :3] = value
        repaint(folder, name, mask)

    return spoil


def _blur(folder: Path) -> None:
    smooth = Image.fromarray(values(0) * 100).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR)
    repaint(folder, "B2.png", np.asarray(smooth.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)))
    (folder / "classes.json").write_text('{"0": "background", "1": "hook", "2": "clip", "100": "hook", "200": "clip"}')


def _turn(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images/C1.png", exif=exif)


def _truncate(folder: Path) -> None:
    path = folder / "masks/A3.png"
    path.write_bytes(path.read_bytes()[:-30])


def _more_classes(folder: Path) -> None:
    edit(folder, '"2": "clip"', '"2": "clip", "3": "saw"', "classes.json")


SPOILT: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "no classes.json": (lambda at: (at / "classes.json").unlink(), ("classes.json", "no such file", '"1": "tool"')),
    "a bad classes.json": (lambda at: edit(at, '"1"', '"one"', "classes.json"), ("classes.json", "'one' is no id")),
    "no mask column": (lambda at: edit(at, "file,mask", "file,seg"), ("labels.csv", "column mask is missing")),
    "no mask named": (lambda at: edit(at, ",masks/A0.png,", ",,"), ("row 2", "mask is empty")),
    "missing mask": (lambda at: (at / "masks/B1.png").unlink(), ("row 7", "B1.png", "1 of 16 masks are missing")),
    "a mask for two": (lambda at: edit(at, "masks/A1", "masks/A0"), ("row 3", "A0.png is listed in row 2", "its own")),
    "mask outside": (lambda at: edit(at, ",masks/A0.png", ",../A0.png"), ("row 2", "A0.png", "outside the data")),
    "jpeg": (
        lambda at: Image.fromarray(values(0)).save(at / "masks/A0.png", "JPEG"),
        ("A0.png", "a JPEG file, whose compression blurs"),
    ),
    "zero bytes": (lambda at: (at / "masks/A3.png").write_bytes(b""), ("masks/A3.png", "empty file")),
    "truncated": (_truncate, ("masks/A3.png", "damaged")),
    "other size": (lambda at: repaint(at, "C0.png", values(0)[:, 1:]), ("C0.png", "47 x 32 px", "48 x 32")),
    "turned": (_turn, ("C1.png", "32 x 48 once turned as its EXIF says")),
    "unknown id": (_paint("D0.png", 3), ("D0.png", "9 pixels of 3", "list them")),
    "all ignored": (
        lambda at: repaint(at, "B3.png", np.full_like(values(0), 255)),
        ("B3.png", "nothing is known of the frame"),
    ),
    "interpolated": (_blur, ("B2.png", "interpolated edges? resize masks with nearest neighbour")),
    "never trained": (
        _more_classes,
        ("class saw has no training images (a mask's 255 is ignored unless", "null in classes.json"),
    ),
    "too few": (lambda at: repaint(at, "A0.png", values(1)), ("class clip has 3 training images", "4 are needed")),
    "one group": (lambda at: edit(at, ",B,", ",A,"), ("1 groups in train",)),
    "no val": (lambda at: edit(at, ",val", ",test"), ("no images in val", "data.val: [B]")),
    "two splits": (lambda at: edit(at, ",C,val", ",A,val"), ("group A is in train (images/A0.png) and val",)),
    "leak": (
        lambda at: shutil.copy(at / "images/A1.png", at / "images/D1.png"),
        ("the same image in two splits", "A1.png (train, hook)"),
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_input_is_one_line_and_the_audit_s(tmp_path: Path, name: str) -> None:
    spoil, words = SPOILT[name]
    folder = write(tmp_path / "set")
    Image.fromarray(values(0)).save(tmp_path / "A0.png")
    spoil(folder)
    with pytest.raises(BadInput) as refused:
        load_dataset(_config(folder), 0, TASK)
    line = str(refused.value)
    assert "\n" not in line
    assert all(word in line for word in words), line
    errors = audit(_config(folder), 0, TASK).errors
    assert any(error in line for error in errors), errors


def test_an_audit_lists_all_that_is_wrong(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    mask = values(0)[1:]
    mask[0, 0] = 77
    repaint(folder, "A0.png", mask)  # both of another size and with an id too many
    (folder / "masks/B1.png").write_bytes(b"")
    (folder / "images/B1.png").write_bytes(b"")
    (folder / "masks/C1.png").unlink()
    edit(folder, ",D,test", ",D,tset")
    errors = audit(_config(folder), 0, TASK).errors
    for words in ("48 x 31 px", "1 pixels of 77", "masks/B1.png: empty", "images/B1.png: empty", "C1.png is not in"):
        assert sum(words in error for error in errors) == 1, errors
    assert sum("did you mean test?" in error for error in errors) == 4
    assert len(errors) == 9


@pytest.mark.parametrize("name", ["unknown id", "zero bytes", "missing mask", "all ignored"])
def test_what_follows_from_masks_is_left_out_where_they_cannot_be_read(tmp_path: Path, name: str) -> None:
    """Of clips nothing can be said once a mask that may show them is broken; the broken one is to be mended first."""
    folder = write(tmp_path / "set")
    for mask in ("A0.png", "A2.png", "B0.png", "B2.png", "C0.png", "C2.png"):
        repaint(folder, mask, values(1))
    found = audit(_config(folder), 0, TASK)
    assert found.counted
    assert "class clip has no training images" in found.errors[0]
    assert "class clip has no images in val" in found.warnings[0]
    SPOILT[name][0](folder)
    found = audit(_config(folder), 0, TASK)
    assert not found.counted
    assert not any("clip has no" in line for line in (*found.errors, *found.warnings))
    assert (len(found.errors), found.warnings) == (1, [])


def test_an_image_that_cannot_be_read_hides_no_class(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    _more_classes(folder)
    (folder / "images/A0.png").write_bytes(b"")
    first, then = audit(_config(folder), 0, TASK).errors
    assert "A0.png: empty file" in first
    assert "class saw has no training images" in then


def test_empty_masks_are_a_warning(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    for name in ("A1.png", "D3.png"):
        repaint(folder, name, np.zeros((HEIGHT, WIDTH), np.uint8))
    _warned(folder, "2 of 16 masks are empty, nothing but background: masks/A1.png, masks/D3.png")
    assert load_dataset(_config(folder), 0, TASK).frames[1].labels == ()


def test_edges_that_hit_valid_ids_are_a_warning(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:24, 8:40] = 2
    smooth = np.asarray(Image.fromarray(mask).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR))
    smooth = np.asarray(Image.fromarray(smooth).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    assert set(np.unique(smooth)) == {0, 1, 2}
    repaint(folder, "A1.png", smooth)
    _warned(folder, "class hook is only a thin rim", "in 1 of the 16 masks", "masks/A1.png", "interpolated edges?")


def test_images_that_exif_turns_are_a_warning(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the size does not tell
    with Image.open(folder / "images/A2.png") as image:
        image.save(folder / "images/A2.png", exif=exif)
    _warned(folder, "1 images are turned by their EXIF orientation: masks/A2.png", "upright")


def test_a_class_in_one_training_group_or_not_in_a_split_is_a_warning(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    for name in ("A0.png", "A2.png", "D0.png", "D2.png"):
        repaint(folder, name, values(1))
    for name in ("B1.png", "B3.png"):
        repaint(folder, name, values(0))
    _warned(folder, "class clip has no images in test: its Dice there is no evidence")
    _warned(folder, "class clip occurs in 1 training group (B)", "no evidence")
    assert len(audit(_config(folder), 0, TASK).warnings) == 2
    assert load_dataset(_config(folder), 0, TASK).counts()["clip"] == 6


@pytest.mark.skipif(not (SHARED / "endovis15-rigid").is_dir(), reason="endovis15-rigid does not lie beside the project")
def test_the_real_set_endovis15() -> None:
    config = DataConfig(path=SHARED / "endovis15-rigid")
    (error,) = audit(config, 0, TASK).errors
    assert "no images in val" in error
    assert "data.val: [OP3]" in error
    one_out = config.model_copy(update={"test": ("OP1",), "val": ("OP2",)})
    found = audit(one_out, 0, TASK)
    assert found.errors == found.warnings == []
    data = load_dataset(one_out, 0, TASK)
    assert {split: set(data.split(split).groups.tolist()) for split in ("train", "val", "test")} == {
        "train": {"OP3", "OP4"}, "val": {"OP2"}, "test": {"OP1"},
    }  # fmt: skip
    assert data.space.asked == ("manipulator", "shaft")
    assert data.masks is not None
    shares = np.bincount(data.masks[data.masks != IGNORE].ravel(), minlength=3) / (data.masks != IGNORE).sum()
    np.testing.assert_allclose(shares, [0.906, 0.031, 0.063], atol=0.002)


@pytest.mark.skipif(not (SHARED / "vocalfolds").is_dir(), reason="vocalfolds does not lie beside the project")
def test_the_real_set_vocalfolds() -> None:
    config = DataConfig(path=SHARED / "vocalfolds")
    found = audit(config, 0, TASK)
    assert found.errors == []
    assert any("pathology occurs in 1 training group (patient1_seq1)" in warning for warning in found.warnings)
    data = load_dataset(config, 0, TASK)
    assert (data.space.names[0], len(data.space.asked), len(data.frames)) == ("void", 6, 536)
    assert data.counts()["pathology"] == 58
