"""Bad input: exit code 2, one line that names the thing, and nothing written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HEADER, Command, Finished, Outcome, write_config
from PIL import Image

from saadi.foundation import foundation_folder


def _refused(outcome: Outcome, out: Path, *words: str) -> None:
    outcome.refused(*words)
    assert outcome.out == ""
    assert not out.exists()


CONFIGS = {
    "bad YAML": ("seed: 1\ndata: [\n", ("config.yaml", "not valid YAML at line")),
    "control characters": ("seed: \x07\n", ("not valid YAML",)),
    "a section twice": ("base: {steps: 3}\nseed: 1\nbase: {lr: 0.1}\n", ("config.yaml: base is given twice", "line 3")),
    "a list": ("- 1\n", ("expected a mapping", "list")),
    "unknown section": ("evaluaton: {seeds: 2}", ("unknown setting evaluaton", "evaluation")),
    "unknown field": ("base: {step: 3}", ("unknown setting base.step", "did you mean steps?")),
    "wrong type": ("rounds: many", ("rounds", "valid integer", "'many'")),
    "a value for a section": ("sampling: 12", ("sampling", "12")),
    "a section for a value": ("rounds: {a: 1}", ("rounds", "integer")),
    "out of range": ("sampling: {guidance: 0.5}", ("sampling.guidance", "greater than or equal to 1")),
    "not a number": ("base: {lr: .inf}", ("base.lr", "finite")),
    "nothing held out": ("preferences: {held_out: 0}", ("preferences.held_out", "greater than 0")),
    "a setting of another source": ("data: {path: x, every: 4}", ("data", "every is of source set; this one is table")),
    "groups of a table": ("data: {path: x, groups: abc}", ("groups is of source folders or set",)),
    "no list": ("evaluation: {mixing: 0.5}", ("evaluation.mixing: should be a list; put it in brackets",)),
    "a number for a name": ("data: {test: [7]}", ("data.test.0: should be text; put it in quotes (found 7)",)),
    "no 8-bit optimiser": ("compute: {eight_bit: true}", ("bitsandbytes is not installed",)),
    "no such solver": ("sampling: {solver: euler}", ("sampling.solver", "'ddim'")),
    "prompt without label": ("base: {prompt: a tool}", ("base.prompt", "{label}", "'a tool'")),
    "no data": ("seed: 1", ("data.path is not set",)),
    "a value of another kind than its tag": ("seed: !!int ''", ("not valid YAML",)),
    "a date that is none": ("seed: 2026-99-99", ("not valid YAML",)),
    "nested too deeply": ("[" * 1500, ("not valid YAML",)),
    "a billion aliases": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi"))
        + "rounds: *i",
        ("config.yaml",),
    ),
    "a path with a zero byte": ('data: {source: table, path: "a\\0b"}', ("data.path", "no path")),
    "more images than memory": ("data: {source: phantom, phantom: {test: 1000000000000}}", ("data.phantom.test",)),
    "more threads than there are": ("threads: 1000000000", ("threads", "less than or equal to 1024")),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_bad_configs(name: str, saadi: Command, tmp_path: Path) -> None:
    text, words = CONFIGS[name]
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    _refused(saadi("run", tmp_path / "config.yaml", "--out", tmp_path / "run"), tmp_path / "run", *words)


SETTINGS = {
    "seed": ("--set seed", "a.b=value"),
    "=3": ("--set =3", "a.b=value"),
    "seed=[": ("--set seed=[", "not a YAML value"),
    "task=segmentatoin": ("task", "'segmentation'", "segmentatoin"),
    "task=segmentation": ("critic.judge.model", "test_vit", "sees no masks", "smp:Unet:tu-test_vit"),
    "data.val=[P3]": ("data.val, data.test", "images on disk"),
    "seed.deep=1": ("--set seed.deep=1", "seed is a value"),
    "base.stepz=1": ("unknown setting base.stepz", "did you mean steps?"),
    "data.phantom.train=9": ("data.phantom.train: 9 images", "16"),
    "data.phantom.patients=[1,1,1]": ("data.phantom.patients", "2 or more"),
    "data.phantom.val=5": ("5 images in val", "6 or more"),
    "critic.folds=4": ("critic.folds: 4", "3 training groups"),
    "critic.classifier.model=resnet5000": ("critic.classifier.model", "resnet5000", "unknown"),
    "critic.judge.model=pretext-cnn": ("critic.judge.model", "architecture", "choose another"),
    "evaluation.mixing=[0.01]": ("evaluation.mixing: 0.01", "0 synthetic images"),
    "evaluation.mixing=[1.0]": ("evaluation.mixing: 1 of a batch", "choose between"),
    "critic.judge.model=vit_tiny_patch16_224": ("critic.judge.model", "32 px", "choose another"),
    "evaluation.classifier.model=nosuch.module:make": ("evaluation.classifier.model", "nosuch", "cannot be imported"),
    "evaluation.classifier.model=json:nothing": ("json:nothing", "cannot be imported"),
    "evaluation.classifier.model=math:floor": ("math:floor", "not a torch.nn.Module"),
    "evaluation.classifier.model=:make": ("evaluation.classifier.model", ":make"),
    "preferences.criterion=beauty": ("preferences.criterion", "'beauty'", "critic-loss"),
    "preferences.penalties={memorization: 1}": ("preferences.penalties", "did you mean memorisation?"),
    "preferences.penalties={similarity: -1}": ("preferences.penalties.similarity", "greater than or equal to 0"),
    "preferences.pairing=best-wurst": ("preferences.pairing", "did you mean best-worst?"),
    "alignment.objective=ppo": ("alignment.objective", "'ppo'", "did you mean ipo?"),
    "sampling.steps=1001": ("sampling.steps: 1001", "1000"),
    "sampling.strength=0.1": ("sampling.strength: 0.1 leaves none of 2 steps",),
    "base.model=nowhere": ("nowhere", "not a Stable Diffusion folder"),
    f"base.prompt=a {{label}} {'of a patient ' * 40}": ("tokens", "shorten"),
}


@pytest.mark.parametrize("assignment", SETTINGS)
def test_bad_settings(assignment: str, saadi: Command, tiny: Path, tmp_path: Path) -> None:
    outcome = saadi("run", tiny, "--out", tmp_path / "run", "--set", assignment)
    _refused(outcome, tmp_path / "run", *SETTINGS[assignment])


@pytest.mark.parametrize("assignment", ["critic.folds=4", "data.phantom.val=5"])
def test_check_says_what_run_refuses_of_counts(assignment: str, saadi: Command, tiny: Path, tmp_path: Path) -> None:
    refused = saadi("run", tiny, "--out", tmp_path / "run", "--set", assignment)
    checked = saadi("check", tiny, "--set", assignment)
    assert (refused.code, checked.code) == (2, 2)
    (error,) = [line for line in checked.out.splitlines() if line.startswith("error: ")]
    assert error.removeprefix("error: ") in refused.err


def _edit(folder: Path, old: str, new: str) -> None:
    path = folder / "labels.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def _huge(folder: Path) -> None:
    Image.new("1", (10_100, 10_000)).save(folder / "images/P1-hook-0.png")


def _truncate(folder: Path) -> None:
    path = folder / "images/P1-hook-0.png"
    path.write_bytes(path.read_bytes()[:-200])


def _one_class(folder: Path) -> None:
    for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines():
        if ",clip," in line:
            _edit(folder, line + "\n", "")


DATA: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "missing folder": (shutil.rmtree, ("table", "no such data folder")),
    "missing table": (lambda at: (at / "labels.csv").unlink(), ("labels.csv", "no such file")),
    "missing column": (lambda at: _edit(at, HEADER, "file,label,patient,split"), ("labels.csv", "group is missing")),
    "missing image": (lambda at: (at / "images/P3-clip-0.png").unlink(), ("P3-clip-0.png", "row", "is not in")),
    "not an image": (lambda at: (at / "images/P1-hook-0.png").write_text("hello"), ("P1-hook-0.png", "not an image")),
    "truncated": (_truncate, ("P1-hook-0.png", "damaged")),
    "zero bytes": (lambda at: (at / "images/P1-hook-0.png").write_bytes(b""), ("P1-hook-0.png", "empty file")),
    "huge": (_huge, ("P1-hook-0.png", "megapixels")),
    "unknown split": (lambda at: _edit(at, "P3,val", "P3,vall"), ("row", "'vall'", "did you mean val?")),
    "empty label": (lambda at: _edit(at, "hook-0.png,hook,P1", "hook-0.png,,P1"), ("row 2", "label is empty")),
    "one class": (_one_class, ("only one class (hook)",)),
    "too few": (lambda at: _edit(at, ",hook,P2", ",clip,P2"), ("hook has 3", "4 are needed")),
    "never trained": (lambda at: _edit(at, "P3-hook-0.png,hook", "P3-hook-0.png,saw"), ("saw has no training",)),
    "two splits": (lambda at: _edit(at, "P4-hook-0.png,hook,P4", "P4-hook-0.png,hook,P3"), ("group P3", "one split")),
    "traversal": (lambda at: _edit(at, "images/P1-hook-0.png", "../tiny.png"), ("row 2", "outside")),
    "no validation": (lambda at: _edit(at, ",val", ",test"), ("no images in val",)),
    "one prompt": (lambda at: _edit(at, ",clip,", ",Hook,"), ("Hook", "the same to the text encoder")),
}


@pytest.mark.parametrize("name", DATA)
def test_bad_data(name: str, saadi: Command, table: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "tiny.png")
    spoil, words = DATA[name]
    spoil(table)
    config = write_config(tmp_path / "config.yaml", data={"source": "table", "path": "table", "size": 32})
    _refused(saadi("run", config, "--out", tmp_path / "run"), tmp_path / "run", *words)


def test_a_mended_config_may_use_the_folder_of_a_refused_one(
    saadi: Command, tiny: Path, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    _truncate(table)
    config = write_config(tmp_path / "config.yaml", data={"source": "table", "path": "table", "size": 32})
    saadi("run", config, "--out", tmp_path / "run").refused("damaged")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_check_of_what_shows_no_class_is_no_traceback(saadi: Command, table: Path, tmp_path: Path) -> None:
    """Binary masks of 0 and 255, of which `classes.json` does not list the latter, and columns of no class."""
    (table / "masks").mkdir()
    for path in (table / "images").iterdir():
        mask = np.zeros((30, 40), np.uint8)
        mask[:9] = 255
        Image.fromarray(mask).save(table / "masks" / f"{path.stem}.png")
    rows = [line.split(",") for line in (table / "labels.csv").read_text(encoding="utf-8").split()]
    masked = [f"{file},masks/{Path(file).stem}.png,{group},{split}" for file, _, group, split in rows[1:]]
    (table / "labels.csv").write_text("\n".join(["file,mask,group,split", *masked]), encoding="utf-8")
    (table / "classes.json").write_text('{"0": "background", "1": "tool"}', encoding="utf-8")
    config = write_config(tmp_path / "config.yaml", data={"source": "table", "path": "table", "size": 32})
    for task, words in (("segmentation", "class tool has no training images (a mask's 255"), ("presence", "has_")):
        checked = saadi("check", config, "--set", f"task={task}")
        assert checked.code == 2
        assert words in " ".join(checked.out.split())


def test_missing_config(saadi: Command, tmp_path: Path) -> None:
    for command in ("run", "check"):
        saadi(command, tmp_path / "nowhere.yaml").refused("nowhere.yaml", "no such file")


COMMANDS = {
    "run": ("CONFIG",),
    "rum tiny.yaml": ("rum",),
    "run tiny.yaml --rounds 3": ("--rounds",),
    "run tiny.yaml --out": ("--out",),
    "run tiny.yaml --out runs/new --redo base": ("--redo base", "none yet"),
    "run .": ("cannot be read",),
    "demo --task presence": ("--task presence", "classification"),
    "demo --seed many": ("--seed", "integer"),
    "sample tiny.yaml --class hook --out x -n 0": ("-n",),
    "sample tiny.yaml --class hook --out x": ("tiny.yaml", "not a run"),
    "status nowhere": ("nowhere", "not a run"),
    "report nowhere": ("nowhere", "not a run"),
    "pairs nowhere --export x.csv": ("nowhere", "not a run"),
    "folds nowhere.yaml": ("nowhere.yaml", "no such file"),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_bad_commands(line: str, saadi: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = saadi(*line.split())
    outcome.refused(*COMMANDS[line])
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_from_scratch_is_for_tiny(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    settings = ("--set", "base.from_scratch=true", "--set", f"base.model={foundation_folder()}")
    _refused(saadi("run", tiny, "--out", tmp_path / "run", *settings), tmp_path / "run", "base.from_scratch")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    outcome = saadi("run", tiny, "--out", tmp_path / "run", "--set", "device=cuda")
    _refused(outcome, tmp_path / "run", "device", "no GPU")


def test_folders_that_are_no_runs(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious", encoding="utf-8")
    for dry in ((), ("--dry-run",)):
        saadi("run", tiny, "--out", other, *dry).refused(str(other), "not a run of saadi")
        saadi("run", tiny, "--out", other / "thesis.txt", *dry).refused("thesis.txt: is a file", "--out")
    for command in (("status",), ("report",), ("sample", "--class", "hook", "--out", tmp_path / "drawn")):
        saadi(command[0], other, *command[1:]).refused(str(other), "not a run")
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    assert (other / "thesis.txt").read_text(encoding="utf-8") == "precious"


def test_no_permission(saadi: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid() == 0:  # who may write everywhere, and is told that it may not
        allowed = os.access

        def access(path: Path, mode: int) -> bool:
            return allowed(path, mode) and not (mode & os.W_OK and Path(path) == locked)

        monkeypatch.setattr(os, "access", access)
    saadi("run", tiny, "--out", locked / "run").refused("no permission", "--out")
    saadi("run", tiny, "--out", locked).refused("no permission", "--out")


def test_too_little_space(saadi: Command, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000_000))
    outcome = saadi("run", tiny, "--out", tmp_path / "run")
    _refused(outcome, tmp_path / "run", "5 MB free", "MB are needed")


def test_a_training_that_runs_away_leaves_no_adapter(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    away = ("--set", "alignment.lr=1.0e+30", "--redo", "winners/adapter")
    outcome = saadi("run", finished.config, "--out", folder, *away)
    outcome.refused("winners: ", "not a number", "lower the learning rate (now 1e+30)", "--redo winners/adapter")
    assert not list((folder / "winners").rglob("pytorch_lora_weights*"))
    assert not (folder / "results.json").exists()


def test_a_disk_that_fills_up_loses_nothing(
    saadi: Command, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished.copy(tmp_path)
    trainings = tuple(f"evaluation/trainings/{arm}" for arm in ("round-2", "unpicked", "unled"))
    for stage in ("evaluation/sets/round-2", *trainings, "evaluation/images"):
        shutil.rmtree(folder / stage)

    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("saadi.diffusion.painting.save_png", full)
        saadi("run", finished.config, "--out", folder, "--final").refused("the disk is full", "00-00000.png", "resumes")
    image = Path("evaluation/sets/round-2/00-00000.png")
    (folder / image).write_bytes((finished.folder / image).read_bytes()[:60])  # as a loss of power leaves it
    assert saadi("run", finished.config, "--out", folder, "--final").code == 0
    assert Finished(folder, finished.config).results["arms"] == finished.results["arms"]
    assert (folder / image).read_bytes() == (finished.folder / image).read_bytes()
