"""Stage 0 in a run's folder: what is kept, and that a phantom of other code is another input."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from saadi.config import RunConfig
from saadi.data import stages
from saadi.data.stages import PHANTOM_CODE, phantom_code, prepare_data, read_data
from saadi.errors import BadInput
from saadi.imageconfig import DataConfig, PhantomConfig
from saadi.store import Run

SOURCE = Path(stages.__file__).parents[1]
PHANTOM = RunConfig(
    data=DataConfig(source="phantom", phantom=PhantomConfig(train=16, val=8, test=8, patients=(2, 1, 1)), size=32)
)


def _prepare(folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Run(folder, PHANTOM) as run:
        return np.array(prepare_data(run).images)


def test_the_images_are_kept_and_mapped(tmp_path: Path) -> None:
    images = _prepare(tmp_path / "run")
    assert images.shape == (32, 32, 32, 3)
    kept = read_data(tmp_path / "run/data")
    assert isinstance(kept.images, np.memmap)
    np.testing.assert_array_equal(kept.images, images)
    assert len(kept.frames) == 32


def test_masks_are_kept_and_mapped(tmp_path: Path) -> None:
    with Run(tmp_path / "run", PHANTOM.model_copy(update={"task": "segmentation"})) as run:
        data = prepare_data(run)
    kept = read_data(tmp_path / "run/data")
    assert isinstance(kept.masks, np.memmap)
    assert kept.masks.shape == (32, 32, 32)
    assert (kept.space, kept.frames) == (data.space, data.frames)
    assert kept.space.background
    assert kept.frames[0].mask == "masks/train/000000.png"


def test_another_task_is_another_input(tmp_path: Path) -> None:
    _prepare(tmp_path / "run")
    assert read_data(tmp_path / "run/data").masks is None
    config = PHANTOM.model_copy(update={"task": "presence"})
    with pytest.raises(BadInput, match=r"task \(classification before, presence now\)"):
        Run(tmp_path / "run", config).__enter__()


def test_a_phantom_of_other_code_is_another_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _prepare(tmp_path / "run")
    _prepare(tmp_path / "run")
    monkeypatch.setattr(stages, "phantom_code", lambda: "other")
    with pytest.raises(BadInput, match=r"made from other inputs; --redo data"):
        _prepare(tmp_path / "run")


def test_the_fingerprint_is_of_all_that_renders_the_phantom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PHANTOM_CODE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (SOURCE / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert {f"worlds/{module}.py" for module in re.findall(r"saadi\.worlds\.(\w+)", text)} <= set(PHANTOM_CODE)
    before = phantom_code()
    monkeypatch.setattr(stages, "files", lambda _: tmp_path)
    assert phantom_code() == before
    for name in PHANTOM_CODE:
        text = (tmp_path / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("0.5", "0.6") + "#", encoding="utf-8")
        assert phantom_code() != before
        (tmp_path / name).write_text(text, encoding="utf-8")
