"""labels.csv: what is tolerated, and one clear line for each thing that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import pytest

from saadi.data.load import scan_source
from saadi.data.table import scan_table
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig
from saadi.records import Frame

Form = Literal["NFC", "NFD"]
HEADER = "file,label,group,split"
ROWS = (
    "images/0.png,hook,P1,train",
    "images/1.png,clip,P1,train",
    "images/2.png,hook,P2,val",
    "images/3.png,clip,P3,test",
)


def _write(folder: Path, *lines: str, files: int = 4) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    for i in range(files):
        (folder / "images" / f"{i}.png").touch()
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _refused(folder: Path, *words: str) -> None:
    with pytest.raises(BadInput) as caught:
        scan_table(folder, "classification").accept()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_good_table(tmp_path: Path) -> None:
    space, frames = scan_table(_write(tmp_path, HEADER, *ROWS), "classification").accept()
    assert space.names == ("clip", "hook")
    assert frames[2] == Frame("images/2.png", ("hook",), "P2", "val")
    assert len(frames) == 4


def test_bom_crlf_blanks_and_further_columns_are_tolerated(tmp_path: Path) -> None:
    _write(tmp_path)
    lines = [
        "\ufeffnote, split,group ,label,file",
        *(", ".join(["x", *reversed(row.split(","))]) for row in ROWS),
        "",
        ",,,,",
    ]
    (tmp_path / "labels.csv").write_bytes("\r\n".join(lines).encode())
    space, frames = scan_table(tmp_path, "classification").accept()
    assert space.names == ("clip", "hook")
    assert [frame.file for frame in frames] == [row.split(",")[0] for row in ROWS]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", deny)
    _refused(_write(tmp_path, HEADER, *ROWS), str(tmp_path), "cannot be read (Permission denied)", "data.path")


def test_missing_folder_table_and_columns(tmp_path: Path) -> None:
    _refused(tmp_path / "absent", "absent", "data.path")
    (tmp_path / "file").touch()
    _refused(tmp_path / "file", "not a folder")
    _refused(tmp_path, "labels.csv", "no such file")
    _refused(_write(tmp_path, "file;label;group;split"), "column file, label, group, split", "file;label;group;split")
    _refused(_write(tmp_path, "file\tlabel\tgroup\tsplit"), "column file, label, group, split", "with commas between")
    _refused(_write(tmp_path, "file,label,split", "a,b,train"), "column group is missing", "file, label, split")
    _refused(_write(tmp_path, "file,label,label,group,split"), "label is there twice")
    _refused(_write(tmp_path, ""), "found: nothing")
    _refused(_write(tmp_path, HEADER), "no rows")
    (tmp_path / "labels.csv").write_bytes(b"file,label\xff")
    _refused(tmp_path, "UTF-8")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("images/3.png,,P3,test", ("row 6", "label is empty")),
        ("images/3.png,clip,P3", ("row 6", "split is empty")),
        ("images/4.png,clip,P3,validation", ("row 6", "did you mean val?")),
        ("images/4.png,clip,P3,holdout", ("row 6", "train, val or test")),
        ("images/3.png,clip\x07,P3,test", ("row 6", "control characters")),
        (f"images/4.png,{'x' * 61},P3,test", ("row 6", "61 characters")),
        ("images/3.png,clip, small,P3,test", ("row 6", "5 cells")),
        ("./images/1.png,clip,P1,train", ("row 6", "images/1.png is listed in row 3")),
        ("../other.png,clip,P3,test", ("row 6", "outside the data folder")),
        ("images\\4.png,clip,P3,test", ("row 6", "images\\4.png", "1 of 5", "use / between folders")),
        ("images/7.png,clip,P3,test", ("row 6", "images/7.png", "1 of 5")),
        (f"{'x' * 300}.png,clip,P3,test", ("row 6", "1 of 5")),
    ],
)
def test_bad_rows_say_where(tmp_path: Path, row: str, words: tuple[str, ...]) -> None:
    _refused(_write(tmp_path, HEADER, *ROWS, row, files=5), *words)


@pytest.mark.parametrize(("on_disk", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_in_another_unicode_form_is_said(tmp_path: Path, on_disk: Form, listed: Form) -> None:
    """Some systems save names with accents taken apart; both forms look the same in a message."""
    name = "images/Müller.png"
    _write(tmp_path, HEADER, *ROWS, f"{normalize(listed, name)},clip,P3,test")
    (tmp_path / normalize(on_disk, name)).touch()
    if (tmp_path / normalize(listed, name)).is_file():
        pytest.skip("the file system knows both forms as one")
    _refused(tmp_path, "row 6", "1 of 5", "there is a file of that name in another Unicode form")


def test_a_scan_lists_all_problems(tmp_path: Path) -> None:
    _write(tmp_path, HEADER, *ROWS, "images/9.png,clip,P1,val", "images/3.png,hook,,train", files=4)
    scan = scan_source(DataConfig(path=tmp_path), 0, "classification")
    words = ("row 7: group is empty", "images/9.png is not in", "group P1 is in train")
    assert [word in problem for word, problem in zip(words, scan.problems, strict=True)] == [True] * 3
    assert len(scan.frames) == 4
