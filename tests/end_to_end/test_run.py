"""The whole method, small: what a finished run holds, and what one can do with it."""

from __future__ import annotations

import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PATIENTS, Command, Finished, read_json, write_config
from PIL import Image

from saadi.configfile import load_config
from saadi.data.stages import read_data
from saadi.data.table import scan_table
from saadi.diffusion.drawing import draw
from saadi.diffusion.generator import encode_prompts
from saadi.diffusion.stages import model_at
from saadi.evaluation.results import split_digest
from saadi.files import SCRATCH
from saadi.manifests import MANIFEST
from saadi.records import Frame, read_records
from saadi.report.headline import headline

ARMS = (
    *("real", "real-pretrained", "unaligned", "feedback", "rejection", "winners", "round-1", "round-2"),
    *("unled", "unpicked"),
)
ARM_FIELDS = {
    "mean", "ci95", "rare_mean", "per_class", "per_seed", "n_synthetic", "n_generated", "unet_evaluations", "steps",
}  # fmt: skip
FIELDS = {
    "schema", "task", "metric", "n_train", "n_val", "n_test", "groups", "rare_classes", "pipeline_seeds", "seeds",
    "interval", "arms", "gains", "synthetic", "val_choices", "critic", "seconds", "peak_memory", "versions", "hashes",
}  # fmt: skip
GAINS = {
    *(f"{arm} - real" for arm in ARMS[1:]),
    *(f"round-{k} - {other}" for k in (1, 2) for other in ("unaligned", "feedback", "rejection")),
    "round-2 - round-1",
    *(f"{arm} - unaligned" for arm in ("feedback", "unpicked", "unled")),
    *(f"round-2 - {arm}" for arm in ("unpicked", "unled")),
}
SMALL = {
    "rounds": 1,
    "base": {"steps": 2, "batch": 2},
    "alignment": {"steps": 2, "pairs": 2, "bank": 2},
    "evaluation": {
        "drawn": 1,
        "classifier": {"steps": 2, "batch": 4},
        "seeds": 1,
        "synthetic": 6,
        "mixing": [0.5],
        "bootstrap": 20,
    },
}
"""Still smaller, for runs on real files."""


def _mtimes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob(MANIFEST)}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_results_hold_the_whole_schema(finished: Finished) -> None:
    results = finished.results
    assert results.keys() >= FIELDS
    assert (results["schema"], results["task"], results["metric"]) == (1, "classification", "balanced_accuracy")
    assert (results["n_train"], results["n_val"], results["n_test"]) == (24, 8, 16)
    assert {split: len(groups) for split, groups in results["groups"].items()} == {"train": 3, "val": 1, "test": 2}
    assert set(results["rare_classes"]) < set(results["classes"])
    assert (results["pipeline_seeds"], results["seeds"]) == ([3], [0, 1])
    assert results["interval"].keys() >= {"method", "unit"}
    assert results["interval"]["given"] == "given one generator"
    assert (results["final"], results["split"]) == (True, "test")
    assert all(seconds >= 0 for seconds in results["seconds"].values())
    assert {"data", "base", "critic", "round-1/samples", "evaluation/trainings"} <= results["seconds"].keys()
    assert results["peak_memory"] > 1e8
    assert results["versions"].keys() >= {"saadi-diffusion", "torch", "diffusers"}


def test_arms_are_complete_and_comparable(finished: Finished) -> None:
    arms = finished.results["arms"]
    assert tuple(arms) == ARMS
    for arm in arms.values():
        assert arm.keys() >= ARM_FIELDS
        low, high = arm["ci95"]
        assert 0 <= low <= arm["mean"] <= high <= 1
        assert all(0 <= value <= 1 for value in (arm["rare_mean"], *arm["per_class"].values(), *arm["per_seed"]))
        assert arm["steps"] == 2
    assert {arms[name]["n_synthetic"] for name in ARMS[:2]} == {0}
    assert {arms[name]["n_synthetic"] for name in ARMS[2:]} == {8}
    assert arms["rejection"]["n_generated"] == arms["round-2"]["n_generated"] == 2 * 48 + 3 * 8
    assert arms["unpicked"]["n_generated"] == arms["unled"]["n_generated"] == 2 * 48 + 8
    assert arms["feedback"]["n_generated"] == 3 * 8
    spared = arms["round-2"]["unet_evaluations"] - arms["unpicked"]["unet_evaluations"]
    assert spared == 2 * 8 * 2 * 2
    assert arms["unaligned"]["unet_evaluations"] == 8 * 2 * 2  # images, solver steps, both halves of guidance
    assert arms["round-2"]["unet_evaluations"] > arms["round-1"]["unet_evaluations"] > 0


def test_gains_are_differences_of_means(finished: Finished) -> None:
    arms, gains = finished.results["arms"], finished.results["gains"]
    assert gains.keys() >= GAINS
    for name, gain in gains.items():
        arm, other = name.split(" - ")
        assert gain["mean"] == pytest.approx(arms[arm]["mean"] - arms[other]["mean"])
        assert gain["rare"] == pytest.approx(arms[arm]["rare_mean"] - arms[other]["rare_mean"])
        assert gain["ci95"][0] <= gain["mean"] <= gain["ci95"][1]


