"""The process around a run: no library reaches the network."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from saadi.config import RunConfig
from saadi.runtime import precision_of

CODE = "import saadi.pipeline, huggingface_hub.constants as hub; print(hub.HF_HUB_OFFLINE)"


@pytest.mark.parametrize(("asked", "offline"), [(None, "True"), ("0", "False")])
def test_the_hub_is_offline_unless_the_user_says_otherwise(asked: str | None, offline: str) -> None:
    """It reads its switch when it is imported: setting it later would do nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {} if asked is None else {"HF_HUB_OFFLINE": asked}
    told = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == offline


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_that_would_emulate_bf16_computes_in_fp16(
    has_bf16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has_bf16
    )
    assert precision_of(RunConfig()) == expected
