"""The page: true sentences, whole HTML, nothing from outside, nothing hostile let through, missing stages said."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_results import EVIL, NAMES, results

from saadi.errors import BadInput
from saadi.preferences import score
from saadi.records import Condition, Frame, Pair, Sample
from saadi.report import results_table, write_page
from saadi.report.page import grids
from saadi.report.reader import read_run

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Counts tags, keeps attributes, and fails where a tag closes that is not the open one."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check(path: Path) -> Checker:
    """Parse a page and check all that holds for every page."""
    checker = Checker()
    html = path.read_text(encoding="utf-8")
    checker.feed(html)
    checker.close()
    assert not checker.open
    assert not re.search(r"https?://|<script|@import|url\((?!#)", html)
    ids = [attributes["id"] for _, attributes in checker.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in checker.tags:
        assert tag not in {"script", "link", "iframe", "object", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/")
            assert "alt" in attributes
        if "href" in attributes:
            assert str(attributes["href"]).startswith("#")
            assert str(attributes["href"])[1:] in ids
    policy = [attributes["content"] for _, attributes in checker.tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    return checker


def dump(path: Path, *rows: Any) -> None:
    """Write JSON, or JSON Lines by the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row if isinstance(row, dict) else asdict(row)) + "\n" for row in rows))


def make_samples(run: Path, folder: str, key: str) -> list[Sample]:
    samples = [Sample(f"{key}{k}", Condition.of(NAMES[k % 3]), 0, k, f"{folder}/{k}.png") for k in range(6)]
    dump(run / folder / "samples.jsonl", *samples, Sample(f"{key}x", Condition.of(EVIL), 0, 9, f"../{EVIL}"))
    for k in range(6):
        Image.new("RGB", (8, 8), (40 * k, 90, 20)).save(run / folder / f"{k}.png")
    return samples


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole miniature run, its class names, files and notes as hostile as they come."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(f"rounds: 2\n# {EVIL}\n")
    dump(run / "data/space.json", {"names": list(NAMES)})
    dump(run / "data/frames.jsonl", *(Frame(f"{EVIL}{k}", (NAMES[k % 3],), "a", "train") for k in range(9)))
    np.save(run / "data/images.npy", np.full((9, 8, 8, 3), 120, np.uint8))
    dump(run / "base/log.jsonl", *({"step": k, "loss": 1 / (k + 1)} for k in range(50)))
    for k in (1, 2):
        samples = make_samples(run, f"round-{k}/samples", f"r{k}-")
        seen = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.2, 0.1, 0.7], *[[0.05, 0.83, 0.12]] * 3])
        scores = score("critic-loss", [one.id for one in samples], np.log(seen), np.array([0, 1, 2, 0, 1, 2]))
        dump(run / f"round-{k}/scores/scores.jsonl", *scores)
        dump(
            run / f"round-{k}/pairs/pairs.jsonl", Pair(f"r{k}-2", f"r{k}-5", EVIL, 0.3), Pair("gone", "x", "hook", 1.0)
        )
        dump(run / f"round-{k}/pairs/summary.json", {"hook": {"candidates": 48, "right": 1, "pairs": 0}})
        log = [{"step": i, "loss": 0.7} for i in range(3)]
        held = {"loss": 0.7, "pair_accuracy": 0.6, "winner_change": -0.01, "loser_change": 0.02}
        dump(run / f"round-{k}/adapter/log.jsonl", *log, *({"step": i, **held} for i in range(3)))
        dump(run / f"round-{k}/adapter/summary.json", {"stopped_at": 3, "reason": EVIL})
    for arm in ("unaligned", "round-2"):
        make_samples(run, f"evaluation/sets/{arm}", arm)
    near = {"sample": "evaluation/sets/round-2/0.png", "train_index": 99, "distance": 0.1, "label": EVIL}
    dump(run / "evaluation/images/neighbours.json", {"round-2": [near, near | {"train_index": 1}], EVIL: []})
    dump(run / "results.json", results())
    return run


