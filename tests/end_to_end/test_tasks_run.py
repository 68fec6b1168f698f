"""Segmentation and presence through the command line, small: the same stages, other conditions, critics and metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Command, Finished, call, read_json
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image
from segmented import edit, write

from saadi.configfile import load_config
from saadi.data.conditions import requests_of
from saadi.data.stages import read_data
from saadi.data.table import scan_table
from saadi.diffusion.drawing import Canvas, draw, solver
from saadi.diffusion.generator import encode_prompts, load_generator
from saadi.diffusion.lessons import prompt_of
from saadi.diffusion.painting import read_masks
from saadi.files import UNFINISHED
from saadi.manifests import MANIFEST
from saadi.records import Pair, Sample, read_records

ARMS = (
    *("real", "real-pretrained", "unaligned", "copy-paste", "reconstructed", "feedback"),
    *("rejection", "winners", "round-1", "round-2", "unled", "unpicked"),
)
SETTINGS: dict[str, Any] = {
    "task": "segmentation",
    "threads": 1,
    "device": "cpu",
    "data": {"size": 32},
    "base": {"steps": 2, "batch": 2},
    "sampling": {"steps": 2, "batch": 8, "lead": 0.1},
    "critic": {
        "classifier": {"model": "small-unet", "steps": 8, "batch": 4},
        "judge": {"model": "smp:FPN:resnet18", "steps": 2, "batch": 4},
        "folds": 2,
    },
    "preferences": {"criterion": "region-dice", "candidates": 8, "max_candidates": 8, "pairs": 4, "margin": 0.0},
    "alignment": {"steps": 2, "pairs": 2, "anchors": 2, "bank": 1, "rank": 2},
    "evaluation": {
        "classifier": {"model": "small-unet", "steps": 2, "batch": 4},
        "seeds": 2,
        "synthetic": 10,
        "drawn": 2,
        "pick": "hard",
        "mixing": [0.5],
        "bootstrap": 20,
    },
}


def settings(path: Path, data: Path, **sections: Any) -> Path:
    """A configuration file for a data folder."""
    values = {**SETTINGS, **sections}
    values["data"] = {**values["data"], "path": str(data)}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run of segmentation; some pixels of its masks are unknown."""
    place = tmp_path_factory.mktemp("painted")
    data = write(place / "data", each=10)
    mask = np.array(Image.open(data / "masks/D0.png"))
    mask[:3] = 255
    Image.fromarray(mask).save(data / "masks/D0.png")
    config = settings(place / "tiny.yaml", data)
    outcome = call("run", config, "--out", place / "run", "--final")
    assert outcome.code == 0, outcome.err
    assert "copy-paste" in outcome.out
    return Finished(place / "run", config)


def test_results_of_segmentation(painted: Finished) -> None:
    results = painted.results
    assert (results["task"], results["metric"], results["classes"]) == ("segmentation", "dice", ["hook", "clip"])
    assert tuple(results["arms"]) == ARMS
    for arm in results["arms"].values():
        assert set(arm["per_class"]) == {"background", "hook", "clip"}
        assert arm["mean"] == pytest.approx(np.mean([arm["per_class"][name] for name in ("hook", "clip")]))
        assert arm["dice_with_background"] == pytest.approx(np.mean(list(arm["per_class"].values())))
        assert arm["iou"] <= arm["mean"]
        assert arm["surface_distance"] >= 0
        overlap = [dice / (2 - dice) for dice in arm["per_class"].values()]
        assert list(arm["iou_per_class"].values()) == pytest.approx(overlap)
        assert arm["iou_with_background"] == pytest.approx(np.mean(overlap))
    assert {f"round-2 - {other}" for other in ("real", "unaligned", "rejection", "copy-paste")} <= set(results["gains"])
    assert tuple(results["synthetic"]) == ARMS[2:]
    assert results["synthetic"]["copy-paste"]["n"] == results["synthetic"]["round-2"]["n"] == 10
    assert results["arms"]["copy-paste"]["unet_evaluations"] == 0


def test_a_run_that_was_stopped_while_images_were_measured_goes_on(painted: Finished, tmp_path: Path) -> None:
    folder = painted.copy(tmp_path)
    stage = folder / "evaluation/images"
    before = (stage / "images.json").read_bytes()
    key = read_json(stage / MANIFEST)["key"]
    (stage / UNFINISHED).write_text(json.dumps({"key": key, "seconds": 1.0}))
    for name in (MANIFEST, "images.json", "neighbours.json"):  # what the judge sees of some arms is there already
        (stage / name).unlink()
    (folder / "results.json").unlink()
    outcome = call("run", painted.config, "--out", folder, "--final")
    assert outcome.code == 0, outcome.err
    assert (stage / "images.json").read_bytes() == before


