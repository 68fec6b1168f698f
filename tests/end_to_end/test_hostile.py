"""Data folders, names and files that mean harm. The page: `tests/unit/test_report.py`; models: `test_bad_models.py`."""

from __future__ import annotations

import csv
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import Command, write_config
from PIL import Image, PngImagePlugin

from saadi.config import RunConfig
from saadi.data.table import scan_table
from saadi.export import write_set
from saadi.records import Condition, LabelSpace, Sample

EVIL = '=HYPERLINK("http://x","<script>alert(\'1\')</script>")'
FORMULAS = (EVIL, "+1", "-1", "@SUM(A1)", "'=1", "clip")


def _config(place: Path, source: str = "table", **more: object) -> Path:
    return write_config(place / "config.yaml", data={"source": source, "path": "table", "size": 32, **more})


def _relabel(table: Path, old: str, new: str) -> None:
    path = table / "labels.csv"
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([[new if cell == old else cell for cell in row] for row in rows])


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/hostname", "images/../../secret.png", "link.png", "out/secret.png"]
)
def test_nothing_outside_the_data_folder_is_read(name: str, saadi: Command, table: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
    (table / "link.png").symlink_to(tmp_path / "secret.png")
    (table / "out").symlink_to(tmp_path)
    _relabel(table, "images/P1-hook-0.png", name)
    for command in (("check",), ("run", "--out", tmp_path / "run")):
        outcome = saadi(command[0], _config(tmp_path), *command[1:])
        assert outcome.code == 2
        assert "outside the data folder" in outcome.out + outcome.err
    assert not (tmp_path / "run").exists()


def test_class_folders_may_not_lead_elsewhere(saadi: Command, table: Path, tmp_path: Path) -> None:
    for label in ("hook", "clip"):
        (table / label).mkdir()
        for path in sorted((table / "images").glob(f"*-{label}-*")):
            path.rename(table / label / path.name)
    (table / "images").rmdir()
    config = _config(tmp_path, "folders", groups="(P[0-9])")
    assert "outside" not in saadi("check", config).out
    (table / "hook").rename(tmp_path / "elsewhere")
    (table / "hook").symlink_to(tmp_path / "elsewhere")
    saadi("run", config, "--out", tmp_path / "run").refused("outside the data folder", "hook")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(path: Path) -> None:
    """A few kilobytes that say they are 4 x 10^9 pixels."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(bytes(10**6))) + _chunk(b"IEND", b""))


def _told(path: Path) -> None:
    """Text of ten megabytes, compressed."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 10**7, zip=True)
    Image.new("RGB", (40, 30)).save(path, pnginfo=info)


@pytest.mark.parametrize("bomb", [_bomb, _told])
def test_decompression_bombs_are_refused(bomb: object, saadi: Command, table: Path, tmp_path: Path) -> None:
    assert callable(bomb)
    bomb(table / "images/P1-hook-0.png")
    saadi("run", _config(tmp_path), "--out", tmp_path / "run").refused("P1-hook-0.png")
    assert not (tmp_path / "run").exists()


def test_formulas_in_class_names_are_written_as_text_and_read_back(tmp_path: Path) -> None:
    samples = [Sample("", Condition.of(label), 1, k, "") for k, label in enumerate(FORMULAS)]
    images = [np.full((32, 32, 3), k, np.uint8) for k in range(len(samples))]
    (tmp_path / "set").mkdir()
    facts = {"round": 1, "written": 6, "held_back": 0, "keeps_copies": True, "class": EVIL, "seed": 0}
    write_set(tmp_path / "set", RunConfig(), LabelSpace(FORMULAS), samples, images, [], facts)
    with (tmp_path / "set/labels.csv").open(encoding="utf-8", newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    space, frames = scan_table(tmp_path / "set", "classification").accept()
    assert sorted(space.names) == sorted(label.removeprefix("'") for label in FORMULAS)
    assert [frame.label for frame in frames] == [label.removeprefix("'") for label in FORMULAS]


def test_the_longest_class_name_is_a_file_name(tmp_path: Path) -> None:
    label = "鉗" * 60
    write_set(
        tmp_path, RunConfig(), LabelSpace((label,)), [Sample("", Condition.of(label), 1, 0, "")],
        [np.zeros((32, 32, 3), np.uint8)], [],
        {"round": 1, "written": 1, "held_back": 0, "keeps_copies": True, "class": label, "seed": 0},
    )  # fmt: skip
    (frame,) = scan_table(tmp_path, "classification").frames
    assert frame.label == label


def test_what_a_name_bids_the_terminal_is_not_done(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    outcome = saadi("run", tmp_path / "\x1b[2J\u202egnp.yaml")
    outcome.refused("\\x1b[2J\\u202egnp.yaml", "no such file")
    assert outcome.err.strip().isprintable()
