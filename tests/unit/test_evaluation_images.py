"""What is measured of an arm's images, by class and against fresh ones, and where the page finds it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saadi.configfile import parse_config
from saadi.critics.judging import Critic
from saadi.data import Dataset
from saadi.data.phantom import make_phantom
from saadi.evaluation import images as module
from saadi.evaluation.arms import Arm
from saadi.evaluation.images import measure_images, yardstick
from saadi.records import Condition, Sample
from saadi.report.reader import read_run
from saadi.store import Run

PHANTOM = {"train": 40, "val": 16, "test": 8, "patients": [6, 2, 2]}
CONFIG = parse_config({"data": {"source": "phantom", "size": 32, "phantom": PHANTOM}}, "a test")


class Eyes:
    """Unit-length features: the image itself, at 8 x 8, less its mean."""

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        small = images.reshape(len(images), 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(images), -1)
        small -= small.mean(1, keepdims=True)
        return cast(NDArray[np.float64], small / np.linalg.norm(small, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_phantom(CONFIG.data.phantom, 32, CONFIG.seed, CONFIG.task)


@pytest.fixture
def critic(data: Dataset) -> Critic:
    """Eyes that need no weights, and a judge to whom everything is the first class."""
    train, eyes = data.split("train"), Eyes()
    judge = SimpleNamespace(pieces=lambda images: [(slice(None), np.eye(8)[np.zeros(len(images), int)])])
    features, mirrored = eyes.embed(train.images), eyes.embed(train.images[:, :, ::-1])
    made = SimpleNamespace(embedder=eyes, train=train, judge=judge, features=features, mirrored=mirrored)
    return cast(Critic, made)


def measure(folder: Path, data: Dataset, critic: Critic, sets: dict[str, NDArray[np.uint8]], labels: list[str]) -> Any:
    """The facts measured of sets of images, one of each of `labels`."""
    arms = []
    with Run(folder, CONFIG) as run:
        for name in ("data", "critic"):
            run.stage(name, lambda folder, _: None)
        for name, images in sets.items():
            stage = f"evaluation/sets/{name}"
            samples = [
                Sample(f"{name}-{k}", Condition.of(label), 0, k, f"{stage}/{k}.png") for k, label in enumerate(labels)
            ]

            def make(folder: Path, _: Any, images: NDArray[np.uint8] = images) -> None:
                for k, image in enumerate(images):
                    Image.fromarray(image).save(folder / f"{k}.png")

            run.stage(stage, make)
            arms.append(Arm(name, tuple(samples), inputs=(stage,)))
        measure_images(run, data, arms, critic)
    return json.loads((folder / "evaluation/images/images.json").read_text(encoding="utf-8"))


def test_copies_are_told_by_class_and_shown_on_the_page(
    tmp_path: Path, data: Dataset, critic: Critic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH", 20)
    train = data.split("train")
    labels = [frame.label for frame in train.frames]
    # Copies, some of them mirrored, of the first class, which is the most frequent; noise of all others.
    half = np.random.default_rng(0).integers(0, 256, train.images.shape, np.uint8)
    first = np.flatnonzero(train.labels == 0)
    half[first] = train.images[first]
    half[first[::2]] = train.images[first[::2], :, ::-1]
    found = measure(tmp_path / "run", data, critic, {"unaligned": np.array(train.images), "round-1": half}, labels)
    copies, mixed = found["synthetic"]["unaligned"], found["synthetic"]["round-1"]
    assert copies["memorised"] == 1.0
    assert mixed["memorised_by_class"] == {name: float(name == data.space.names[0]) for name in data.space.names}
    assert mixed["memorised"] == pytest.approx(1 / 8)  # and not the share of all images, which is larger
    assert len(first) / len(labels) > 0.2
    assert found["memorised_fresh"] == pytest.approx(1 / 20)
    assert copies["judge_by_class"] == {name: float(name == data.space.names[0]) for name in data.space.names}
    assert mixed["kid"] > copies["kid"]
    assert mixed["n"] == len(labels)
    gain = found["judge_gains"]["round-1 - unaligned"]
    assert gain["n"] == len(labels)
    assert gain["mean"] == pytest.approx(mixed["judge_agreement"] - copies["judge_agreement"])
    assert gain["ci95"][0] <= gain["mean"] <= gain["ci95"][1]

    (tmp_path / "run/config.yaml").touch()
    np.save(tmp_path / "run/data/images.npy", data.images)
    read = read_run(tmp_path / "run")
    assert set(read.neighbours) == {"unaligned", "round-1"}
    for near in read.neighbours["unaligned"]:
        picture, real = read.picture(near["sample"]), read.real(near["train_index"])
        assert picture is not None
        assert real is not None
        np.testing.assert_array_equal(picture, real)
        assert near["distance"] == pytest.approx(0, abs=1e-6)


def test_the_yardstick_is_fresh_and_balanced_on_the_phantom_and_val_elsewhere(data: Dataset, critic: Critic) -> None:
    features, labels, what = yardstick(CONFIG, data, critic)
    assert np.bincount(labels).tolist() == [60] * 8
    assert len(features) == 480
    assert "training patients" in what
    table = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"source": "table"})})
    features, labels, what = yardstick(table, data, critic)
    np.testing.assert_array_equal(labels, data.split("val").labels)
    np.testing.assert_array_equal(features, critic.embedder.embed(data.split("val").images))
    assert "other patients" in what
