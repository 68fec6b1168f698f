"""Samples appear whole or not at all, and what a run's status says of what was not measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Command
from numpy.typing import NDArray

from saadi import inspection
from saadi.config import RunConfig
from saadi.configfile import dump_config, parse_config
from saadi.data.stages import read_data
from saadi.diffusion.painting import Painter
from saadi.errors import BadInput, Interrupted
from saadi.inspection import render_status, run_status, sample_run
from saadi.records import Frame, Sample, write_records

CONFIG = parse_config({"rounds": 2, "sampling": {"batch": 4}, "threads": 1}, "a test")


class Eyes:
    """The brightness of an image, as a feature."""

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        brightness: NDArray[np.float64] = images.reshape(len(images), -1).mean(1, keepdims=True)
        return brightness


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run as far as its first adapter, whose model draws 8 x 8 images as bright as their number, over and over."""
    run = tmp_path / "run"
    for stage in ("base", "round-1/adapter", "data"):
        (run / stage).mkdir(parents=True)
        (run / stage / "manifest.json").write_text('{"key": {"inputs": {}}, "outputs": {}, "seconds": 1.0}')
    (run / "config.yaml").write_text(dump_config(CONFIG))
    (run / "data/space.json").write_text('{"names": ["hook", "a/b"], "background": false, "notes": []}')
    write_records(run / "data/frames.jsonl", [Frame("0.png", ("hook",), "p", "train")])
    np.save(run / "data/images.npy", np.full((1, 8, 8, 3), 2, np.uint8))
    drawn = iter(range(1000))

    def paint(samples: list[Sample]) -> tuple[NDArray[np.uint8], None]:
        return np.stack([np.full((8, 8, 3), next(drawn) % 8, np.uint8) for _ in samples]), None

    painter = SimpleNamespace(train=read_data(run / "data"), paint=paint)
    monkeypatch.setattr(Painter, "open", lambda *_: painter)
    monkeypatch.setattr(inspection, "open_led", lambda *_: painter)
    monkeypatch.setattr(inspection, "load_embedder", lambda folder: Eyes())
    return run


def measured(run: Path, threshold: float) -> None:
    """Let the run's images be measured."""
    (run / "evaluation/images").mkdir(parents=True)
    (run / "evaluation/images/images.json").write_text(json.dumps({"copy_threshold": threshold}))


def never(*_: Any, **__: Any) -> Any:
    """In place of what a refused command must not do."""
    raise AssertionError("drawn before it was refused")


def test_the_aligned_model_is_led_and_the_unaligned_is_not(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, list[str]]] = []
    painter = Painter.open(run, CONFIG, [])

    def opens(kind: str) -> Callable[..., Painter]:
        def open_(root: Path, config: RunConfig, adapters: list[str]) -> Painter:
            opened.append((kind, list(adapters)))
            return painter

        return open_

    monkeypatch.setattr(Painter, "open", opens("plain"))
    monkeypatch.setattr(inspection, "open_led", opens("led"))
    for round_ in (0, 1):
        sample_run(run, "hook", tmp_path / f"out-{round_}", 1, round_, 0, True)
    assert opened == [("plain", []), ("led", ["round-1/adapter"])]


def test_near_copies_are_held_back_and_replaced(run: Path, tmp_path: Path) -> None:
    measured(run, 1.5)
    facts = sample_run(run, "a/b", tmp_path / "out", 6, None, 0, False)
    # Of 0 .. 7, 0 .. 3 the images at 1, 2 and 3 are nearer to the training image, at 2, than 1.5.
    assert facts == {
        "written": 6, "asked": 6, "held_back": 6, "keeps_copies": False, "round": 1, "class": "a/b", "seed": 0,
        "out": str(tmp_path / "out"),
    }  # fmt: skip
    card = (tmp_path / "out/README.md").read_text()
    assert "6 of 12 images were held back" in card
    names = [f"images/a-b-{i:05d}.png" for i in range(6)]
    rows = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    assert rows == [{"file_name": name, "label": "a/b"} for name in names]
    table = (tmp_path / "out/labels.csv").read_text().splitlines()
    assert table == ["file,label,group,split", *(f"{name},a/b,synthetic-round-1,train" for name in names)]
    assert all((tmp_path / "out" / name).is_file() for name in names)


