"""A run's folder: what is skipped, what is made anew, what is refused, and what a kill leaves."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from small_run import CONFIG, chain, writes

from saadi.config import RunConfig
from saadi.configfile import differences
from saadi.errors import BadInput, Interrupted
from saadi.files import UNFINISHED, digest, file_digest, save_array
from saadi.manifests import MANIFEST, read_manifests
from saadi.store import Run
from saadi.training import Progress


def test_digests_depend_on_values_alone(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest(None) == "74234e98afe7498f"  # of "null", for all time: a folder must outlive this process
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "array",
    [np.arange(600_000, dtype=np.uint8).reshape(2, 300, -1), np.zeros((0, 4, 3), np.uint8), np.eye(7)[:, ::2].T],
    ids=["large", "empty", "not contiguous"],
)
def test_an_array_is_written_as_numpy_writes_it(array: NDArray[Any], tmp_path: Path) -> None:
    save_array(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.ascontiguousarray(array))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_an_array_that_finds_no_room_says_why_and_leaves_the_old_one(tmp_path: Path) -> None:
    """A limit on the size of files is the disk that fills up; it is EFBIG where that is ENOSPC."""
    save_array(tmp_path / "a.npy", np.zeros(3))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match="large") as failed:
            save_array(tmp_path / "a.npy", np.zeros(1_000_000, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert failed.value.errno == errno.EFBIG
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.zeros(3))


def test_differences_name_the_setting() -> None:
    old, new = {"a": {"b": 1, "c": 2}, "gone": 3}, {"a": {"b": 1, "c": 5}, "new": [4]}
    found = ["a.c (2 before, 5 now)", "gone (3 before, None now)", "new (None before, [4] now)"]
    assert differences(old, new) == found
    assert differences(old, old) == []


def test_a_manifest_says_what_was_made_and_from_what(tmp_path: Path) -> None:
    chain(tmp_path / "run", [])
    manifests = read_manifests(tmp_path / "run")
    assert list(manifests) == ["a", "b", "c/d"]  # in the order they were finished
    b = manifests["b"]
    assert b["outputs"] == {"out.txt": file_digest(tmp_path / "run/b/out.txt")}
    assert b["key"] == {"settings": digest(0), "inputs": {"a": digest(manifests["a"]["outputs"])}}
    assert b["seed"] == 0
    assert b["seconds"] >= 0
    assert b["versions"]["torch"]
    assert not list((tmp_path / "run").rglob(UNFINISHED))


def test_a_finished_stage_is_skipped(tmp_path: Path) -> None:
    calls: list[str] = []
    chain(tmp_path / "run", calls)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob(MANIFEST)}
    chain(tmp_path / "run", calls)
    assert calls == ["a", "b", "c/d"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob(MANIFEST)} == before


@pytest.mark.parametrize("final", [False, True])
def test_what_tells_of_a_forgotten_stage_goes_and_final_results_are_kept_aside(final: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chain(folder, [])
    (folder / "evaluation").mkdir()
    products = ("results.json", "report.html", "evaluation/predictions-test.npz")
    told = [json.dumps({"final": final, "time": time}) for time in (1, 2)]
    for text in told:
        for name in products:
            (folder / name).write_text(text, encoding="utf-8")
        chain(folder, [])  # nothing to do, nothing forgotten
        assert all((folder / name).exists() for name in products)
        with pytest.raises(Interrupted):
            chain(folder, [], "c/d", fail="c/d")
        assert not any((folder / name).exists() for name in products[:2])
        chain(folder, [])
    kept = {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*-final-*")}
    names = ("results-final-{}.json", "evaluation/predictions-final-{}.npz") if final else ()
    assert kept == {name.format(i): text for i, text in enumerate(told, 1) for name in names}


def test_other_settings_of_a_finished_stage_are_refused(tmp_path: Path) -> None:
    calls: list[str] = []
    chain(tmp_path / "run", calls)
    with pytest.raises(BadInput, match="made from other inputs; --redo b"):
        chain(tmp_path / "run", calls, settings=1)
    chain(tmp_path / "run", calls, "b", settings=1)
    assert calls == ["a", "b", "c/d", "b", "c/d"]


@pytest.mark.parametrize(("settings", "kept"), [(0, ["made"]), (1, [])])
def test_an_unfinished_stage_keeps_its_files_for_the_same_key_only(
    settings: int, kept: list[str], tmp_path: Path
) -> None:
    found: list[str] = []

    def begin(folder: Path, progress: Progress) -> None:
        (folder / "made").touch()
        raise Interrupted

    def resume(folder: Path, progress: Progress) -> None:
        found.extend(path.name for path in folder.iterdir() if path.name != UNFINISHED)

    with pytest.raises(Interrupted), Run(tmp_path / "run", CONFIG) as run:
        run.stage("a", begin, settings=0)
    assert json.loads((tmp_path / "run/a" / UNFINISHED).read_text(encoding="utf-8"))["seconds"] > 0
    with Run(tmp_path / "run", CONFIG) as run:
        run.stage("a", resume, settings=settings)
    assert found == kept


def test_half_written_files_are_swept_up(tmp_path: Path) -> None:
    def make(folder: Path, progress: Progress) -> None:
        (folder / "deep").mkdir()
        for name in ("manifest.json.partial", "deep/image.png.partial", "deep/.tmpA1b2C3", "deep/image.png"):
            (folder / name).touch()

    with Run(tmp_path / "run", CONFIG) as run:
        folder = run.stage("a", make)
    assert list(read_manifests(tmp_path / "run")["a"]["outputs"]) == ["deep/image.png"]
    assert sorted(path.name for path in folder.rglob("*")) == ["deep", "image.png", MANIFEST]


@pytest.mark.parametrize(("spoil", "word"), [(Path.unlink, "missing"), (Path.touch, ""), (None, "changed")])
def test_outputs_are_verified(spoil: Callable[[Path], None] | None, word: str, tmp_path: Path) -> None:
    chain(tmp_path / "run", [])
    file = tmp_path / "run/a/out.txt"
    if spoil is None:
        file.write_text("forged", encoding="utf-8")
    else:
        spoil(file)
    if not word:  # a new time is no change
        chain(tmp_path / "run", [])
        return
    with pytest.raises(BadInput, match=rf"a/out\.txt: .*{word}.*--redo a"):
        chain(tmp_path / "run", [])
    calls: list[str] = []
    chain(tmp_path / "run", calls, "a")
    assert calls == ["a", "b", "c/d"]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Run(tmp_path / "run", CONFIG), pytest.raises(BadInput, match="another saadi"), Run(tmp_path / "run", CONFIG):
        raise AssertionError
    with Run(tmp_path / "run", CONFIG) as run:
        assert run.folder.is_dir()


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    chain(tmp_path / "run", [])
    other = RunConfig(seed=1, rounds=3)
    with (
        pytest.raises(BadInput, match=r"seed \(0 before, 1 now\); rounds \(2 before, 3 now\)"),
        Run(tmp_path / "run", other),
    ):
        raise AssertionError
    with Run(tmp_path / "run", other, redo=["a"]):
        assert "rounds: 3" in (tmp_path / "run/config.yaml").read_text(encoding="utf-8")


def test_a_file_system_without_locks_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(BadInput, match=r"its file system keeps no locks \(No locks available\)"):
        Run(tmp_path / "run", CONFIG).__enter__()


def test_where_a_run_is_computed_may_change(tmp_path: Path) -> None:
    """Out of memory in stage 1: nobody should have to give up its checkpoint to compute in less."""
    with Run(tmp_path / "run", CONFIG):
        pass
    compute = CONFIG.compute.model_copy(update={"micro": 2, "checkpointing": True})
    other = CONFIG.model_copy(update={"compute": compute, "device": "cpu", "tracking": ("tensorboard",)})
    with Run(tmp_path / "run", other):
        assert "micro: 2" in (tmp_path / "run/config.yaml").read_text(encoding="utf-8")


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("- mine\n", encoding="utf-8")
    with pytest.raises(BadInput, match="another configuration"), Run(tmp_path, CONFIG):
        raise AssertionError
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "- mine\n"
    (tmp_path / ".lock").unlink()
    (tmp_path / "config.yaml").rename(tmp_path / "notes.yaml")
    with pytest.raises(BadInput, match="not a run of saadi"), Run(tmp_path, CONFIG):
        raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["notes.yaml"]


@pytest.mark.parametrize("there", [False, True])
def test_bad_input_before_the_first_stage_leaves_nothing(there: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if there:
        folder.mkdir()

    def bad(at: Path, progress: Progress) -> None:
        (at / "half").touch()
        raise BadInput("no")

    with pytest.raises(BadInput), Run(folder, CONFIG) as run:
        run.stage("a", bad)
    assert folder.exists() == there
    assert not there or not list(folder.iterdir())
    with Run(folder, CONFIG) as run:
        run.stage("a", writes("a"))
    with pytest.raises(BadInput), Run(folder, CONFIG) as run:
        run.stage("b", bad)
    assert (folder / "a" / MANIFEST).is_file()  # work is never thrown away
