"""What one does with a finished or half-finished run: ask how it stands, draw images from it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from saadi.config import RunConfig, load_config
from saadi.data.stages import read_data
from saadi.diffusion.generator import draw, encode_prompts
from saadi.diffusion.stages import model_at, prompts_of, save_png
from saadi.errors import BadInput
from saadi.evaluation.memorisation import near_copies, nearest_mirrored
from saadi.features import load_embedder
from saadi.foundation import foundation_folder
from saadi.records import write_atomic
from saadi.runtime import prepare_runtime
from saadi.seeds import seed_of
from saadi.store import Run, read_manifests

MAX_TRIES = 4
"""Near-copies are replaced by further draws, up to this many times the images asked for."""


def require_run(folder: Path) -> Path:
    """`folder`, if it is a run's. Raises `BadInput`."""
    if not (folder / "config.yaml").is_file():
        raise BadInput(f"{folder}: not a run of saadi (no config.yaml); runs lie in runs/ by default")
    return folder


def run_status(folder: Path) -> dict[str, Any]:
    """Finished stages with their seconds, whether the run is complete, and the gains."""
    config = load_config(require_run(folder) / "config.yaml")
    manifests = read_manifests(folder)
    results_path = folder / "results.json"
    results = json.loads(results_path.read_text(encoding="utf-8")) if results_path.is_file() else None
    return {
        "run": str(folder),
        "complete": results is not None,
        "rounds": {
            "done": sum(f"round-{k}/adapter" in manifests for k in range(1, config.rounds + 1)),
            "of": config.rounds,
        },
        "seconds": {name: manifest["seconds"] for name, manifest in manifests.items()},
        "split": results["split"] if results else None,
        "gains": results["gains"] if results else {},
    }


def render_status(facts: dict[str, Any]) -> str:
    """A status as text."""
    lines = [f"{facts['run']}: {'complete' if facts['complete'] else 'not complete; the same command resumes'}"]
    lines.append(f"rounds aligned: {facts['rounds']['done']} of {facts['rounds']['of']}")
    trainings = {name: s for name, s in facts["seconds"].items() if name.startswith("evaluation/trainings/")}
    lines += [f"  {name:<32} {seconds:8.1f} s" for name, seconds in facts["seconds"].items() if name not in trainings]
    if trainings:
        lines.append(f"  {f'{len(trainings)} downstream trainings':<32} {sum(trainings.values()):8.1f} s")
    for name, gain in facts["gains"].items():
        low, high = gain["ci95"]
        lines.append(
            f"  {name:<32} {100 * gain['mean']:+6.1f} points ({100 * low:+.1f} to {100 * high:+.1f}) "
            f"on {facts['split']}"
        )
    return "\n".join(lines)


def _round(folder: Path, config: RunConfig, asked: int | None) -> int:
    done = [k for k in range(1, config.rounds + 1) if (folder / f"round-{k}" / "adapter" / "manifest.json").is_file()]
    if not (folder / "base" / "manifest.json").is_file():
        raise BadInput(f"{folder}: its base model is not finished yet; run it first")
    if asked is None:
        results = folder / "results.json"
        chosen = json.loads(results.read_text(encoding="utf-8"))["val_choices"]["round"] if results.is_file() else None
        return int(chosen.removeprefix("round-")) if chosen else max(done, default=0)
    if asked and asked not in done:
        raise BadInput(f"--round {asked}: not finished in {folder}; finished are 0{''.join(f', {k}' for k in done)}")
    return asked


def sample_run(
    folder: Path, label: str, out: Path, count: int, asked: int | None, seed: int, keep_copies: bool
) -> dict[str, Any]:
    """Draw `count` images of a class into a new folder, with `labels.csv` and `metadata.jsonl`; near-copies held back.

    Raises `BadInput` for an unknown class or round, and for a folder that is there already.
    """
    config = load_config(require_run(folder) / "config.yaml")
    prepare_runtime(config)
    round_ = _round(folder, config, asked)
    data = read_data(folder / "data")
    if label not in data.space.names:
        raise BadInput(f"--class {label}: unknown; this run has {', '.join(data.space.names)}")
    if out.exists():
        raise BadInput(f"{out}: is there already; nothing is overwritten, choose another --out")
    threshold = _copy_threshold(folder)
    eyes, train = load_embedder(foundation_folder()), data.split("train")
    keys, mirrored = eyes.embed(train.images), eyes.embed(train.images[:, :, ::-1])

    run = Run(folder, config)
    model = model_at(run, [f"round-{k}/adapter" for k in range(1, round_ + 1)])
    embedding = encode_prompts(model, [prompts_of(config, data.space)[data.space.id(label)], ""])
    kept: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
    held_back = tried = 0
    size = config.sampling.batch
    while len(kept) < count and tried < MAX_TRIES * count:
        seeds = [seed_of("sample", seed, label, round_, index) for index in range(tried, tried + min(size, count))]
        tried += len(seeds)
        images = np.stack(
            list(draw(model, embedding[:1].expand(len(seeds), -1, -1), embedding[1:], seeds, config.sampling))
        )
        distance = nearest_mirrored(eyes.embed(images), keys, mirrored).distance
        copies = near_copies(distance, threshold) & (not keep_copies)
        held_back += int(copies.sum())
        kept += list(images[~copies])
    out.mkdir(parents=True)
    rows, names = kept[:count], [f"{label.replace('/', '-')}-{i:05d}.png" for i in range(len(kept[:count]))]
    (out / "images").mkdir()
    for name, image in zip(names, rows, strict=True):
        save_png(out / "images" / name, image)
    group = f"synthetic-round-{round_}"
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(
        [("file", "label", "group", "split"), *((f"images/{name}", label, group, "train") for name in names)]
    )
    write_atomic(out / "labels.csv", table.getvalue())
    metadata = [json.dumps({"file_name": f"images/{name}", "label": label}) + "\n" for name in names]
    write_atomic(out / "metadata.jsonl", "".join(metadata))
    return {
        "written": len(rows),
        "asked": count,
        "held_back": held_back,
        "round": round_,
        "class": label,
        "out": str(out),
    }


def _copy_threshold(folder: Path) -> float:
    path = folder / "evaluation" / "images" / "images.json"
    if not path.is_file():
        raise BadInput(f"{folder}: its images are not measured yet, so copies cannot be told; finish the run first")
    return float(json.loads(path.read_text(encoding="utf-8"))["copy_threshold"])
