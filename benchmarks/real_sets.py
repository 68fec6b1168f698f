"""The study on real sets: a file for each finished fold, small enough to commit; tables from these files alone.

    python benchmarks/real_sets.py studies/real-sets --sets gyn-lap --work runs/real-sets   # hours; resumable
    python benchmarks/real_sets.py studies/real-sets                           # table.json and figure.svg

A fold tests patients that nothing of its run has seen. `SET-FOLD.json` beside `study.yaml` holds what every training
said of every test image, as counts that scores are ratios of. Configs are looked for from the folder it is called in.
The images are not part of this project.
"""

from __future__ import annotations

import argparse
import base64
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from study import REAL
from study_figure import draw_sets, save

from saadi.configfile import load_config
from saadi.data.load import labelled_frames
from saadi.evaluation.metrics import Tally
from saadi.evaluation.statistics import holm
from saadi.evaluation.together import Fold, read_together
from saadi.files import digest
from saadi.folds import folds_of, read_fold
from saadi.pipeline import run
from saadi.preflight import preflight
from saadi.progress import Terminal
from saadi.records import LabelSpace, read_json, write_atomic

RESAMPLES = 5000
CONTROL = "real-pretrained - real"
"""What the prior alone knows of a set's task."""


def pack(counts: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Whole numbers of any shape as text: int32, zlib, base64. Raises `ValueError` for others."""
    whole = np.rint(counts).astype("<i4")
    if not np.array_equal(whole, counts):
        raise ValueError("only whole numbers can be packed")
    text = base64.b64encode(zlib.compress(np.ascontiguousarray(whole).tobytes(), 9)).decode()
    return {"shape": list(whole.shape), "int32": text}


def unpack(packed: Mapping[str, Any]) -> NDArray[np.float64]:
    """What `pack` packed."""
    raw = zlib.decompress(base64.b64decode(packed["int32"]))
    return np.frombuffer(raw, "<i4").reshape(packed["shape"]).astype(np.float64)


def unit_of(fold: Fold, space: LabelSpace, counts: Mapping[str, int]) -> dict[str, Any]:
    """What is kept of a finished fold."""
    tallies = {}
    for arm, scored in fold.scored.items():
        if not isinstance(scored, Tally):
            raise ValueError(f"{arm}: presence is no ratio of counts; the study is of classes and masks")
        parts, wholes = (np.broadcast_to(one, scored.shape) for one in (scored.parts, scored.wholes))
        shown = None if scored.shown is None else pack(scored.shown)
        tallies[arm] = {"parts": pack(parts), "wholes": pack(wholes), "shown": shown}
    return {
        "classes": list(space.names),
        "background": space.background,
        "counts": dict(counts),
        "fold": fold.name,
        "test": list(fold.test),
        "val": list(fold.val),
        "groups": fold.groups.tolist(),
        "chosen": fold.chosen,
        "further": fold.further,
        "generated": dict(fold.generated),
        "tallies": tallies,
    }


def fold_in(unit: Mapping[str, Any]) -> Fold:
    """The fold that `unit_of` kept."""
    scored = {
        arm: Tally(unpack(one["parts"]), unpack(one["wholes"]), None if one["shown"] is None else unpack(one["shown"]))
        for arm, one in unit["tallies"].items()
    }
    test, val, groups = tuple(unit["test"]), tuple(unit["val"]), np.array(unit["groups"])
    return Fold(unit["fold"], test, val, groups, scored, unit["chosen"], unit["further"], unit["generated"])


def run_set(name: str, entry: Mapping[str, Any], extra: Sequence[str], study: Path, work: Path) -> None:
    """Run each fold of a set whose file is not there; all are checked before the first one begins."""
    config = load_config(Path(entry["config"]), (*entry.get("set", ()), *extra))
    space, frames, _ = labelled_frames(config.data, config.seed, config.task)
    counts = Counter(label for frame in frames for label in frame.labels)
    folds = folds_of(config, frames, entry.get("parts"))
    missing = [fold for fold in folds if not (study / f"{name}-{fold}.json").exists()]
    for fold in missing:
        preflight(folds[fold], work / name / fold)
    for fold in missing:
        own, path, folder = folds[fold], study / f"{name}-{fold}.json", work / name / fold
        with Terminal() as terminal:
            results = run(own, folder, final=True, begin=terminal.begin)
        kept = {
            key: results[key] for key in ("versions", "hashes", "seconds", "val_choices", "judge_gains", "synthetic")
        }
        unit = unit_of(read_fold(fold, own, folder, results, space), space, counts)
        write_atomic(path, json.dumps({"set": name, "entry": digest(dict(entry)), **unit, **kept}) + "\n")


def beside_strongest(folds: Sequence[Fold], levels: Sequence[Mapping[str, float]]) -> list[Fold]:
    """Folds of two arms: the chosen round, under the name of `round-1`, and as `real` whichever way of training on real
    images alone has the highest of a fold's `levels` on val."""
    found = []
    for fold, level in zip(folds, levels, strict=True):
        best = max((arm for arm in REAL if arm in level), key=lambda arm: level[arm])
        scored = {"real": fold.scored[best], "round-1": fold.scored[fold.chosen]}
        further, generated = {arm: dict[str, float]() for arm in scored}, dict.fromkeys(scored, 0)
        found.append(replace(fold, scored=scored, chosen="round-1", further=further, generated=generated))
    return found


def report(study: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By set, what its folds say together; the primary question's p-values corrected over all sets of the study. The
    gains of the control and over the strongest way of training on real images were not asked beforehand."""
    sets: dict[str, Any] = {}
    for name, entry in study["sets"].items():
        own = [unit for unit in units if unit["set"] == name and unit["entry"] == digest(entry)]
        if own:
            space = LabelSpace(tuple(own[0]["classes"]), background=own[0]["background"])
            folds, counts = [fold_in(unit) for unit in own], own[0]["counts"]
            told = read_together(folds, space, counts, RESAMPLES, 0)
            wanted = [study["primary"], *study["others"], CONTROL]
            told["gains"] = {one: told["gains"][one] for one in wanted if one in told["gains"]}
            metric = next(key for key in own[0]["val_choices"] if key.startswith("val_"))
            strongest = beside_strongest(folds, [unit["val_choices"][metric] for unit in own])
            against = read_together(strongest, space, counts, RESAMPLES, 0)["gains"]
            told["gains"]["chosen - strongest real"] = against["chosen - real"]
            sets[name] = told
    primary = {name: told["gains"][study["primary"]]["p"] for name, told in sets.items()}
    corrected = holm(dict.fromkeys(study["sets"], 1.0) | primary)  # one that is not there yet is no reason to hope
    return {"sets": sets, "p_holm": {name: corrected[name] for name in primary}}


def _points(gain: Mapping[str, Any], key: str = "mean", interval: str = "ci95") -> str:
    low, high = gain[interval]
    return f"{100 * gain[key]:+.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a folder with study.yaml")
    parser.add_argument("--sets", nargs="+", default=[], help="sets to run first; folds that are done are left")
    parser.add_argument("--set", dest="extra", action="append", default=[], metavar="A.B=C", help="e.g. threads=1")
    parser.add_argument("--work", type=Path, default=Path("runs/real-sets"), help="where the runs' folders lie")
    arguments = parser.parse_args()
    study = yaml.safe_load((arguments.study / "study.yaml").read_text(encoding="utf-8"))
    if unknown := {*arguments.sets} - {*study["sets"]}:
        parser.error(f"--sets {', '.join(sorted(unknown))}: study.yaml has {', '.join(study['sets'])}")
    for name in arguments.sets:
        run_set(name, study["sets"][name], arguments.extra, arguments.study, arguments.work)
    units = [read_json(path) for path in sorted(arguments.study.glob("*-*.json"))]
    told = report(study, units)
    if not told["sets"]:
        parser.error(f"{arguments.study}: no finished fold of this study.yaml; say --sets; move older files away")
    table = Table(
        "set", "gain, points", "mean (95 %)", "rare classes", "least of groups", "least of classes", "p (Holm)"
    )
    for name, own in told["sets"].items():
        for gain_name, gain in own["gains"].items():
            least = [f"{where} {100 * value:+.1f}" for where, value in (gain["least_group"], gain["least_class"])]
            p = f"{told['p_holm'][name]:.4f}" if gain_name == study["primary"] else ""
            table.add_row(name, gain_name, _points(gain), _points(gain, "rare", "rare_ci95"), *least, p)
    folds = {name: len(own["folds"]) for name, own in told["sets"].items()}
    Console(width=150).print(table, ", ".join(f"{name}: {count} folds" for name, count in folds.items()))
    write_atomic(arguments.study / "table.json", json.dumps(told, indent=1) + "\n")
    save(draw_sets, told, arguments.study / "figure.svg")


if __name__ == "__main__":
    main()
