"""Synthetic sets for other programs: COCO masks, and cards that say what was made from what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from report_results import EVIL, results

from saadi.cards import base_licence, dataset_card, model_card, source_licence
from saadi.config import RunConfig
from saadi.configfile import parse_config
from saadi.export import coco, run_lengths, write_set
from saadi.records import IGNORE, Condition, Frame, LabelSpace, Sample


def decoded(counts: list[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of COCO's run lengths, by its definition."""
    flat: list[bool] = []
    for place, count in enumerate(counts):
        flat += [place % 2 == 1] * count
    return np.array(flat, bool).reshape(shape, order="F")


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_run_lengths_say_the_mask(mask: NDArray[np.bool_]) -> None:
    counts = run_lengths(mask)
    np.testing.assert_array_equal(decoded(counts, (mask.shape[0], mask.shape[1])), mask)
    assert all(count > 0 for count in counts[1:])


def test_each_piece_of_a_class_is_an_object() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[0:2, 0:2] = 1
    mask[3, 5] = 1
    mask[2:4, 2:4] = 2
    mask[0, 5] = IGNORE
    found = coco(
        ["a.png", "b.png"], [np.zeros((4, 6), np.uint8), mask], LabelSpace(("background", "hook", "clip"), True)
    )
    assert found["categories"] == [{"id": 1, "name": "hook"}, {"id": 2, "name": "clip"}]
    assert [image["file_name"] for image in found["images"]] == ["a.png", "b.png"]
    told = [(one["image_id"], one["category_id"], one["area"], one["bbox"]) for one in found["annotations"]]
    assert told == [(2, 1, 4, [0, 0, 2, 2]), (2, 1, 1, [5, 3, 1, 1]), (2, 2, 4, [2, 2, 2, 2])]
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3]
    first = found["annotations"][0]["segmentation"]
    assert first == {"size": [4, 6], "counts": [0, 2, 2, 2, 18]}


def head(card: str) -> dict[str, Any]:
    """A card's front matter."""
    _, front, _ = card.split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(front)
    return values


def test_a_models_card_says_data_licences_results_and_use(tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "README.md").write_text("---\nlicense: creativeml-openrail-m\ntags: [x]\n---\nStable Diffusion\n")
    config = parse_config(
        {"data": {"licence": "CC BY-NC-SA 4.0"}, "base": {"model": str(start)}, "alignment": {"beta": 0.25}}, "a test"
    )
    card = model_card(config, results())
    assert head(card)["license"] == "creativeml-openrail-m"
    for words in (
        "CC BY-NC-SA 4.0", "9 real training images of 2 patients", "beta 0.25", "StableDiffusionPipeline",
        'pipe.set_adapters(["round-1", "round-2"])', "Not for clinical use", "round-2 is the round trained last",
        "licence: CC BY-NC-SA 4.0", "smaller on the training image in 62.0 % (95 % interval 56.0 to 68.0) of the cases",
    ):  # fmt: skip
        assert words in card
    assert EVIL in card  # a class's name as it is: this is no HTML
    assert "\n\n\n\n" not in card
    assert "started from\n`start` (" in card
    assert str(tmp_path) not in card  # where something lies may name a person
    assert "base_model" not in head(card)
    hub = config.model_copy(update={"base": config.base.model_copy(update={"model": "hub:them/theirs"})})
    assert head(model_card(hub, results()))["base_model"] == "them/theirs"


def test_a_models_card_counts_the_rounds_that_were_made() -> None:
    found = results()
    assert "aligned in 1 round to" in model_card(
        RunConfig(rounds=3), found | {"arms": {"round-1": found["arms"]["real"]}}
    )
    assert "aligned in 2 rounds to" in model_card(RunConfig(rounds=3), found)


def test_a_models_card_says_which_arm_the_images_are_of_that_it_draws() -> None:
    config, found = RunConfig(rounds=2), results()
    found["arms"] |= dict.fromkeys(("round-1", "unled"), found["arms"]["real"])  # `unled` is of the last round
    said = "they are those of the arm `unled`"
    assert said in model_card(config, found)
    assert said not in model_card(config, found | {"val_choices": {"round": "round-1"}})
    near = config.model_copy(update={"sampling": config.sampling.model_copy(update={"strength": 0.5})})
    assert said not in model_card(near, found)
    assert "where the run's start from training images" in model_card(near, found)


def test_an_image_that_started_from_a_patients_stays_with_that_patient(tmp_path: Path) -> None:
    config = parse_config({"sampling": {"strength": 0.4}}, "a test")
    frames = [Frame("a.png", ("hook",), "P1", "train"), Frame("b.png", ("hook",), "P2", "train")]
    samples = [
        Sample("s0", Condition("hook-0", ("hook",), start=1), 1, 0, "s0.png"),
        Sample("s1", Condition.of("hook"), 1, 1, "s1.png"),
    ]
    facts = {"written": 2, "held_back": 0, "keeps_copies": True, "round": 1, "class": "hook", "seed": 0}
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    (tmp_path / "set").mkdir()
    write_set(tmp_path / "set", config, LabelSpace(("hook",)), samples, images, [], facts, frames)
    lines = (tmp_path / "set/labels.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines] == ["group", "P2", "synthetic-round-1"]
    rows = [json.loads(line) for line in (tmp_path / "set/metadata.jsonl").read_text().splitlines()]
    assert [row.get("started_from") for row in rows] == ["b.png", None]
    card = (tmp_path / "set/README.md").read_text()
    assert "started from a real training image**, noised to 0.4 of the schedule" in card
    assert "photograph" not in card


def test_licences_are_told_or_said_to_be_unknown(tmp_path: Path) -> None:
    assert base_licence("tiny") == "apache-2.0"
    assert base_licence(str(tmp_path)) == "not stated in its folder"
    (tmp_path / "README.md").write_text("no front matter")
    assert base_licence(str(tmp_path)) == "not stated in its folder"
    assert base_licence("hub:nobody/nothing") == "not stated in its folder"
    assert source_licence(parse_config({"data": {"source": "phantom"}}, "")) == "apache-2.0"
    assert (
        source_licence(parse_config({"task": "segmentation", "data": {"source": "set", "set": "dsad"}}, ""))
        == "CC BY 4.0"
    )
    assert source_licence(RunConfig()).startswith("not stated")


@pytest.mark.parametrize("keeps", [False, True])
def test_a_sets_card_inherits_the_images_licence_and_counts_the_copies(keeps: bool) -> None:
    config = parse_config({"task": "segmentation", "data": {"licence": "CC BY 4.0"}}, "a test")
    facts = {"written": 30, "held_back": 4, "keeps_copies": keeps, "round": 2, "class": "hook", "seed": 7}
    card = dataset_card(config, facts)
    assert head(card) == {
        "license": "CC BY 4.0",
        "task_categories": ["image-segmentation"],
        "tags": ["synthetic", "surgical-data-science", "saadi"],
    }
    assert ("4 of 34 images were held back" in card) != keeps
    assert "Labels and masks say what was asked for" in card
    assert "seed 7" in card
