"""The command's edges: help, usage errors, and what becomes of every kind of ending."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from safetensors import SafetensorError

from saadi import inspection, pipeline
from saadi.errors import BadInput, Interrupted

COMMANDS = ("demo", "run", "check", "status", "sample", "report", "settings", "foundation")
FULL = "saadi: the disk is full (a.png); free some space, then the same command resumes"
NO_SPACE = "I/O error: No space left on device (os error 28)"  # as safetensors says it


def test_help_names_every_command(saadi: Command) -> None:
    told = saadi("--help")
    assert told.code == 0
    assert all(f"  {name}" in told.out for name in COMMANDS)
    assert saadi().out == told.out
    assert "--dry-run" in saadi("run", "--help").out


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, saadi.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BadInput("x.csv: row 3:\n too long"), 2, "saadi: x.csv: row 3: too long"),
        (Interrupted(), 3, "saadi: interrupted; the same command resumes"),
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), 2, FULL),
        (OSError(errno.EDQUOT, "Quota exceeded", "a.png"), 2, FULL),
        (
            SafetensorError(NO_SPACE),
            2,
            FULL.replace("a.png", "while writing"),
        ),
        (Exception("No space left on device (os error 28)"), 2, FULL.replace("a.png", "while writing")),  # tokenizers
        (PermissionError(errno.EACCES, "denied", "runs/a"), 2, "saadi: runs/a: no permission to write"),
    ],
)
def test_endings(
    error: BaseException, code: int, line: str, saadi: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr(inspection, "run_status", fail)
    outcome = saadi("status", tmp_path)
    assert outcome.code == code
    assert outcome.out == ""
    assert outcome.err.startswith(line)
    assert outcome.err.count("\n") == 1


def test_a_bug_shows_its_traceback(saadi: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ZeroDivisionError("a bug"), SafetensorError("header too large"), OSError(errno.EIO, "broken")):

        def fail(_: Path, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(inspection, "run_status", fail)
        with pytest.raises(type(error)):
            saadi("status", tmp_path)


def test_a_report_says_where_the_page_is(saadi: Command, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("rounds: 1\n")
    page = tmp_path / "report.html"
    assert json.loads(saadi("report", tmp_path, "--json").out) == {"run": str(tmp_path), "page": str(page)}
    assert page.is_file()
    assert saadi("report", tmp_path).out == f"The page: {page}\n"


@pytest.mark.parametrize(("asked", "kept"), [((), True), (("--final",), False)])
def test_final_results_that_stay_are_said_to(
    asked: tuple[str, ...], kept: bool, saadi: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any, **__: Any) -> dict[str, Any]:
        return {"final": True, "arms": {}}

    monkeypatch.setattr(pipeline, "run", run)
    outcome = saadi("run", tiny, "--out", tmp_path / "run", "--json", *asked)
    assert json.loads(outcome.out) == {"final": True, "arms": {}}
    assert ("holds final results, read on test; they stay" in outcome.err) == kept
    assert len(outcome.err.splitlines()) == kept
