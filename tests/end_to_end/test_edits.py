"""Runs whose samples start from training images, through the command line, for each task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from conftest import Command, read_json
from PIL import Image
from segmented import write
from test_tasks_run import settings

from saadi.data.stages import read_data
from saadi.records import Pair, Sample, read_records

HALF = {"steps": 4, "batch": 8, "strength": 0.5}


def test_pairs_of_classification_share_the_image_they_start_from(saadi: Command, tiny: Path, tmp_path: Path) -> None:
    changes = [word for one in ("sampling.steps=4", "sampling.strength=0.5", "rounds=1") for word in ("--set", one)]
    folder = tmp_path / "run"
    outcome = saadi("run", tiny, "--out", folder, *changes)
    assert outcome.code == 0, outcome.err
    train = read_data(folder / "data").split("train")
    samples = {one.id: one for one in read_records(folder / "round-1/samples/samples.jsonl", Sample)}
    for sample in samples.values():
        assert sample.condition.start is not None
        assert train.frames[sample.condition.start].labels == (sample.label,)
    for pair in read_records(folder / "round-1/pairs/pairs.jsonl", Pair):
        assert samples[pair.winner].condition == samples[pair.loser].condition
    arms = read_json(folder / "results.json")["arms"]
    assert arms["unaligned"]["unet_evaluations"] == 8 * 2 * 2  # two of the four steps, with and without the prompt
    sets = [read_records(folder / f"evaluation/sets/{arm}/samples.jsonl", Sample) for arm in ("unaligned", "winners")]
    assert [one.condition for one in sets[0]] == [one.condition for one in sets[1]]
    out = tmp_path / "drawn"
    assert saadi("sample", folder, "--class", "hook", "-n", 2, "--out", out, "--keep-copies").code == 0
    plan = json.loads(saadi("run", tiny, *changes, "--dry-run", "--json").out)
    assert plan["stages"]["drawing"]["images"] > 0


def test_segmentation_starts_from_pasted_objects(saadi: Command, tmp_path: Path) -> None:
    config = settings(tmp_path / "tiny.yaml", write(tmp_path / "data", each=10), rounds=1, sampling=HALF)
    outcome = saadi("run", config, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    train = read_data(tmp_path / "run/data").split("train")
    samples = read_records(tmp_path / "run/round-1/samples/samples.jsonl", Sample)
    for sample in samples:
        image = np.asarray(Image.open(tmp_path / "run" / sample.file))
        frame, _ = sample.condition.place
        assert 0.05 < (image == train.images[frame]).all(-1).mean() < 1


def test_presence_starts_from_an_image_of_the_same_classes(saadi: Command, tmp_path: Path) -> None:
    config = settings(
        tmp_path / "presence.yaml",
        write(tmp_path / "data", each=10),
        task="presence",
        rounds=1,
        sampling=HALF,
        critic={"classifier": {"steps": 4, "batch": 4}, "judge": {"model": "test_vit", "steps": 2}, "folds": 2},
        preferences={"criterion": "presence-loss", "candidates": 4, "max_candidates": 4, "pairs": 2, "margin": 0.0},
        evaluation={"classifier": {"steps": 2, "batch": 4}, "seeds": 2, "synthetic": 10, "bootstrap": 20},
    )
    outcome = saadi("run", config, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    train = read_data(tmp_path / "run/data").split("train")
    for sample in read_records(tmp_path / "run/round-1/samples/samples.jsonl", Sample):
        assert sample.condition.start is not None
        assert {*train.frames[sample.condition.start].labels} == {*sample.condition.labels}
