"""Killed anywhere, the same command resumes and ends with the same results; two runs never share a folder."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from conftest import Command, Finished, read_json
from safetensors.numpy import load_file

from saadi import workers
from saadi.__main__ import main
from saadi.configfile import load_config
from saadi.files import file_digest
from saadi.manifests import MANIFEST
from saadi.store import Run

PATIENCE = 120.0
POINTS = {
    0: (
        "base/checkpoint.safetensors",
        "round-1/samples/*.png",
        "round-1/adapter/checkpoint.safetensors",
        "evaluation/sets/rejection/*.png",
        "evaluation/trainings/*/*/*/manifest.json",
    ),
    2: (".parts/*", "round-1/samples/*.png", "evaluation/trainings/*/*/*/manifest.json"),
}
"""By the crew's size, what the disk shows when a run is killed: in the midst of trainings, of drawing, of judging."""


def _command(arguments: list[str], errors: Path, crew: int) -> None:
    """The command in a process of its own, its standard error in a file."""
    with errors.open("wb") as sink:
        os.dup2(sink.fileno(), 2)
    workers.crew_size = lambda config: crew
    sys.argv = ["saadi", *arguments]
    main()


def _start(finished: Finished, folder: Path, errors: Path, crew: int = 0) -> BaseProcess:
    """Begin or resume the tiny run. The fork server imports everything once: a process is there in a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["saadi.pipeline", "saadi.report"])
    arguments = ["run", str(finished.config), "--out", str(folder), "--final"]
    process = context.Process(target=_command, args=(arguments, errors, crew))
    process.start()
    return process


def _wait_for(folder: Path, pattern: str, process: BaseProcess, errors: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not any(folder.glob(pattern)):
        assert process.is_alive(), errors.read_text(encoding="utf-8")
        assert time.monotonic() < until, f"no {pattern}"
        time.sleep(0.01)


def _mtimes(folder: Path) -> dict[str, int]:
    return {str(path.parent.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob(MANIFEST)}


def _made(folder: Path) -> dict[str, str]:
    """The hash of every weight, image, array and record; of weights the tensors, as headers come in any order."""
    hashes: dict[str, str] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            hashes |= {
                f"{name}/{key}": hashlib.sha256(tensor.tobytes()).hexdigest() for key, tensor in load_file(path).items()
            }
        elif "-final-" in name:
            continue  # results that a --redo set aside
        elif path.suffix in (".png", ".npy", ".npz", ".jsonl") and path.name not in ("log.jsonl", "test-reads.jsonl"):
            hashes[name] = file_digest(path)
    return hashes


@pytest.mark.parametrize("crew", POINTS)
def test_killed_again_and_again(crew: int, finished: Finished, tmp_path: Path) -> None:
    folder, errors, moments = tmp_path / "run", tmp_path / "errors", random.Random(0)
    for point in POINTS[crew]:
        process = _start(finished, folder, errors, crew)
        _wait_for(folder, point, process, errors)
        time.sleep(moments.uniform(0.0, 0.2))
        process.kill()
        process.join()
        assert not (folder / "results.json").exists()
    last = _start(finished, folder, errors, crew)
    last.join(PATIENCE)
    assert last.exitcode == 0, errors.read_text(encoding="utf-8")

    assert _made(folder) == _made(finished.folder)  # to the bit: the arms alone, near chance, prove little
    results = Finished(folder, finished.config).results
    for part in ("arms", "gains", "synthetic", "val_choices", "critic", "hashes"):
        assert results[part] == finished.results[part]
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {
        str(path.relative_to(finished.folder)) for path in finished.folder.rglob("*")
    }


def test_stopped_politely(finished: Finished, tmp_path: Path) -> None:
    folder, errors = tmp_path / "run", tmp_path / "errors"
    process = _start(finished, folder, errors)
    _wait_for(folder, "base/checkpoint.safetensors", process, errors)
    process.terminate()
    process.join(PATIENCE)
    assert process.exitcode == 3
    assert errors.read_text(encoding="utf-8").splitlines()[-1] == "saadi: interrupted; the same command resumes"
    assert read_json(folder / "base/.unfinished")["seconds"] > 0


def test_the_second_of_two_is_refused(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    with Run(folder, load_config(finished.config)):
        saadi("run", finished.config, "--out", folder).refused(str(folder), "another saadi")
    assert saadi("run", finished.config, "--out", folder).code == 0


def test_a_changed_config_is_refused(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    before = (folder / "config.yaml").read_bytes()
    changed = saadi("run", finished.config, "--out", folder, "--set", "alignment.beta=2.0")
    changed.refused("alignment.beta (0.1 before, 2.0 now)", "--redo")
    assert (folder / "config.yaml").read_bytes() == before


def test_redo_makes_a_stage_anew_and_what_follows(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    before = _mtimes(folder)
    outcome = saadi("run", finished.config, "--out", folder, "--final", "--redo", "round-2/pairs")
    assert outcome.code == 0, outcome.err
    after = _mtimes(folder)
    assert after.keys() == before.keys()
    anew = {name for name, at in after.items() if at != before[name]}
    trainings = {
        f"evaluation/trainings/{arm}/mix-0.5/seed-{seed}" for arm in ("round-2", "unpicked") for seed in (0, 1)
    }
    made = {"round-2/pairs", "round-2/adapter", "evaluation/sets/round-2", "evaluation/images", *trainings}
    assert anew == made
    assert _made(folder) == _made(finished.folder)
    assert Finished(folder, finished.config).results["arms"] == finished.results["arms"]


def test_jobs_side_by_side_give_what_they_give_in_turn(
    saadi: Command, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path)
    monkeypatch.setattr(workers, "crew_size", lambda config: 2)
    asked: set[str] = set()
    ask = workers.Crew._ask

    def listen(crew: workers.Crew, job: str) -> None:
        asked.add(json.loads(job)["name"])
        ask(crew, job)

    monkeypatch.setattr(workers.Crew, "_ask", listen)
    outcome = saadi("run", finished.config, "--out", folder, "--final", "--redo", "critic")
    assert outcome.code == 0, outcome.err
    assert _made(folder) == _made(finished.folder)
    assert not (folder / ".parts").exists()
    assert asked == {"fit_network", "judge", "paint", "train"}


def test_redo_of_an_unknown_stage_is_refused(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    saadi("run", finished.config, "--out", folder, "--redo", "round-3/pairs").refused("round-3/pairs", "round-2/pairs")


@pytest.mark.parametrize("file", ["base/log.jsonl", "round-1/samples/00-00000.png"])
def test_files_changed_behind_its_back_are_named(file: str, saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    with (folder / file).open("ab") as handle:
        handle.write(b"\n")
    saadi("run", finished.config, "--out", folder).refused(file, "was changed", "--redo")
    (folder / file).unlink()
    saadi("run", finished.config, "--out", folder).refused(file, "is missing", "--redo")
