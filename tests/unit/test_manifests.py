"""Whatever is lost or damaged in a run's folder is named, and made anew on the user's word alone."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from small_run import CONFIG, chain, writes

from saadi.errors import BadInput, Diverged, Interrupted
from saadi.files import CHECKPOINT, SCAFFOLD, SCRATCH, UNFINISHED
from saadi.manifests import MANIFEST, inputs_of, read_manifests
from saadi.store import Run
from saadi.training import Progress


def test_a_lost_manifest_is_named_as_long_as_others_were_made_from_its_stage(tmp_path: Path) -> None:
    folder, calls = tmp_path / "run", list[str]()
    chain(folder, [])
    (folder / "c/d" / MANIFEST).unlink()
    chain(folder, calls)
    assert calls == ["c/d"]  # nothing was made from it: it is as if it had never been
    (folder / "a" / MANIFEST).unlink()
    with pytest.raises(BadInput, match=r"a/manifest\.json: is missing, though b was made from .*--redo a"):
        chain(folder, calls)
    assert (folder / "b/out.txt").exists()
    chain(folder, calls, "a")
    assert calls == ["c/d", "a", "b", "c/d"]


DAMAGE = ("", "{", "[1]", "{}", '{"key": {"inputs": []}, "outputs": {}}', "[" * 100_000, "\x00")


@pytest.mark.parametrize("text", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_manifest_is_named(text: str, tmp_path: Path) -> None:
    folder, calls = tmp_path / "run", list[str]()
    chain(folder, [])
    (folder / "b" / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"b/manifest\.json: is damaged; --redo b"):
        chain(folder, calls)
    with pytest.raises(BadInput, match="damaged"):
        read_manifests(folder)
    assert inputs_of(folder)["c/d"] == {"b"}
    chain(folder, calls, "b")
    assert calls == ["b", "c/d"]


@pytest.mark.parametrize("text", ["", "[]", '{"key": {}}'])
def test_a_stage_whose_unfinished_state_was_damaged_begins_anew(text: str, tmp_path: Path) -> None:
    calls: list[str] = []
    with pytest.raises(Interrupted):
        chain(tmp_path / "run", calls, fail="a")
    (tmp_path / "run/a" / UNFINISHED).write_text(text, encoding="utf-8")
    (tmp_path / "run/a/more").touch()
    chain(tmp_path / "run", calls)
    assert calls == ["a", "a", "b", "c/d"]
    assert not (tmp_path / "run/a/more").exists()


@pytest.mark.parametrize("damage", ["", "seed: [", "seed: \x07", "- a list"])
def test_a_damaged_configuration_is_another_one(damage: str, tmp_path: Path) -> None:
    chain(tmp_path / "run", [])
    (tmp_path / "run/config.yaml").write_text(damage, encoding="utf-8")
    with pytest.raises(BadInput, match="another configuration"):
        chain(tmp_path / "run", [])


def test_a_kill_while_stages_are_forgotten_leaves_none_without_its_source(tmp_path: Path) -> None:
    folder, calls = tmp_path / "run", list[str]()
    for survivors in (2, 1, 0):
        chain(folder, [])
        left = [3 - survivors]

        def until(path: Path, ignore_errors: bool = False, left: list[int] = left) -> None:
            left[0] -= not ignore_errors  # that of the crew's remains
            if not (left[0] or ignore_errors):
                raise Interrupted

        with patch("saadi.store.shutil.rmtree", until), pytest.raises(Interrupted):
            chain(folder, [], "a")
        assert len(inputs_of(folder)) == survivors
        assert list(inputs_of(folder)) == ["a", "b", "c/d"][:survivors]
        chain(folder, calls)  # no word is needed: what was asked for is remembered
    assert calls == 3 * ["a", "b", "c/d"]


def test_a_kill_after_the_manifest_costs_nothing(tmp_path: Path) -> None:
    calls: list[str] = []

    def trains(folder: Path, progress: Progress) -> None:
        writes("weights", calls)(folder, progress)
        (folder / CHECKPOINT).touch()
        (folder / SCRATCH / "images").mkdir(parents=True)
        (folder / SCRATCH / "images/0.npy").touch()

    for _ in range(2):
        with Run(tmp_path / "run", CONFIG) as run:
            if not calls:
                with patch("saadi.store.sweep", side_effect=Interrupted), pytest.raises(Interrupted):
                    run.stage("a", trains)
                assert all((run.folder / "a" / name).exists() for name in SCAFFOLD)
            else:
                run.stage("a", trains)
    assert calls == ["weights"]
    assert sorted(path.name for path in (tmp_path / "run/a").iterdir()) == [MANIFEST, "out.txt"]
    assert list(read_manifests(tmp_path / "run")["a"]["outputs"]) == ["out.txt"]


def test_a_training_that_diverges_says_which_stage_to_redo(tmp_path: Path) -> None:
    def make(folder: Path, progress: Progress) -> None:
        raise Diverged("here: the loss is not a number; lower the learning rate")

    with Run(tmp_path / "run", CONFIG) as run:
        run.stage("data", writes("x"))
        with pytest.raises(BadInput, match=r"lower the learning rate, and give --redo round-1/adapter"):
            run.stage("round-1/adapter", make)
    state = json.loads((tmp_path / "run/round-1/adapter" / UNFINISHED).read_text(encoding="utf-8"))
    assert state["seconds"] >= 0
    with Run(tmp_path / "run", CONFIG, redo=["round-1/adapter"]):  # as it says
        pass
