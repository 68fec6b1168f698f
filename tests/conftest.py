"""What the tests share: the command called in this process, a run that takes seconds, a miniature data set."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from saadi.__main__ import main
from saadi.evaluation.metrics import tally_recalls
from saadi.evaluation.statistics import Bootstrap, crossed_bootstrap
from saadi.seeds import numpy_rng

TINY = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")

HEADER = "file,label,group,split"
PATIENTS = {"P1": "train", "P2": "train", "P3": "val", "P4": "test"}


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Assert exit code 2 and one clear line that holds `words`; progress lines (`stage ...`) do not count."""
        lines = [line for line in self.err.splitlines() if not line.endswith(" ...")]
        assert (self.code, len(lines)) == (2, 1), self.err
        assert lines[0].startswith("saadi: ")
        assert "Traceback" not in self.err
        for word in words:
            assert word in lines[0]


Command = Callable[..., Outcome]


def call(*arguments: object) -> Outcome:
    """`saadi ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with (
            patch.object(sys, "argv", ["saadi", *map(str, arguments)]),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as stopped,
        ):
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Finished:
    """A run that was finished with `--final`; not to be changed. `copy` gives one that may be."""

    folder: Path
    config: Path

    @property
    def results(self) -> dict[str, Any]:
        """Its `results.json`."""
        return read_json(self.folder / "results.json")

    def copy(self, place: Path) -> Path:
        """A copy of the run's folder inside `place`; times of the files are kept."""
        return Path(shutil.copytree(self.folder, place / "run"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def write_config(path: Path, **sections: Any) -> Path:
    """Write the tiny configuration with some sections or values replaced."""
    path.write_text(yaml.safe_dump({**yaml.safe_load(TINY), **sections}), encoding="utf-8")
    return path


def write_table(folder: Path) -> Path:
    """A data folder of two classes and four patients: `images/` of 40 x 30 px, an RGBA and a grey one, `labels.csv`."""
    (folder / "images").mkdir(parents=True)
    rows = [HEADER]
    for patient, split in PATIENTS.items():
        for label, level in (("hook", 60), ("clip", 180)):
            for k in range(3):
                file = f"images/{patient}-{label}-{k}.png"
                noise = numpy_rng("table", file).integers(-50, 50, (30, 40, 3))
                Image.fromarray((level + noise).astype(np.uint8)).save(folder / file)
                rows.append(f"{file},{label},{patient},{split}")
    for file, mode in (("images/P1-hook-0.png", "RGBA"), ("images/P2-clip-1.png", "L")):
        Image.open(folder / file).convert(mode).save(folder / file)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_layouts() -> Iterator[None]:
    """Stage 1 of inpainting encodes thousands of layouts; the few steps of a test would meet a dozen of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("saadi.diffusion.lessons.LAYOUTS", 100)
        yield


@pytest.fixture(scope="session")
def saadi() -> Command:
    """The command line, called in this process."""
    return call


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The configuration file of the tiny run."""
    return write_config(tmp_path / "tiny.yaml")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The miniature data folder."""
    return write_table(tmp_path / "table")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The one finished run that the tests share."""
    place = tmp_path_factory.mktemp("finished")
    config = write_config(place / "tiny.yaml")
    outcome = call("run", config, "--out", place / "run", "--final")
    assert outcome.code == 0, outcome.err
    return Finished(place / "run", config)


def bootstrap(
    predictions: Mapping[str, NDArray[np.int64]],
    labels: NDArray[np.int64],
    groups: NDArray[Any],
    classes: int,
    resamples: int = 2000,
    seed: int = 0,
) -> Bootstrap:
    """The bootstrap of recalls, from class ids [S, N] by arm."""
    tallies = {name: tally_recalls(labels, ids, classes) for name, ids in predictions.items()}
    return crossed_bootstrap(tallies, groups, resamples, seed)
