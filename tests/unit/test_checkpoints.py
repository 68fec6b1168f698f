"""A checkpoint folder as a downstream model: what it may open, and what tells it from another in its place."""

from __future__ import annotations

import json
from pathlib import Path

import timm
from timm.models import save_for_hf

from saadi.critics.architectures import architecture, contents


def test_a_checkpoint_opens_no_file_but_its_own(tmp_path: Path) -> None:
    """timm takes a path of weights, which may be a pickle, as an argument of the model's."""
    save_for_hf(timm.create_model("test_resnet", num_classes=3), tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"] = {"checkpoint_path": str(tmp_path / "weights.pth"), "drop_rate": 0.25}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "weights.pth").write_bytes(b"no checkpoint: whoever opens it fails")
    assert architecture(str(tmp_path)).build(2).drop_rate == 0.25


def test_a_checkpoints_contents_tell_it_from_another_in_its_place(tmp_path: Path) -> None:
    assert contents("small-cnn") == contents(str(tmp_path / "nowhere")) == []
    save_for_hf(timm.create_model("test_resnet", num_classes=3), tmp_path, safe_serialization=True)
    before = contents(str(tmp_path))
    assert contents(str(tmp_path)) == before
    save_for_hf(timm.create_model("test_resnet", num_classes=3), tmp_path, safe_serialization=True)
    after = contents(str(tmp_path))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]
