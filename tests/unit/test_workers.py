"""Processes that do jobs: side by side, honest about errors, gone when the parent leaves; the same jobs done here."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import SafetensorError

from saadi.config import RunConfig
from saadi.configfile import dump_config
from saadi.errors import BadInput
from saadi.workers import Context, Crew

JOBS = """
import os, time, torch
from safetensors import SafetensorError
from saadi.errors import BadInput

def double(context, out, *, n):
    print("what a library prints")
    made = context.keep("seven", n // 4, lambda: [7])
    made.append(n)
    text = f"{2 * n} {os.getpid()} {torch.get_num_threads()} {len(made)}"
    (out / f"{n}.txt").write_text(text)

def refuse(context, out):
    raise BadInput("bad job")

def fill(context, out):
    raise OSError(28, "No space left on device", str(out / "x"))

def fill_with_tensors(context, out):
    raise SafetensorError("No space left on device (os error 28)")

def stumble(context, out):
    return {}["a bug"]

def die(context, out):
    os._exit(7)

def last(context, out):
    (context.root / "pid").write_text(str(os.getpid()))
    time.sleep(1000)
"""

PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import some_jobs
from saadi import workers
from saadi.config import RunConfig
workers.crew_size = lambda config: 1
workers.Crew(Path(sys.argv[1]), RunConfig(device="cpu")).job(some_jobs.last)(Path(sys.argv[1]))
"""
PATIENCE = 120.0


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "some_jobs.py").write_text(JOBS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("some_jobs")


def crew_of(threads: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    config = RunConfig(device="cpu")
    (root / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    return Crew(root, config)


@pytest.fixture
def pair(tmp_path: Path, jobs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    crew = crew_of(2, tmp_path, monkeypatch)
    yield crew
    crew.leave()


def test_jobs_are_done_by_as_many_processes_of_one_thread_as_there_are_threads(
    pair: Crew, jobs: ModuleType, tmp_path: Path
) -> None:
    for fetch in [pair.job(jobs.double, n=n) for n in range(8)]:
        fetch(tmp_path)
    rows = [(tmp_path / f"{n}.txt").read_text().split() for n in range(8)]
    assert [int(row[0]) for row in rows] == [2 * n for n in range(8)]
    assert {row[2] for row in rows} == {"1"}
    processes = {int(row[1]) for row in rows}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert pair.peak_memory > 2e7
    pair.leave()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    assert not (tmp_path / ".parts").exists()


def test_with_one_thread_a_job_is_done_here_when_it_is_fetched(
    tmp_path: Path, jobs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = crew_of(1, tmp_path, monkeypatch)
    fetch = crew.job(jobs.double, n=3)
    assert not (tmp_path / "3.txt").exists()
    fetch(tmp_path)
    assert (tmp_path / "3.txt").read_text().split()[:2] == ["6", str(os.getpid())]


def test_files_that_are_wanted_for_a_moment_leave_nothing(pair: Crew, jobs: ModuleType, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    for n in (1, 2):
        fetch = pair.own_job(jobs.double, n=n)
        with pair.place() as place:
            fetch(place)
            assert (place / f"{n}.txt").read_text().startswith(f"{2 * n} ")
    assert set(tmp_path.rglob("*")) - before <= {tmp_path / ".parts"}


def test_a_context_keeps_the_last_of_each_name(tmp_path: Path) -> None:
    context = Context(tmp_path, RunConfig())
    made: list[None] = []

    def make() -> int:
        made.append(None)
        return len(made)

    assert [context.keep("a", key, make) for key in (1, 1, 2, 1)] == [1, 1, 2, 3]
    assert context.keep("b", 1, make) == 4
    assert context.keep("a", 1, make) == 3


def test_bad_input_is_raised_here_and_the_worker_goes_on(pair: Crew, jobs: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="bad job"):
        pair.job(jobs.refuse)(tmp_path)
    pair.job(jobs.double, n=4)(tmp_path)
    assert (tmp_path / "4.txt").read_text().startswith("8 ")


def test_a_process_that_dies_is_named(pair: Crew, jobs: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"exit code 7.*same command resumes"):
        pair.job(jobs.die)(tmp_path)


def test_what_a_job_raises_is_raised_here(pair: Crew, jobs: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as full:
        pair.job(jobs.fill)(tmp_path)
    assert full.value.errno == 28
    assert str(full.value.filename).endswith("/x")
    with pytest.raises(SafetensorError, match="os error 28"):
        pair.job(jobs.fill_with_tensors)(tmp_path)
    with pytest.raises(RuntimeError, match=r"in stumble[^$]*KeyError: 'a bug'"):
        pair.job(jobs.stumble)(tmp_path)


def test_what_a_killed_crew_left_is_no_hindrance(
    tmp_path: Path, jobs: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / ".parts/old-0"
    stale.mkdir(parents=True)
    crew = crew_of(2, tmp_path, monkeypatch)
    assert not stale.exists()
    crew.job(jobs.double, n=1)(tmp_path)
    crew.leave()


def test_a_crew_can_be_left_while_its_processes_start(pair: Crew, jobs: ModuleType) -> None:
    for _ in range(4):
        pair.job(jobs.last)
    pair.leave()
    assert all(process.poll() is not None for process in pair._processes)


def test_a_worker_is_gone_when_its_parent_is_killed(tmp_path: Path, jobs: ModuleType) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(RunConfig(device="cpu")), encoding="utf-8")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)])
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert parent.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    os.kill(worker, 0)
    parent.kill()
    parent.wait()
    while _is_running(worker):
        assert time.monotonic() < until
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    """Whether it does anything still: one whose parent has not asked for its end is there, but a zombie."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status