def test_synthetic_images_are_measured(finished: Finished) -> None:
    results = finished.results
    assert tuple(results["synthetic"]) == ARMS[2:]
    for facts in results["synthetic"].values():
        assert facts.keys() >= {"kid", "coverage", "memorised", "judge_agreement"}
        assert all(0 <= facts[key] <= 1 for key in ("coverage", "memorised", "judge_agreement"))
    assert results["val_choices"]["round"] in ("round-1", "round-2")
    assert results["val_choices"]["mixing"]["round-1"] == 0.5
    assert len(results["critic"]["temperature"]) == 2


def test_the_table_can_be_recomputed_from_the_predictions(finished: Finished) -> None:
    results = finished.results
    with np.load(finished.folder / "evaluation/predictions-test.npz", allow_pickle=False) as kept:
        files, labels, groups = kept["files"].tolist(), kept["targets"], kept["groups"]
        assert len(labels) == len(groups) == 16
        assert set(groups.tolist()) == set(results["groups"]["test"])
        for name, arm in results["arms"].items():
            right = kept[name].argmax(2) == labels  # [seeds, images]
            recall = np.array([right[:, labels == k].mean(1) for k in range(len(results["classes"]))])
            assert arm["per_seed"] == pytest.approx(recall.mean(0).tolist())
            assert arm["mean"] == pytest.approx(recall.mean())
            assert arm["per_class"] == pytest.approx(dict(zip(results["classes"], recall.mean(1), strict=True)))
    frames = [frame for frame in read_records(finished.folder / "data/frames.jsonl", Frame) if frame.split == "test"]
    assert files == [frame.file for frame in frames]
    assert results["hashes"]["test_set"] == split_digest(read_data(finished.folder / "data"), "test")


def test_stock_diffusers_draws_as_the_card_says_and_as_we_do(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished.folder)
    code = Path("model-card.md").read_text(encoding="utf-8").split("```python")[1].split("```")[0]
    known = {"prompt": "a laparoscopic image of a hook", "generator": torch.Generator().manual_seed(7)}
    exec(code, known)  # what a reader of the card would run
    last = int(code.rpartition('"round-')[2][0])
    config = load_config(finished.config)
    aligned = model_at(finished.folder, config, [f"round-{k}/adapter" for k in range(1, last + 1)])
    asked, blank = (encode_prompts(aligned, [prompt]) for prompt in (str(known["prompt"]), ""))
    (ours,) = draw(aligned, asked, blank, [7], config.sampling)
    assert ours.std() > 1
    assert np.abs(np.asarray(known["image"]).astype(int) - ours).max() <= 1


def test_a_finished_folder_is_tidy(finished: Finished) -> None:
    assert (finished.folder / "report.html").stat().st_size > 10_000
    assert _lines(finished.folder / "test-reads.jsonl") == 1
    names = {path.name for path in finished.folder.rglob("*")}
    assert not [name for name in names if name.endswith((".partial", ".pt", ".pkl", ".bin", ".unfinished", SCRATCH))]
    assert "checkpoint.safetensors" not in names


def test_the_finished_command_does_nothing_twice(finished: Finished, saadi: Command, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    before = _mtimes(folder)
    again = saadi("run", finished.config, "--out", folder, "--final", "--json")
    assert again.code == 0
    assert json.loads(again.out) == read_json(folder / "results.json") == finished.results
    assert _lines(folder / "test-reads.jsonl") == 2

    val = saadi("run", finished.config, "--out", folder)
    assert val.code == 0
    assert "balanced accuracy" in val.out
    assert headline(finished.results)[0] in val.out
    assert str(folder / "report.html") in val.out
    assert "final results, read on test; they stay" in val.err
    assert read_json(folder / "results.json") == finished.results  # what was read on test is not replaced by val
    assert _lines(folder / "test-reads.jsonl") == 2  # val never reads test
    assert _mtimes(folder) == before


def test_status(finished: Finished, saadi: Command, tmp_path: Path) -> None:
    facts = json.loads(saadi("status", finished.folder, "--json").out)
    assert facts["complete"]
    assert facts["rounds"] == {"done": 2, "of": 2}
    assert facts["gains"] == finished.results["gains"]
    folder = finished.copy(tmp_path)
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "round-2/adapter")
    text = saadi("status", folder)
    assert text.code == 0
    assert "not complete; the same command resumes" in text.out
    assert "rounds aligned: 1 of 2" in text.out


def test_report_writes_the_page_anew(finished: Finished, saadi: Command, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path)
    (folder / "report.html").unlink()
    assert saadi("report", folder).out == f"The page: {folder / 'report.html'}\n"
    assert "round-2" in (folder / "report.html").read_text(encoding="utf-8")