def test_a_pair_shares_frame_mask_and_prompt_and_pixels_outside_stay(painted: Finished) -> None:
    train = read_data(painted.folder / "data").split("train")
    samples = {one.id: one for one in read_records(painted.folder / "round-1/samples/samples.jsonl", Sample)}
    for sample in samples.values():
        ids = np.asarray(Image.open(painted.folder / str(sample.mask)))
        image = np.asarray(Image.open(painted.folder / sample.file))
        assert (ids == train.space.id(sample.label)).any()
        frame, donor = sample.condition.place
        same = (image == train.images[frame]).all(-1)
        assert 0.05 < same.mean() < 1
        assert frame == donor or train.groups[frame] != train.groups[donor]
    pairs = read_records(painted.folder / "round-1/pairs/pairs.jsonl", Pair)
    for pair in pairs:
        winner, loser = samples[pair.winner], samples[pair.loser]
        assert winner.condition == loser.condition
        assert (painted.folder / str(winner.mask)).read_bytes() == (painted.folder / str(loser.mask)).read_bytes()


def test_copy_paste_has_the_donors_own_pixels_where_painted_frames_have_theirs(painted: Finished) -> None:
    data = read_data(painted.folder / "data")
    train, sets = data.split("train"), painted.folder / "evaluation/sets"
    painted_ones = read_records(sets / "unaligned/samples.jsonl", Sample)
    samples = read_records(sets / "copy-paste/samples.jsonl", Sample)
    assert train.masks is not None
    assert [one.condition for one in samples] == [one.condition for one in painted_ones]
    maps, theirs = read_masks(painted.folder, samples), read_masks(painted.folder, painted_ones)
    for sample, ids, asked in zip(samples, maps, theirs, strict=True):
        frame, donor = sample.condition.place
        label = train.space.id(sample.label)
        assert np.array_equal(ids == label, asked == label) or (train.masks[frame] == label).any()  # own ones stay
        if frame == donor:
            assert np.array_equal(ids, train.masks[frame])
            image = np.asarray(Image.open(painted.folder / sample.file))
            assert np.array_equal(image, train.images[frame])


def test_all_that_the_autoencoders_control_shows_of_a_class_is_asked_of_it(painted: Finished) -> None:
    train, config = read_data(painted.folder / "data").split("train"), load_config(painted.config)
    assert train.masks is not None
    samples = read_records(painted.folder / "evaluation/sets/reconstructed/samples.jsonl", Sample)
    maps = read_masks(painted.folder, samples)
    known, asked = requests_of(config, train, [sample.condition for sample in samples], maps)
    for sample, ids, request, label in zip(samples, maps, known, asked, strict=True):
        assert np.array_equal(ids, train.masks[sample.condition.place[0]])
        assert np.array_equal(request == label, ids == label)


