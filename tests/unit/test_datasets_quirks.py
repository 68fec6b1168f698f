"""What is peculiar about single sets: how their masks are stored, how their labels are counted and named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sets_on_disk as disk
from numpy.typing import NDArray
from PIL import Image

from saadi.data.images import cut
from saadi.data.load import scan_source
from saadi.data.masks import open_mask
from saadi.data.sets.catalogue import find_view
from saadi.data.sets.openers import bright, grey, rgb
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import IGNORE, Task


def _ids(name: str, path: Path) -> NDArray[np.uint8]:
    table = find_view(name, "segmentation")[1].table
    assert table is not None
    return open_mask(path, table).ids


def _scan(name: str, folder: Path, task: Task = "segmentation") -> dict[str, tuple[str, ...]]:
    config = DataConfig.model_validate({"source": "set", "set": name, "path": folder})
    scan = scan_source(config, 0, task)
    return {frame.file: frame.labels for frame in scan.accept()[1]}


def _refused(name: str, folder: Path, task: Task, *words: str) -> None:
    with pytest.raises(BadInput) as caught:
        _scan(name, folder, task)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_cholecseg8k_drops_alpha_and_ignores_border_and_unlabelled(tmp_path: Path) -> None:
    disk.cholecseg8k(tmp_path, (1,), 2)
    for stem in ("frame_80_endo", "frame_81_endo"):  # RGBA, RGB
        ids = _ids("cholecseg8k/all", tmp_path / f"video01/video01_00080/{stem}_watershed_mask.png")
        assert {*np.unique(ids)} == {*range(13), IGNORE} - {9 if stem == "frame_80_endo" else 5}
        assert (ids[0] == IGNORE).all()
        assert (ids[:, -1] == IGNORE).all()
        assert ids[18, 1] == 0
        assert ids[18, 5] == IGNORE  # grey value 0: not labelled


def test_cholecseg8k_one_instrument_an_image(tmp_path: Path) -> None:
    disk.cholecseg8k(tmp_path, frames=4)
    labels = _scan("cholecseg8k", tmp_path, "classification")
    assert len(labels) == 8
    assert labels["video01/video01_00080/frame_80_endo.png"] == ("grasper",)
    assert labels["video01/video01_00080/frame_81_endo.png"] == ("L-hook electrocautery",)


def test_the_colour_masks_of_a_grey_set_are_refused(tmp_path: Path) -> None:
    disk.mask(tmp_path / "a.png", np.dstack([disk.stripes((9, 0))] * 2 + [disk.stripes((0, 9))]), "RGB")
    with pytest.raises(BadInput, match="coloured pixels"):
        grey(tmp_path / "a.png")
    disk.mask(tmp_path / "b.png", disk.stripes((9, 0)))
    with pytest.raises(BadInput, match="grey pixels"):
        rgb(tmp_path / "b.png")


def test_cholec80_counts_frames_from_one_and_labels_from_zero(tmp_path: Path) -> None:
    disk.cholec80(tmp_path)
    phases = _scan("cholec80/phases", tmp_path, "classification")
    assert len(phases) == 4 * 16  # the seventeenth has no label
    assert phases["frames/video01/video01_000001.png"] == ("Preparation",)
    assert phases["frames/video01/video01_000002.png"] == ("CalotTriangleDissection",)
    tools = _scan("cholec80/tools", tmp_path, "presence")
    assert tools["frames/video01/video01_000001.png"] == ("Bipolar", "Scissors", "Irrigator")
    disk.frame(tmp_path / "frames/video01/video01_000000.png")
    _refused("cholec80/tools", tmp_path, "presence", "frame 0", "counted from 1")


def test_cholec80_as_videos_only(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/video01.mp4").touch()
    _refused("cholec80", tmp_path, "presence", "found videos", "extract one frame a second")


def test_cholec80_without_labels_or_with_others(tmp_path: Path) -> None:
    disk.cholec80(tmp_path)
    path = tmp_path / "phase_annotations/video02-phase.txt"
    path.write_text("Frame\tPhase\n0\tLunch\n")
    _refused("cholec80/phases", tmp_path, "classification", "video02-phase.txt", "0 Lunch", "CalotTriangleDissection")
    path.unlink()
    _refused("cholec80/phases", tmp_path, "classification", "expected video02-phase.txt", "camma")


def test_cholect50_reads_the_columns_of_its_rows(tmp_path: Path) -> None:
    disk.cholect50(tmp_path)
    path = tmp_path / "labels/VID01.json"
    entries = json.loads(path.read_text())
    entries["annotations"]["0"] = [[7, 2, *[0] * 5, 9, 14, *[0] * 6], [7, 0, *[0] * 5, 1, 0, *[0] * 6]]
    path.write_text(json.dumps(entries))
    file = "videos/VID01/000000.png"
    assert _scan("cholect50/instruments", tmp_path, "presence")[file] == ("grasper", "hook")
    assert _scan("cholect50/verbs", tmp_path, "presence")[file] == ("retract", "null_verb")
    assert _scan("cholect50/targets", tmp_path, "presence")[file] == ("gallbladder", "null_target")
    assert _scan("cholect50", tmp_path, "presence")["videos/VID01/000001.png"] == ()
    path.write_text('{"annotations": {"0": [[1, 2]]}}')
    _refused("cholect50", tmp_path, "presence", "VID01.json", "other than 15 numbers")


def test_dsad_joins_the_organs_of_an_image(tmp_path: Path) -> None:
    disk.dsad(tmp_path, (1,))
    ids = _ids("dsad/multilabel", tmp_path / "multilabel/01/mask00_*.png")
    assert ids[0, ::6].tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    disk.mask(tmp_path / "multilabel/01/mask00_ureter.png", disk.stripes([0] * 7 + [255]))
    assert _ids("dsad/multilabel", tmp_path / "multilabel/01/mask00_*.png")[0, -1] == IGNORE
    assert _ids("dsad/liver", tmp_path / "liver/01/mask00.png")[0, [0, -1]].tolist() == [0, 1]


def test_endovis17_types_by_folder_and_parts_by_value(tmp_path: Path) -> None:
    disk.endovis17(tmp_path, (1,))
    path = tmp_path / "instrument_dataset_1/ground_truth/*/frame000.png"
    assert {*np.unique(_ids("endovis17/types", path))} == {*range(8)}
    assert {*np.unique(_ids("endovis17/parts", path))} == {0, 1, 2, 3, IGNORE}
    assert {*np.unique(_ids("endovis17/binary", path))} == {0, 1}
    disk.mask(tmp_path / "instrument_dataset_1/ground_truth/Spoon_labels/frame000.png", disk.stripes((0, 10)))
    with pytest.raises(BadInput, match="Spoon_labels: names no instrument"):
        _ids("endovis17/types", path)


def test_endovis17_in_full_size_is_cut(tmp_path: Path) -> None:
    full = np.zeros((1080, 1920), np.uint8)
    full[28 : 28 + 1024, 320 : 320 + 1280] = 10
    disk.mask(tmp_path / "ground_truth/Bipolar_Forceps_labels/frame000.png", full)
    ids = _ids("endovis17/types", tmp_path / "ground_truth/*/frame000.png")
    assert ids.shape == (1024, 1280)
    assert (ids == 1).all()
    window = find_view("endovis17", "segmentation")[0].window
    assert cut(Image.fromarray(full), window).size == (1280, 1024)
    assert cut(Image.new("L", (1280, 1024)), window).size == (1280, 1024)


def test_endovis18_reads_colours(tmp_path: Path) -> None:
    disk.endovis18(tmp_path, (1,))
    path = tmp_path / "miccai_challenge_2018_release_1/seq_1/labels/frame000.png"
    assert _ids("endovis18/scene", path)[0, ::4].tolist() == [*range(12)]
    assert _ids("endovis18/parts", path)[0, ::4].tolist() == [0, 1, 2, 3, *[0] * 8]


@pytest.mark.parametrize(
    ("task", "classes", "of"),
    [
        (1, 8, {0: 1, 6: 7, 7: 8, 35: 8}),
        (2, 17, {6: 7, 7: 8, 32: 8, 22: 9, 33: 10, 28: 11, 21: 12, 24: 13, 18: 14, 23: 15, 17: 16, 19: 17, 25: IGNORE}),
        (3, 25, {0: 1, 24: 25, 25: IGNORE, 35: IGNORE}),
    ],
)  # fmt: skip
def test_the_three_tasks_of_cadis(task: int, classes: int, of: dict[int, int], tmp_path: Path) -> None:
    disk.mask(tmp_path / "a.png", np.arange(36, dtype=np.uint8)[None].repeat(4, 0))
    ids = _ids(f"cadis/task-{task}", tmp_path / "a.png")[0]
    assert {value: int(ids[value]) for value in of} == of
    assert len({*ids.tolist()} - {IGNORE}) == classes


def test_cataract_1k_draws_polygons_with_holes_in_order(tmp_path: Path) -> None:
    disk.cataract_1k(tmp_path, (5301,))
    base = tmp_path / "Segmentation_dataset/Annotations/Images-and-Supervisely-Annotations/case_5301/ann"
    path = base / "case5301_00.png.json"
    ids = _ids("cataract-1k", path)
    assert ids.shape == (36, 48)
    assert {*np.unique(ids)} == {0, 1, *range(2, 14)}
    assert (ids[1, 1], ids[5, 1], ids[30, 43]) == (1, 3, 0)  # cornea, the lens on it, the hole
    entries = json.loads(path.read_text())
    entries["objects"][0]["classTitle"] = "Fork"
    path.write_text(json.dumps(entries))
    with pytest.raises(BadInput, match="unknown class 'Fork'"):
        _ids("cataract-1k", path)
    path.write_text("{}")
    with pytest.raises(BadInput, match="no annotation of Supervisely"):
        _ids("cataract-1k", path)


def test_hyperkvasirs_split_file_has_other_names(tmp_path: Path) -> None:
    disk.hyperkvasir(tmp_path, 5)
    labels = _scan("hyperkvasir", tmp_path, "classification")
    assert labels["labeled-images/lower-gi-tract/some-group/polyps/polyps-0.jpg"] == ("polyps",)
    path = tmp_path / "official_splits/5_fold_split.csv"
    text = path.read_text()
    assert "polyps-0.jpg;polyp;0" in text
    path.write_text(text.replace("polyps-0.jpg;polyp;", "polyps-0.jpg;ileum;"))
    _refused("hyperkvasir", tmp_path, "classification", "says ileum of", "the class of its folder")
    path.write_text(text.replace(";", ","))
    _refused("hyperkvasir", tmp_path, "classification", "is not file-name;class-name;split-index")
    path.unlink()
    _refused("hyperkvasir", tmp_path, "classification", "expected 5_fold_split.csv", "github.com/simula")


def test_lapgyn4_with_a_strange_folder(tmp_path: Path) -> None:
    disk.lapgyn4(tmp_path, 1)
    disk.frame(tmp_path / "LapGyn4_v1.2/Surgical_Actions/Sewing/a.jpg")
    _refused("lapgyn4", tmp_path, "classification", "unknown class folder 'Sewing'", "Suturing")


def test_kvasir_seg_thresholds_jpeg_masks_and_keeps_to_the_lists(tmp_path: Path) -> None:
    disk.kvasir_seg(tmp_path)
    path = tmp_path / "Kvasir-SEG/masks/k0.jpg"
    assert len(np.unique(np.asarray(Image.open(path)))) > 2  # blurred
    assert {*np.unique(_ids("kvasir-seg", path))} == {0, 1}
    rows = (tmp_path / "Kvasir-SEG/train.txt").read_text().split()
    (tmp_path / "Kvasir-SEG/train.txt").write_text("\n".join(rows[1:]))
    assert len(_scan("kvasir-seg", tmp_path)) == 19
    (tmp_path / "Kvasir-SEG/val.txt").rename(tmp_path / "val.txt")  # beside the set
    assert len(_scan("kvasir-seg", tmp_path)) == 19
    (tmp_path / "val.txt").unlink()
    _refused("kvasir-seg", tmp_path, "segmentation", "expected val.txt", "DebeshJha")


def test_a_binary_mask_of_one_bit_is_read(tmp_path: Path) -> None:
    square = np.zeros((8, 8), bool)
    square[2:5, 3:6] = True
    for mode in ("1", "L", "RGB"):
        Image.fromarray(square).convert(mode).save(tmp_path / "mask.png")
        np.testing.assert_array_equal(bright(tmp_path / "mask.png")[..., 0], square)


def test_endovis18s_masks_are_corrected_where_the_corrections_are(tmp_path: Path) -> None:
    nested = tmp_path / "miccai_challenge_2018_release_1"  # its archive unpacked into a folder of its name
    disk.endovis18(nested, (1, 2, 3, 4))
    disk.frame(tmp_path / "__MACOSX/miccai_challenge_2018_release_1/seq_9/left_frames/frame000.png")
    config = DataConfig.model_validate({"source": "set", "set": "endovis18/scene", "path": tmp_path})

    def masks() -> tuple[dict[str, str], str]:
        scan = scan_source(config, 0, "segmentation")
        return {Path(str(one.file)).parts[-3]: str(one.mask) for one in scan.accept()[1]}, " ".join(scan.notes)

    before, notes = masks()
    assert sorted(before) == ["seq_1", "seq_2", "seq_3", "seq_4"]
    assert "0 of the challenge's 7 corrected masks" in notes
    disk.frame(tmp_path / "repairs/seq_1_frame001.png")
    after, notes = masks()
    assert after == before | {"seq_1": "repairs/seq_1_frame001.png"}
    assert "1 of the challenge's 7" in notes
