"""What one does with a finished or half-finished run: ask how it stands, draw images from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi.config import RunConfig
from saadi.configfile import load_config
from saadi.critics.leading import open_led
from saadi.data import Dataset
from saadi.data.conditions import conditions_of
from saadi.data.stages import read_data
from saadi.diffusion.painting import Painter
from saadi.errors import BadInput
from saadi.evaluation.memorisation import near_copies
from saadi.export import write_set
from saadi.features import load_embedder, nearest_mirrored
from saadi.foundation import foundation_folder
from saadi.manifests import read_manifests
from saadi.records import Sample, read_json
from saadi.report.wording import estimate
from saadi.runtime import prepare_runtime
from saadi.seeds import seed_of
from saadi.store import Run

Images = NDArray[np.uint8]
IsCopy = Callable[[Images], NDArray[np.bool_]]

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
    results = read_json(folder / "results.json")
    return {
        "run": str(folder),
        "complete": bool(results),
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
    if facts["gains"]:
        lines.append(f"gains on {facts['split']}, in points (95 % interval):")
        lines += [f"  {name:<32} {estimate(g['mean'], g['ci95'], sign=True)}" for name, g in facts["gains"].items()]
    return "\n".join(lines)


def _round(folder: Path, config: RunConfig, asked: int | None) -> int:
    done = [k for k in range(1, config.rounds + 1) if (folder / f"round-{k}" / "adapter" / "manifest.json").is_file()]
    if not (folder / "base" / "manifest.json").is_file():
        raise BadInput(f"{folder}: its base model is not finished yet; run it first")
    if asked is None:
        chosen = read_json(folder / "results.json").get("val_choices", {}).get("round")
        return int(chosen.removeprefix("round-")) if chosen else max(done, default=0)
    if asked and asked not in done:
        raise BadInput(f"--round {asked}: not finished in {folder}; finished are 0{''.join(f', {k}' for k in done)}")
    return asked


def sample_run(
    folder: Path, label: str, out: Path, count: int, asked: int | None, seed: int, keep_copies: bool
) -> dict[str, Any]:
    """Draw `count` images of a class into a new folder, with tables and a card (`export`); near-copies held back.

    The folder appears whole or not at all. Raises `BadInput` for an unknown class or round, for a folder that holds
    something or has no place to be, and, unless copies are kept, for a run whose images are not measured yet, and where
    all that was drawn were copies.
    """
    config = load_config(require_run(folder) / "config.yaml")
    prepare_runtime(config)
    round_ = _round(folder, config, asked)
    data = read_data(folder / "data")
    if label not in data.space.asked:
        raise BadInput(f"--class {label}: unknown; this run has {', '.join(data.space.asked)}")
    with _appearing(out) as place:
        is_copy = _none_is_a_copy if keep_copies else _copy_detector(folder, data)
        samples, images, masks, held_back = _draw_new(Run(folder, config), label, count, round_, seed, is_copy)
        if not images:
            raise BadInput(
                f"--class {label}: all {held_back} drawn were near-copies of training images; "
                "--keep-copies keeps them, another --seed draws others, or train longer"
            )
        facts = {
            "written": len(images),
            "asked": count,
            "held_back": held_back,
            "keeps_copies": keep_copies,
            "round": round_,
            "class": label,
            "seed": seed,
            "out": str(out),
        }
        write_set(place, config, data.space, samples, images, masks, facts, data.split("train").frames)
    return facts


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A hidden folder to fill, renamed to `out` at the end and removed where that is not reached.

    It lies beside `out`; where `out` is there already, and empty, in it, and what it holds moves up: an empty folder
    may be a mount point. One that a kill left behind is removed first. Raises `BadInput` where `out` holds something or
    has no parent.
    """
    name = f".{out.resolve().name}.partial"
    if out.exists() and not (out.is_dir() and all(entry.name == name for entry in out.iterdir())):
        raise BadInput(f"{out}: is there already; nothing is overwritten, choose another --out")
    whole = out.resolve()
    if not whole.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {whole.parent}; make it, or choose another --out")
    partial = (whole if whole.exists() else whole.parent) / name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if whole.exists():
            for entry in sorted(partial.iterdir()):  # the images before the tables that name them
                entry.rename(whole / entry.name)
        else:
            partial.rename(whole)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _draw_new(
    run: Run, label: str, count: int, round_: int, seed: int, is_copy: IsCopy
) -> tuple[list[Sample], list[Images], list[Images], int]:
    """Up to `count` samples of a class that are no copies, their images [S, S, 3], for segmentation their masks [S, S],
    and how many copies were held back."""
    opened = open_led if round_ and run.config.sampling.lead else Painter.open
    painter = opened(run.folder, run.config, [f"round-{k}/adapter" for k in range(1, round_ + 1)])
    condition = conditions_of(run.config, painter.train, f"sample-{seed}")
    samples: list[Sample] = []
    pixels: list[Images] = []
    masks: list[Images] = []
    held_back = tried = 0
    size = min(run.config.sampling.batch, count)
    while len(samples) < count and tried < MAX_TRIES * count:
        numbers = range(tried, tried + size)
        tried += size
        drawn = [
            Sample("", condition(label, k), round_, seed_of("sample", seed, label, round_, k), "") for k in numbers
        ]
        images, maps = painter.paint(drawn)
        copies = is_copy(images)
        held_back += int(copies.sum())
        kept = np.flatnonzero(~copies)
        samples += [drawn[row] for row in kept]
        pixels += list(images[kept])
        masks += [] if maps is None else list(maps[kept])
    return samples[:count], pixels[:count], masks[:count], held_back


def _none_is_a_copy(images: Images) -> NDArray[np.bool_]:
    return np.zeros(len(images), np.bool_)


def _copy_detector(folder: Path, data: Dataset) -> IsCopy:
    """Tells which of some images [N, S, S, 3] are near-copies of training images. Raises `BadInput` if unmeasured."""
    path = folder / "evaluation" / "images" / "images.json"
    if not path.is_file():
        raise BadInput(
            f"{folder}: its images are not measured yet, so copies cannot be told; "
            "finish the run first, or give --keep-copies"
        )
    threshold = float(json.loads(path.read_text(encoding="utf-8"))["copy_threshold"])
    eyes, train = load_embedder(foundation_folder()), data.split("train")
    keys, mirrored = eyes.embed(train.images), eyes.embed(train.images[:, :, ::-1])
    return lambda images: near_copies(nearest_mirrored(eyes.embed(images), keys, mirrored).distance, threshold)
