"""Stages made anew: what follows them, too, once, and however often the command that asked for it is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import CONFIG, chain, writes

from saadi.errors import BadInput, Diverged, Interrupted
from saadi.manifests import REDO, check_folder, read_manifests
from saadi.store import Run
from saadi.training import Progress


def test_redo_makes_a_stage_and_what_follows_anew(tmp_path: Path) -> None:
    calls: list[str] = []
    chain(tmp_path / "run", calls)
    chain(tmp_path / "run", calls, "b")
    assert calls == ["a", "b", "c/d", "b", "c/d"]


def test_a_redo_that_is_interrupted_resumes_without_being_asked_again(tmp_path: Path) -> None:
    calls: list[str] = []
    chain(tmp_path / "run", calls)
    with pytest.raises(Interrupted):
        chain(tmp_path / "run", calls, "a", fail="a")
    assert not (tmp_path / "run/b").exists()
    chain(tmp_path / "run", calls)
    assert calls == ["a", "b", "c/d", "a", "a", "b", "c/d"]


def test_a_redo_that_is_interrupted_resumes_by_the_same_command(tmp_path: Path) -> None:
    """A job that a cluster starts again and again with `--redo` must end; once it has, the same command redoes."""
    calls: list[str] = []
    chain(tmp_path / "run", calls)
    for _ in range(2):
        calls.clear()
        with pytest.raises(Interrupted):
            chain(tmp_path / "run", calls, "a", "b", fail="b")
        assert calls == ["a", "b"]
        calls.clear()
        with pytest.raises(Interrupted):
            chain(tmp_path / "run", calls, "a", "b", fail="c/d")
        assert calls == ["b", "c/d"]
        calls.clear()
        chain(tmp_path / "run", calls, "a", "b")
        assert calls == ["c/d"]
        assert not (tmp_path / "run" / REDO).exists()


def test_a_redo_killed_before_it_removed_anything_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    chain(tmp_path / "run", calls)
    with monkeypatch.context() as patch:
        patch.setattr("saadi.store.retire_results", lambda folder: (_ for _ in ()).throw(Interrupted()))
        with pytest.raises(Interrupted):
            chain(tmp_path / "run", calls, "b")
    assert len(read_manifests(tmp_path / "run")) == 3
    chain(tmp_path / "run", calls)  # without being asked again
    assert calls == ["a", "b", "c/d", "b", "c/d"]


def test_what_a_redo_has_made_and_was_changed_since_is_made_once_more(tmp_path: Path) -> None:
    """The line that names the change says `--redo`: that must not be taken for done."""
    calls: list[str] = []
    chain(tmp_path / "run", calls)
    with pytest.raises(Interrupted):
        chain(tmp_path / "run", calls, "a", fail="b")
    (tmp_path / "run/a/out.txt").write_text("forged", encoding="utf-8")
    with pytest.raises(BadInput, match="--redo a makes it anew"):
        chain(tmp_path / "run", calls)
    calls.clear()
    chain(tmp_path / "run", calls, "a")
    assert calls == ["a", "b", "c/d"]


def test_a_redo_that_diverges_is_begun_again_when_asked_again(tmp_path: Path) -> None:
    def diverges(folder: Path, progress: Progress) -> None:
        (folder / "bad").touch()
        raise Diverged("here: the loss is not a number")

    folder = tmp_path / "run"
    chain(folder, [])
    with pytest.raises(BadInput, match=r"--redo a$"), Run(folder, CONFIG, redo=["a"]) as run:
        run.stage("a", diverges)
    assert (folder / "a/bad").exists()
    chain(folder, [], "a")
    assert not (folder / "a/bad").exists()


@pytest.mark.parametrize("text", ["[]", "{", '{"asked": 3}', '{"asked": ["a"], "left": null}'])
def test_a_damaged_redo_is_named(text: str, tmp_path: Path) -> None:
    chain(tmp_path / "run", [])
    (tmp_path / "run" / REDO).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"redo\.json: .*delete it"):
        chain(tmp_path / "run", [])


def test_redo_of_no_stage_is_refused(tmp_path: Path) -> None:
    chain(tmp_path / "run", [])
    with pytest.raises(BadInput, match=r"--redo d: no such stage .* there are: a, b, c/d"):
        chain(tmp_path / "run", [], "d")
    with pytest.raises(BadInput, match="none yet"):
        chain(tmp_path / "new", [], "a")
    assert not (tmp_path / "new").exists()


def test_the_stage_that_was_meant_is_named_and_trainings_are_counted(tmp_path: Path) -> None:
    names = ["round-1/pairs", *(f"evaluation/trainings/real/seed-{seed}" for seed in range(30))]
    with Run(tmp_path / "run", CONFIG) as run:
        for name in names:
            run.stage(name, writes(name))
    there = r"there are: round-1/pairs, 30 in evaluation/trainings/$"
    with pytest.raises(BadInput, match=rf"did you mean round-1/pairs\? {there}"):
        check_folder(tmp_path / "run", CONFIG, ["round-1/pair"])
    with pytest.raises(BadInput, match=rf"run; {there}"):
        check_folder(tmp_path / "run", CONFIG, ["nonsense"])
    with pytest.raises(BadInput, match=r"did you mean evaluation/trainings/real/seed-\d+\?"):
        check_folder(tmp_path / "run", CONFIG, ["trainings/real/seed-30"])