def test_the_stock_pipeline_paints_as_the_card_says_and_as_we_do(painted: Finished) -> None:
    config, train = load_config(painted.config), read_data(painted.folder / "data").split("train")
    generator = load_generator(painted.folder / "base/model")
    frame, mask, region = np.asarray(train.images[0]), np.zeros((1, 32, 32), bool), np.zeros((1, 32, 32), bool)
    mask[:, 8:16, 8:24], region[:, 4:20, 4:28] = True, True
    prompt = prompt_of(config, ["hook"])
    embeddings, blank = encode_prompts(generator, [prompt]), encode_prompts(generator, [""])
    canvas = Canvas(frame[None], mask, region, region.astype(np.float32))
    (ours,) = draw(generator, embeddings, blank, [7], config.sampling, canvas)

    pipe = StableDiffusionInpaintPipeline.from_pretrained(painted.folder / "base/model", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = solver(generator, config.sampling.solver)
    code = (painted.folder / "model-card.md").read_text().split("```python")[2].split("```")[0]
    known: dict[str, Any] = {
        "torch": torch, "pipe": pipe, "prompt": prompt, "frame": frame, "generator": torch.Generator().manual_seed(7),
        "shown": torch.from_numpy(mask[None]).float(), "region": torch.from_numpy(region[None]).float(),
    }  # fmt: skip
    with torch.no_grad():
        exec(code, known)  # what a reader of the card would run
    theirs = np.where(region[0][..., None], np.round(255 * known["made"]), frame)
    assert np.abs(theirs - ours).max() <= 1
    assert not np.array_equal(ours, frame)


def test_the_same_command_again_changes_nothing(painted: Finished, saadi: Command) -> None:
    before = painted.results
    again = saadi("run", painted.config, "--out", painted.folder, "--final", "--json")
    assert json.loads(again.out) == before


def test_samples_are_an_input(painted: Finished, saadi: Command, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    said = saadi("sample", painted.folder, "--class", "clip", "-n", 3, "--out", out, "--keep-copies")
    assert said.code == 0, said.err
    scan = scan_table(out, "segmentation")
    assert not scan.problems
    assert [frame.split for frame in scan.frames] == ["train"] * 3
    for frame in scan.frames:
        ids = np.asarray(Image.open(out / str(frame.mask)))
        assert ids.shape == np.asarray(Image.open(out / frame.file)).shape[:2] == (32, 32)
        assert 2 in ids
    train = read_data(painted.folder / "data").split("train")
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    group_of = {frame.file: frame.group for frame in train.frames}
    assert [frame.group for frame in scan.frames] == [group_of[row["painted_into"]] for row in rows]
    assert all(row["mask_from"] in group_of for row in rows)
    assert "pixels are a patient's" in (out / "README.md").read_text()


def test_the_page_and_the_plan_speak_of_masks(painted: Finished, saadi: Command) -> None:
    page = (painted.folder / "report.html").read_text(encoding="utf-8")
    for words in ("the same segmenter", "asked for", "copy-paste", "surface distance, pixels", "what the judge sees"):
        assert words in page
    plan = json.loads(saadi("run", painted.config, "--dry-run", "--json").out)
    assert plan["stages"]["downstream"]["trainings"] == 2 * (2 + 10)


def test_presence_runs_too(saadi: Command, tmp_path: Path) -> None:
    config = settings(
        tmp_path / "presence.yaml",
        write(tmp_path / "data", each=10),
        task="presence",
        rounds=1,
        critic={"classifier": {"steps": 4, "batch": 4}, "judge": {"model": "test_vit", "steps": 2}, "folds": 2},
        preferences={"criterion": "presence-loss", "candidates": 4, "max_candidates": 4, "pairs": 2, "margin": 0.0},
        evaluation={**SETTINGS["evaluation"], "classifier": {"steps": 2, "batch": 4}},
    )
    outcome = saadi("run", config, "--out", tmp_path / "run", "--final")
    assert outcome.code == 0, outcome.err
    results = read_json(tmp_path / "run/results.json")
    assert (results["task"], results["metric"]) == ("presence", "mean_average_precision")
    assert set(results["arms"]["round-1"]["per_class"]) == {"hook", "clip"}
    samples = read_records(tmp_path / "run/round-1/samples/samples.jsonl", Sample)
    assert {one.condition.labels for one in samples} >= {("clip", "hook")}
    out = tmp_path / "drawn"
    assert saadi("sample", tmp_path / "run", "--class", "clip", "-n", 2, "--out", out, "--keep-copies").code == 0
    assert not scan_table(out, "presence").problems


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("preferences.criterion=critic-loss", ("critic-loss", "region-dice")),
        ("evaluation.classifier.model=small-cnn", ("evaluation.classifier.model", "small-cnn")),
        ("critic.judge.model=pretext-unet", ("critic.judge.model", "smp:FPN:resnet18")),
        ("layouts.things=[hok]", ("layouts.things", "hok", "hook")),
        ("layouts.rim=[0.2, 0.1]", ("layouts.rim",)),
        ("evaluation.classifier.augment=randaugment", ("evaluation.classifier.augment", "full or mirror")),
        ("critic.judge.mix=cutmix", ("critic.judge.mix", "is for classification")),
        ("evaluation.rivals=[randaugment]", ("evaluation.rivals", "randaugment", "leave it out")),
        ("data.source=folders", ("data.source", "folders")),
    ],
)
def test_settings_that_do_not_fit_get_one_line(
    saadi: Command, tmp_path: Path, setting: str, words: tuple[str, ...]
) -> None:
    config = settings(tmp_path / "tiny.yaml", write(tmp_path / "data", each=10))
    saadi("run", config, "--out", tmp_path / "run", "--set", setting).refused(*words)
    assert not (tmp_path / "run").exists()


def test_masks_that_do_not_fit_get_one_line(saadi: Command, tmp_path: Path) -> None:
    data = write(tmp_path / "data", each=10)
    config = settings(tmp_path / "tiny.yaml", data)
    edit(data, '"2"', '"3"', "classes.json")
    saadi("run", config, "--out", tmp_path / "run").refused("A0.png", "2", "classes.json")
    assert not (tmp_path / "run").exists()


def test_a_model_of_text_to_image_is_refused(saadi: Command, finished: Finished, tmp_path: Path) -> None:
    config = settings(tmp_path / "tiny.yaml", write(tmp_path / "data", each=10))
    model = f"base.model={finished.folder / 'base/model'}"
    saadi("run", config, "--out", tmp_path / "run", "--set", model).refused("base.model", "text-to-image", "nine")