def test_sample_writes_images_that_can_be_used(finished: Finished, saadi: Command, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    arguments = ("sample", finished.folder, "--class", "needle driver", "-n", 3, "--keep-copies")
    facts = json.loads(saadi(*arguments, "--out", out, "--json").out)
    assert (facts["written"], facts["asked"], facts["held_back"]) == (3, 3, 0)
    assert f"round-{facts['round']}" == finished.results["val_choices"]["round"]

    scan = scan_table(out, "classification")  # our own input contract
    assert not scan.problems
    assert {(frame.label, frame.split) for frame in scan.frames} == {("needle driver", "train")}
    with (out / "metadata.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert [row["file_name"] for row in rows] == [frame.file for frame in scan.frames]
    assert {row["label"] for row in rows} == {"needle driver"}
    images = [np.asarray(Image.open(out / row["file_name"])) for row in rows]
    assert {image.shape for image in images} == {(32, 32, 3)}

    saadi(*arguments, "--out", out).refused(str(out), "nothing is overwritten")
    assert saadi(*arguments, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again/images/needle driver-00002.png").read_bytes() == (out / rows[2]["file_name"]).read_bytes()


def test_sample_holds_near_copies_back(finished: Finished, saadi: Command, tmp_path: Path) -> None:
    folder, out = finished.copy(tmp_path), tmp_path / "drawn"
    measured = folder / "evaluation/images/images.json"
    measured.write_text(json.dumps({**read_json(measured), "copy_threshold": 10.0}), encoding="utf-8")
    said = saadi("sample", folder, "--class", "hook", "-n", 2, "--round", 0, "--out", out)
    said.refused("--class hook: all 8 drawn were near-copies", "--keep-copies")
    assert not out.exists()


def test_sample_refuses(finished: Finished, saadi: Command, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    saadi("sample", finished.folder, "--class", "hok", "--out", out).refused("--class hok", "hook")
    saadi("sample", finished.folder, "--class", "hook", "--round", 7, "--out", out).refused("--round 7", "0, 1, 2")
    assert not out.exists()


def test_check(saadi: Command, tiny: Path) -> None:
    text = saadi("check", tiny)
    assert text.code == 0
    assert "needle driver" in text.out
    found = json.loads(saadi("check", tiny, "--json").out)
    assert sum(counts["test"] for counts in found["classes"].values()) == 16
    assert found["errors"] == []


def test_check_lists_every_problem(saadi: Command, table: Path, tmp_path: Path) -> None:
    shutil.copy(table / "images/P1-hook-1.png", table / "images/P3-hook-0.png")
    (table / "images/P2-clip-0.png").write_bytes(b"")
    config = write_config(tmp_path / "config.yaml", data={"source": "table", "path": "table", "size": 32})
    found = saadi("check", config, "--json")
    assert found.code == 2
    errors = " ".join(json.loads(found.out)["errors"])
    assert "P2-clip-0.png" in errors
    assert "in two splits" in errors


def test_a_table_of_images(saadi: Command, table: Path, tmp_path: Path) -> None:
    data = {"source": "table", "path": "table", "size": 40, "square": "crop"}
    judged = {
        "classifier": {"steps": 4, "batch": 4},
        "judge": {"model": "test_resnet", "steps": 2, "batch": 4},
        "folds": 2,
    }
    config = write_config(tmp_path / "config.yaml", data=data, critic=judged, **SMALL)
    outcome = saadi("run", config, "--out", tmp_path / "run", "--final", "--json")
    assert outcome.code == 0, outcome.err
    results = json.loads(outcome.out)
    assert results["classes"] == ["clip", "hook"]
    assert results["groups"] == {"train": ["P1", "P2"], "val": ["P3"], "test": ["P4"]}
    assert results["notes"] == ["1 RGBA image converted to RGB", "1 grey image converted to RGB"]
    assert "validation images" in results["memorisation_yardstick"]
    assert results["arms"]["round-1"]["n_synthetic"] == 6
    assert "unpicked" not in results["arms"]  # all that is drawn is used
    assert "1 grey image converted" in (tmp_path / "run/report.html").read_text(encoding="utf-8")


def test_class_folders_with_patients_in_their_names(saadi: Command, table: Path, tmp_path: Path) -> None:
    for file in (table / "images").iterdir():
        _, label, _ = file.stem.split("-")
        (table / label).mkdir(exist_ok=True)
        file.rename(table / label / file.name)
        pixels = np.asarray(Image.open(table / label / file.name))
        for extra in (5, 6, 7):  # patients enough that every draw leaves enough images of a class in train
            Image.fromarray(np.roll(pixels, extra, 0)).save(table / label / f"P{extra}-{file.name}")
    (table / "images").rmdir()
    data = {"source": "folders", "path": "table", "groups": r"/(P\d)", "size": 32}
    config = write_config(tmp_path / "config.yaml", data=data, **SMALL)
    outcome = saadi("run", config, "--out", tmp_path / "run", "--json")
    assert outcome.code == 0, outcome.err
    results = json.loads(outcome.out)
    assert results["classes"] == ["clip", "hook"]
    assert sorted(chain.from_iterable(results["groups"].values())) == sorted([*PATIENTS, "P5", "P6", "P7"])
    assert any("no split is given" in note for note in results["notes"])