def test_the_page_shows_aligned_images_as_drawn_and_tells_the_pick_in_a_figure(run: Path) -> None:
    same = (
        "nobody picked them, and an image before alignment and the one in its place after it start from the same noise"
    )
    assert same in check(write_page(run)).text  # so the judge's gains of round 2 say
    found = results()
    del found["judge_gains"]
    dump(run / "results.json", found)
    assert "nobody picked them. " in check(write_page(run)).text
    found["synthetic"] = {
        arm: {"judge_by_class": {"hook": share}} for arm, share in (("unpicked", 0.5), ("round-2", 1))
    }
    dump(run / "results.json", found)
    drawn = make_samples(run, "evaluation/sets/drawn", "drawn")
    dump(run / "evaluation/sets/round-2/drawn.jsonl", *drawn, *drawn)
    (cell,) = [grid["cells"][2] for grid in grids(read_run(run)) if grid["label"] == "hook"]
    assert cell["seen"] == {"unpicked": 0.5, "round-2": 1}
    text = check(write_page(run)).text
    assert same in text
    assert "seen as such: 50 %, after the pick: 100 %" in text.replace("\xa0", " ")


def test_the_page_says_that_aligned_images_were_led_where_they_were(run: Path) -> None:
    told = "The critic led the aligned model"
    assert told not in check(write_page(run)).text
    (run / "config.yaml").write_text("rounds: 2\nsampling: {lead: 0.1}\n")
    assert told in check(write_page(run)).text


def test_the_page_says_that_a_student_picked_where_it_did(run: Path) -> None:
    told = "those that it expects least"
    for settings, expected in (
        ("{drawn: 3, pick: hard}", True),
        ("{drawn: 3, pick: sure}", False),
        ("{drawn: 1, pick: hard}", False),
    ):
        (run / "config.yaml").write_text(f"rounds: 2\nevaluation: {settings}\n")
        assert (told in check(write_page(run)).text) is expected


def test_a_whole_page_is_well_formed_and_lets_nothing_hostile_through(run: Path) -> None:
    page = check(write_page(run))
    assert {"img", "svg", "table"} <= {tag for tag, _ in page.tags}
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 7
    assert "Aligned images (round 2) add 4.1 points" in page.text
    assert "Not there yet" not in page.text
    assert "not for clinical use" in page.text
    assert EVIL in page.text
    assert "these score 5.0 % by construction" in page.text
    assert (
        "Alignment alone changes how often an independent judge recognises the class by +3.0 points "
        "(95 % interval 1.0 to 5.2, 96 images of the same noise)." in page.text
    )
    assert "0.012" in page.text  # the corrected p-value
    assert "< 0.001" not in page.text


def test_a_pair_says_what_the_critic_saw(run: Path) -> None:
    text = check(write_page(run)).text.replace("\xa0", " ")
    assert f"preferredscore −0.36judged {EVIL}, 70 %\n" in text
    assert f"not preferredscore −2.12judged clip applier, 83 %{EVIL}: 12 %\n" in text
    assert text.count("score not kept") == 2 * 2  # of two pairs' samples, a round each
    own = [json.loads(line) | {"parts": {}} for line in (run / "round-1/scores/scores.jsonl").read_text().splitlines()]
    dump(run / "round-1/scores/scores.jsonl", *own)
    assert "class not recognised" in check(write_page(run)).text


def test_what_was_not_measured_is_said_and_breaks_nothing(run: Path) -> None:
    found = results()
    for arm in found["arms"].values():
        arm |= {"per_class": {"hook": 0.5, "clip applier": 0.5, EVIL: None}, "rare_mean": None}
        arm["rare_ci95"] = [None, None]
    for name in found["gains"]:
        found["gains"][name] |= {"rare": None, "rare_ci95": [None, None]}
    for facts in found["synthetic"].values():
        facts["memorised_by_class"] = {EVIL: None}
    found |= {"classes": ["hook", "clip applier", EVIL], "memorised_fresh": None}
    dump(run / "results.json", found)
    page = check(write_page(run))
    assert f"Not measured, since no test image shows them: {EVIL}." in page.text
    assert f"Not measured, for want of images: {EVIL}." in page.text
    assert "Rare classes" not in page.text
    assert page.text.count("not measured") == 3 + 3 + 1  # arms, gains, the bar
    assert re.split(r"\s{2,}", results_table(found).splitlines()[4])[2] == "not measured"


def test_nothing_measured_at_all_is_still_a_page(run: Path) -> None:
    found = results()
    nothing = {"mean": None, "ci95": [None, None], "rare": None, "rare_ci95": [None, None], "p": None, "p_holm": None}
    for name in found["gains"]:
        found["gains"][name] = nothing
    for arm in found["arms"].values():
        arm |= {"mean": None, "ci95": [None, None], "per_seed": [None, None], "per_class": dict.fromkeys(NAMES)}
    dump(run / "results.json", found)
    page = check(write_page(run))
    assert "How aligned images (round 2) compare with real images alone was not measured" in page.text
    assert "no gain" not in page.text.lower()
    found.pop("gains")
    dump(run / "results.json", found)
    assert "These results do not compare aligned images with real images alone." in check(write_page(run)).text