def test_fewer_than_asked_is_said_and_none_is_refused(run: Path, tmp_path: Path, saadi: Command) -> None:
    """Of 0 .. 7, over and over, 7 alone is farther than 4.5 from the training image, at 2."""
    measured(run, 4.5)
    out = tmp_path / "out"
    said = saadi("sample", run, "--class", "hook", "-n", "6", "--out", out).out
    assert said.startswith("3 of 6 images of hook (round 1) in ")
    (run / "evaluation/images/images.json").write_text(json.dumps({"copy_threshold": 5.5}))
    refused = saadi("sample", run, "--class", "hook", "-n", "6", "--out", tmp_path / "none")
    refused.refused("--class hook: all 24 drawn were near-copies", "--keep-copies", "--seed")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}


def test_copies_are_kept_where_asked_in_a_run_that_is_not_measured(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not measured yet.*--keep-copies"):
        sample_run(run, "hook", tmp_path / "out", 3, None, 0, False)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    facts = sample_run(run, "hook", tmp_path / "out", 3, None, 0, True)
    assert (facts["written"], facts["held_back"]) == (3, 0)
    assert "were **not** held back" in (tmp_path / "out/README.md").read_text()


def test_what_cannot_be_written_is_refused_before_anything_is_drawn(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Painter, "open", never)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").touch()
    for name in ("full", "full/a.txt"):
        with pytest.raises(BadInput, match=f"{name}: is there already; nothing is overwritten"):
            sample_run(run, "hook", tmp_path / name, 3, None, 0, True)
    with pytest.raises(BadInput, match="there is no folder"):
        sample_run(run, "hook", tmp_path / "nowhere/out", 3, None, 0, True)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "full"}


@pytest.mark.parametrize("there", [False, True])
def test_a_partial_folder_is_swept_away_and_an_empty_one_filled_in_its_place(
    there: bool, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    left = (out if there else tmp_path) / ".out.partial/images"
    left.mkdir(parents=True)
    (left / "old.png").touch()
    before = out.stat().st_ino if there else None
    sample_run(run, "hook", out, 3, None, 0, True)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
    assert {path.name for path in out.iterdir()} == {"images", "labels.csv", "metadata.jsonl", "README.md"}
    assert len(list((out / "images").iterdir())) == 3
    assert before in (None, out.stat().st_ino)  # a mount point could not be replaced


@pytest.mark.parametrize("at", ["inspection.conditions_of", "export.save_png", "export.write_atomic"])
def test_an_interrupted_sample_leaves_nothing(
    at: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        assert not (tmp_path / "out").exists()
        raise Interrupted

    monkeypatch.setattr(f"saadi.{at}", stop)
    with pytest.raises(Interrupted):
        sample_run(run, "hook", tmp_path / "out", 3, None, 0, True)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_damaged_results_are_named(run: Path) -> None:
    (run / "results.json").write_text('{"split": ')
    with pytest.raises(BadInput, match=r"results.json: not valid JSON"):
        run_status(run)


def test_a_status_says_what_was_not_measured(run: Path) -> None:
    gains = {"round-1 - real": {"mean": 0.041, "ci95": [0.012, 0.07]}, "b": {"mean": None, "ci95": [None, None]}}
    (run / "results.json").write_text(json.dumps({"split": "val", "gains": gains}))
    lines = render_status(run_status(run)).splitlines()
    assert lines[-3] == "gains on val, in points (95 % interval):"
    assert lines[-2].split(maxsplit=3)[-1] == "+4.1 (1.2 to 7.0)"
    assert lines[-1].split(maxsplit=1)[-1] == "not measured"
