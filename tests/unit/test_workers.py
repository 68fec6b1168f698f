"""Processes that answer jobs: side by side, honest about errors, gone when the parent leaves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from saadi.errors import BadInput
from saadi.workers import Workers

ECHO = """
import os, sys
from saadi.errors import BadInput
from saadi.workers import serve

def work(job):
    print("what a library prints")
    if job.get("bad"):
        raise BadInput("bad job")
    if job.get("die"):
        os._exit(7)
    return {"twice": 2 * job["n"], "process": os.getpid(), "argument": sys.argv[1]}

serve(work)
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "echo_worker.py").write_text(ECHO, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "echo_worker"


def test_jobs_are_answered_by_as_many_processes_as_asked_for(echo: str) -> None:
    with Workers(echo, ["x"], 2) as workers:
        answers = [future.result() for future in [workers.submit({"n": n}) for n in range(8)]]
    assert [answer["twice"] for answer in answers] == [2 * n for n in range(8)]
    assert {answer["argument"] for answer in answers} == {"x"}
    processes = {answer["process"] for answer in answers}
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_bad_input_is_raised_here_and_the_worker_goes_on(echo: str) -> None:
    with Workers(echo, [""], 1) as workers:
        with pytest.raises(BadInput, match="bad job"):
            workers.submit({"bad": True}).result()
        assert workers.submit({"n": 4}).result()["twice"] == 8


def test_a_process_that_dies_is_named(echo: str) -> None:
    with Workers(echo, [""], 1) as workers, pytest.raises(BadInput, match=r"exit code 7.*same command resumes"):
        workers.submit({"die": True}).result()