@pytest.mark.parametrize(
    "kept", [(), ("data",), ("data", "base", "round-1"), ("data", "evaluation"), ("results.json",)]
)
def test_missing_stages_are_tolerated_and_said(run: Path, kept: tuple[str, ...]) -> None:
    for path in run.iterdir():
        if path.name not in {"config.yaml", *kept}:
            path.rename(run.parent / path.name)
    page = check(write_page(run, run.parent / "elsewhere.html"))
    assert "Not there yet" in page.text
    assert ("No result yet" in page.text) == ("results.json" not in kept)
    assert not (run / "report.html").exists()


def test_results_of_the_future_and_of_the_past_are_tolerated(run: Path) -> None:
    arms = {"real": {"mean": float("nan"), "per_class": {}}, "new": {"mean": 0.5}}
    dump(run / "results.json", {"arms": arms, "name": "half a character: \ud800"})
    page = check(write_page(run))
    assert "do not compare" in page.text
    assert "Not final" in page.text


def test_of_segmentation_masks_are_outlined_as_asked_for_and_as_seen(run: Path) -> None:
    """In yellow what is asked for, in blue what the judge sees; the place is shown without the sample."""
    (run / "config.yaml").write_text("task: segmentation\nrounds: 2\n")
    dump(run / "data/space.json", {"names": ["background", *NAMES], "background": True})
    ids = np.zeros((9, 8, 8), np.uint8)
    ids[:, 2:4, 2:6] = 1
    np.save(run / "data/masks.npy", ids)
    for arm in ("unaligned", "round-2"):
        samples = [
            Sample(f"{arm}-{k}", Condition(f"c{k}", ("hook",), k, 8 - k), 0, k, f"{arm}/{k}.png", f"{arm}/{k}-mask.png")
            for k in range(3)
        ]
        dump(run / f"evaluation/sets/{arm}/samples.jsonl", *samples)
        (run / arm).mkdir(exist_ok=True)
        (run / "evaluation/images/seen" / arm).mkdir(parents=True)
        for k, sample in enumerate(samples):
            Image.new("RGB", (8, 8), (90, 20, 20)).save(run / sample.file)
            Image.fromarray(ids[k]).save(run / str(sample.mask))
            Image.fromarray(ids[k].T).save(run / f"evaluation/images/seen/{arm}/{sample.id}.png")
    found = results() | {"task": "segmentation", "metric": "dice"}
    found["arms"] = {arm: row | {"iou": 0.4, "surface_distance": 2.34} for arm, row in found["arms"].items()}
    dump(run / "results.json", found)
    (grid,) = [grid for grid in grids(read_run(run)) if grid["label"] == "hook"]
    assert [cell["title"] for cell in grid["cells"]] == ["real", "asked for", "unaligned", "aligned, round 2"]
    text = check(write_page(run)).text
    assert "for the same place in the same frame" in text
    assert "class not recognised" not in text
    assert "mask not found" in text
    assert re.search(r"surface distance, pixels.*2\.3", text, re.DOTALL)


def test_files_outside_the_run_are_not_shown(run: Path) -> None:
    Image.new("RGB", (8, 8)).save(run.parent / "secret.png")
    read = read_run(run)
    assert read.picture("../secret.png") is None
    assert read.picture(str(run.parent / "secret.png")) is None
    assert read.picture("config.yaml") is None
    assert read.picture("round-1/samples/0.png") is not None
    assert read.real(-1) is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("results.json", "{"), ("results.json", "[]"), ("data/frames.jsonl", '{"a": 1}\n'),
        ("base/log.jsonl", '{"st\n{"step": 1}\n'), ("data/images.npy", "no array"),
    ],
)  # fmt: skip
def test_broken_files_get_one_line(run: Path, file: str, text: str) -> None:
    (run / file).write_text(text)
    with pytest.raises(BadInput, match=re.escape(file)) as caught:
        write_page(run)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_run_is_refused_and_a_half_written_log_is_not(run: Path) -> None:
    with pytest.raises(BadInput, match="not a run's folder"):
        write_page(run.parent)
    with (run / "base/log.jsonl").open("a") as log:
        log.write('{"step": 50, "lo')
    assert len(read_run(run).base_log) == 50
