"""Progress on a terminal that is none: rates of what was done here, not of what a run that was stopped had done."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from saadi.progress import Terminal


def told(
    at: Sequence[tuple[float, int]], total: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    """The lines about a stage that begins at 0 and has done so many of `total` at some seconds."""
    clock = iter([0.0, *(seconds for seconds, _ in at)])
    with Terminal() as terminal:
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        report = terminal.begin("base")
        for _, done in at:
            report(done, total)
        monkeypatch.undo()
    return [line.strip() for line in capsys.readouterr().err.splitlines() if "left" in line]


def test_the_rate_is_of_this_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told([(1, 301), (21, 321), (41, 341)], 400, monkeypatch, capsys)  # resumed at 300, one a second
    assert lines == ["base: 321/400, 1.0/s, 0:01:19 left", "base: 341/400, 1.0/s, 0:00:59 left"]


def test_slow_pieces_are_told_in_seconds_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told([(20, 1)], 4, monkeypatch, capsys) == ["base: 1/4, 20.0 s each, 0:01:00 left"]
