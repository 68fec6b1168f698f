"""Several processes share a run: the same samples, the same gradients, one that writes, and a killed one resumes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from conftest import Command, Finished, read_json, write_config
from safetensors.torch import load_file
from team_member import DUTIES

from saadi.files import file_digest
from saadi.manifests import MANIFEST
from saadi.team import Team, join_team

PATIENCE = 300.0
SMALL: dict[str, Any] = {
    "rounds": 1,
    "base": {"steps": 4, "batch": 2},
    "alignment": {"steps": 2, "pairs": 2, "bank": 1, "anchors": 2},
    "evaluation": {
        "classifier": {"steps": 2, "batch": 8}, "drawn": 1, "seeds": 1, "synthetic": 8, "mixing": [0.5], "bootstrap": 9,
    },
}  # fmt: skip
"""For a run that is begun twice, by processes that each import everything."""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _torchrun(processes: int, *command: str) -> subprocess.Popen[str]:
    """Start `saadi` in several processes of one thread that know each other."""
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1",
        "--master-port", str(_free_port()), "-m", "saadi",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [*launcher, *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _done(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


def _member(environment: dict[str, str], task: str, place: Path) -> None:
    os.environ.update(environment)
    DUTIES[task](join_team(cpu=True), place)


def _together(processes: int, task: str, place: Path) -> None:
    """Have several processes do one of `DUTIES`. They are told of each other as torchrun tells them; the fork server
    imports everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saadi.pipeline", "team_member"])
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    members = [
        context.Process(target=_member, args=({**shared, "RANK": str(k), "LOCAL_RANK": str(k)}, task, place))
        for k in range(processes)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join(PATIENCE)
        member.kill()
    assert [member.exitcode for member in members] == [0] * processes


def _begun(finished: Finished, place: Path) -> Path:
    """A copy of the finished run with nothing but data, base model and critic."""
    folder = finished.copy(place)
    for entry in folder.iterdir():
        if entry.name not in {"config.yaml", "data", "base", "critic"}:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return folder


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_draw_and_judge_what_one_does(processes: int, finished: Finished, tmp_path: Path) -> None:
    folder = _begun(finished, tmp_path)
    _together(processes, "draw", folder)
    for stage in ("samples", "scores"):
        alone, shared = (read_json(place / f"round-1/{stage}" / MANIFEST) for place in (finished.folder, folder))
        assert len(alone["outputs"]) == (49 if stage == "samples" else 1)
        assert shared["outputs"] == alone["outputs"]
        assert (alone["processes"], shared["processes"]) == (1, processes)


def test_several_processes_learn_what_one_does_with_the_same_batch(tmp_path: Path) -> None:
    """Six images and three pairs a step: shares of 3 and 3, of 1 and 2; of 2, 2 and 2, of 1, 1 and 1."""
    found = []
    for processes in (1, 2, 3):
        out = tmp_path / f"{processes}.safetensors"
        _together(processes, "learn", out)
        found.append(load_file(out))
    moved = 0.0
    for name, alone in found[0].items():
        for shared in found[1:]:
            torch.testing.assert_close(shared[name], alone, rtol=2e-4, atol=2e-5)
        if "lora_B" in name:
            moved = max(moved, float(alone.abs().max()))
    assert moved > 1e-3


def test_a_killed_process_ends_the_run_and_the_same_command_resumes(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", write_config(tmp_path / "small.yaml", **SMALL)
    command = ("run", str(config), "--out", str(folder), "--final", "--json")
    process = _torchrun(2, *command)
    until = time.monotonic() + PATIENCE
    while not any(folder.glob("round-1/samples/*.png")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.01)
    members = psutil.Process(process.pid).children()
    assert len(members) == 2
    members[1].send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert not psutil.wait_procs(members, timeout=30)[1]
    base = file_digest(folder / "base" / MANIFEST)
    out = _done(_torchrun(2, *command))
    assert file_digest(folder / "base" / MANIFEST) == base  # not made again
    assert out.count('"schema"') == 1  # one of them writes
    results = read_json(folder / "results.json")
    assert list(results["arms"]) == [
        *("real", "real-pretrained", "unaligned", "feedback", "rejection", "winners", "round-1", "unled"),
    ]
    assert (folder / "report.html").is_file()
    assert not (folder / ".parts").exists()
    assert not list(folder.rglob("judged"))


def test_a_process_that_was_told_of_others_and_finds_none_is_refused(
    saadi: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    saadi("run", tiny, "--out", tmp_path / "run").refused("LOCAL_RANK", "torchrun")
    assert not (tmp_path / "run").exists()


def test_the_processes_wait_for_one_that_works_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch would end the run ten minutes after the leader began to read a large data set."""
    asked: dict[str, Any] = {}

    def state(**named: Any) -> SimpleNamespace:
        asked.update(named)
        return SimpleNamespace(process_index=1, num_processes=2)

    monkeypatch.setattr("saadi.team.PartialState", state)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert join_team(cpu=True) == Team(1, 2)
    assert asked["timeout"] >= timedelta(days=1)


def test_the_clusters_template_starts_a_process_a_gpu_on_every_node(tmp_path: Path) -> None:
    for name, line in (("scontrol", 'printf "node7\\nnode8\\n"'), ("srun", 'echo "$OMP_NUM_THREADS" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    given = {"JOB_NODELIST": "node[7-8]", "NNODES": "2", "GPUS_ON_NODE": "4", "CPUS_PER_TASK": "16", "JOB_ID": "31"}
    template = Path(__file__).parents[2] / "configs/slurm/run.sbatch"
    done = subprocess.run(
        ["bash", str(template), "mine.yaml"], check=True, capture_output=True, text=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **{f"SLURM_{name}": value for name, value in given.items()}},
    )  # fmt: skip
    assert done.stdout.split() == [
        "4", "--kill-on-bad-exit=1", ".venv/bin/torchrun", "--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d",
        "--rdzv-id=31", "--rdzv-endpoint=node7:29500", "-m", "saadi", "run", "mine.yaml", "--final",
    ]  # fmt: skip


def test_the_leader_says_what_is_still_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared file system others may not see a file yet: with jobs of their own all would wait for ever."""
    said: list[torch.Tensor] = []
    monkeypatch.setattr(Team, "add", lambda _, votes: said.append(votes[0].clone()))
    assert Team(0, 2).lacking(["a", "b", "c"], "b".__eq__) == ["a", "c"]
    monkeypatch.setattr(Team, "add", lambda _, votes: votes[0].add_(said[0]))
    assert Team(1, 2).lacking(["a", "b", "c"], "nothing".__eq__) == ["a", "c"]
    assert Team(1, 2).lacking([], "b".__eq__) == []
