"""Models by their name on the hub: what is fetched, how, and what is found once it was."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils._paths import filter_repo_objects

from saadi.configfile import parse_config
from saadi.diffusion.hub import WANTED, fetch, fetched
from saadi.diffusion.stages import start_folder
from saadi.errors import BadInput

PUBLISHED = (
    "README.md", "model_index.json", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors", "feature_extractor/config.json",
    "safety_checker/model.safetensors", "safety_checker/pytorch_model.bin", "scheduler/scheduler_config.json",
    "text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder/pytorch_model.bin",
    "text_encoder/model.fp16.safetensors", "tokenizer/merges.txt", "tokenizer/vocab.json", "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin",
)  # fmt: skip
"""What such a repository holds."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def _fetched(hub: Path) -> Path:
    """Put a model into the cache, as it is laid out there; its folder."""
    repository = hub / "models--owner--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}", encoding="utf-8")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("a" * 40, encoding="utf-8")
    return snapshot


def test_one_copy_of_each_part_is_fetched_and_no_pickle() -> None:
    kept = set(filter_repo_objects(PUBLISHED, allow_patterns=WANTED))
    assert {name for name in kept if "model." in name} == {
        "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    assert not [name for name in kept if name.endswith((".bin", ".ckpt"))]
    assert {"model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "unet/config.json"} <= kept


def test_a_run_starts_from_what_was_fetched(hub: Path) -> None:
    config = parse_config({"base": {"model": "hub:owner/name"}}, "a test")
    with pytest.raises(BadInput, match=r"hub:owner/name is not on this machine; `saadi fetch owner/name` gets it"):
        start_folder(config)
    snapshot = _fetched(hub)
    assert start_folder(config) == snapshot


def test_only_the_fetching_process_reaches_the_network(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], dict[str, Any]]] = []

    def run(command: list[str], **named: Any) -> SimpleNamespace:
        asked.append((command, named))
        return SimpleNamespace(returncode=1, stderr="Traceback ...\n  File x\nOSError: 404, no such repository\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BadInput, match=r"^owner/name: cannot be fetched: OSError: 404, no such repository$"):
        fetch("owner/name")
    ((command, named),) = asked
    assert command[-len(WANTED) - 1 :] == ["owner/name", *WANTED]
    assert "-P" in command[: command.index("-c")]  # no module of the folder it is called in is run
    assert named["env"]["HF_HUB_OFFLINE"] == "0"
    snapshot = _fetched(hub)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0, stderr=""))
    assert fetch("owner/name") == fetched("owner/name") == snapshot
