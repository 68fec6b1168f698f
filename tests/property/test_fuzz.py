"""Whatever bytes a file holds, a command ends well or with one line: no traceback, no hang."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TINY, Outcome, call, write_config, write_table
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from saadi.data.classes import ClassTable
from saadi.data.images import open_rgb
from saadi.data.masks import read_mask
from saadi.errors import BadInput

QUICK = settings(max_examples=40, deadline=None, derandomize=True)

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=20), st.just("a\0b"),
    st.sampled_from(["~", "../..", "hub:x/y", "cuda", "{label}", "{label", "{0}", "tiny", "é\u202e", "x" * 5000]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def ended_well(outcome: Outcome) -> None:
    """Exit code 0; or 2, with one line or, of `check`, with all it found."""
    if outcome.code and not outcome.out:
        outcome.refused()
    assert outcome.code in (0, 2)
    assert "Traceback" not in outcome.out + outcome.err


def sections(values: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where a nested mapping holds something."""
    found = []
    for key, value in values.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += sections(value, (*path, key))
    return found


# What a run of any size may ask for is no matter of parsing: these numbers stay as they are.
PLACES = [place for place in sections(yaml.safe_load(TINY)) if place[-1] not in ("train", "val", "test", "size")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@QUICK
@given(data=st.data())
def test_configs_with_any_value_in_any_place(data: st.DataObject, place: Path) -> None:
    values = yaml.safe_load(TINY)
    *parents, last = data.draw(st.sampled_from(PLACES))
    at = values
    for parent in parents:
        at = at[parent]
    at[last] = data.draw(VALUES)
    (place / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    ended_well(call("run", place / "config.yaml", "--out", place / "run", "--dry-run"))
    assert not (place / "run").exists()


@settings(QUICK, max_examples=60)
@given(st.one_of(st.binary(max_size=200), st.text("{}[]!&*<>|:-? \n\"'#%@`=~0x.eabt", max_size=60).map(str.encode)))
def test_configs_of_any_bytes(place: Path, found: bytes) -> None:
    (place / "config.yaml").write_bytes(found)
    ended_well(call("check", place / "config.yaml", "--set", "data.source=table", "--set", "data.path=nowhere"))


@pytest.fixture(scope="module")
def config(place: Path) -> Path:
    write_table(place / "table")
    shutil.copy(place / "table/labels.csv", place / "labels.csv")
    return write_config(place / "table.yaml", data={"source": "table", "path": "table", "size": 32})


def spoilt(draw: Any, whole: bytes) -> bytes:
    """Some bytes changed, left out, or put in between."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole)))
        end = min(len(whole), start + draw(st.integers(0, 40)))
        whole = whole[:start] + draw(st.binary(max_size=40)) + whole[end:]
    return whole


@settings(QUICK, max_examples=25)
@given(data=st.data())
def test_tables_of_any_bytes(data: st.DataObject, place: Path, config: Path) -> None:
    text = spoilt(data.draw, (place / "labels.csv").read_bytes())
    if data.draw(st.booleans()):  # of cells that are text
        cells = ["=1+1", "../x.png", "/etc/passwd", '"', "a,b", "\u202e", "-", "x" * 300, "images/", "\0"]
        old, new = data.draw(st.sampled_from(["hook", "P1", "train", "images/"])), data.draw(st.sampled_from(cells))
        text = (place / "labels.csv").read_bytes().replace(old.encode(), new.encode(), 3)
    (place / "table/labels.csv").write_bytes(text)
    ended_well(call("check", config))


def encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def said(read: Callable[[Path], object], path: Path) -> str:
    """What is said of a file that cannot be read; of one that can, its name."""
    try:
        read(path)
    except BadInput as error:
        return str(error)
    return str(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@settings(QUICK, max_examples=100)
@given(data=st.data())
def test_images_of_any_bytes(data: st.DataObject, kind: str, place: Path) -> None:
    whole = encoded(kind)
    path = place / f"image.{kind.lower()}"
    path.write_bytes(spoilt(data.draw, whole))
    table = ClassTable(("background", "tool"), {0: 0, 1: 1})
    for read in (open_rgb, lambda path: read_mask(path, table, 32, "pad")):
        assert str(path) in said(read, path)
