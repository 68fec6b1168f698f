"""A study: pipeline seeds that nothing was tuned on, each a file small enough to commit; tables from these files alone.

    python benchmarks/study.py studies/phantom-classification --seeds 201 202 --work runs/study   # hours; resumable
    python benchmarks/study.py studies/phantom-classification                                      # the table

A seed redraws patients, images, base, critic, samples, adapters and trainings. Its variants share what is before
alignment. A finished seed is `seed-N.json` beside `study.yaml`: figures, and what every training said of every test
image. Of these alone are made table.json and figure.svg.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats
from study_figure import draw, save

from saadi.configfile import demo_config, dump_config
from saadi.evaluation.metrics import confusion, recalls
from saadi.evaluation.statistics import holm
from saadi.files import digest
from saadi.pipeline import run
from saadi.progress import Terminal
from saadi.records import read_json, write_atomic

SHARED = (
    *("data", "base", "critic", "evaluation/sets/unaligned"),
    *(f"evaluation/trainings/{arm}" for arm in ("real", "real-pretrained", "unaligned")),
)
"""What a variant has of the recipe's run; it takes it only if it would have made the same."""
REAL = ("real", "real-augmented", "real-randaugment", "real-mixup", "real-cutmix")
"""Ways of training on real images alone that have seen nothing of the generator's world."""
FURTHER = (
    *(("unled", "unaligned"), ("feedback", "rejection"), ("unpicked", "rejection")),
    *(("real-pretrained", "real"), ("chosen", "real-pretrained")),
)
"""What is told beside the endpoints, without correction: nobody asked for it beforehand."""
LOOKS = ("judge_agreement", "memorised", "kid")
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def unit_of(folder: Path) -> dict[str, Any]:
    """What is kept of a finished run: its figures, and the class that each training gives each test image."""
    results = read_json(folder / "results.json")
    told: dict[str, list[str]] = {}
    with np.load(folder / "evaluation/predictions-test.npz", allow_pickle=False) as arrays:
        truth, groups = arrays["targets"], arrays["groups"]
        for arm in results["arms"]:
            told[arm] = ["".join(LETTERS[k] for k in one.argmax(1)) for one in arrays[arm]]
    keys = ("classes", "rare_classes", "synthetic", "membership", "judge_gains", "val_choices", "critic", "seconds")
    arms = {
        name: {key: arm[key] for key in ("mean", "n_synthetic", "n_generated", "unet_evaluations", "steps", "mixing")}
        for name, arm in results["arms"].items()
    }
    return {
        **{key: results[key] for key in (*keys, "versions", "hashes")},
        "arms": arms,
        "truth": "".join(LETTERS[k] for k in truth),
        "groups": groups.tolist(),
        "predictions": told,
    }


def run_seed(study: Mapping[str, Any], seed: int, work: Path) -> dict[str, Any]:
    """The recipe and its variants on one pipeline seed; resumes."""
    recipe = tuple(study["recipe"])
    whole = work / f"seed-{seed}"
    with Terminal() as terminal:
        run(demo_config(seed, recipe), whole, final=True, begin=terminal.begin)
        found = {"seed": seed, "study": digest(study), **unit_of(whole), "variants": {}}
        for name, changes in study.get("variants", {}).items():
            folder, config = work / f"seed-{seed}-{name}", demo_config(seed, (*recipe, *changes))
            if not folder.exists():
                partial = work / f".seed-{seed}-{name}"
                shutil.rmtree(partial, ignore_errors=True)
                for stage in SHARED:
                    shutil.copytree(whole / stage, partial / stage)
                (partial / "config.yaml").write_text(dump_config(config), encoding="utf-8")
                partial.rename(folder)
            run(config, folder, final=True, begin=terminal.begin)
            found["variants"][name] = unit_of(folder)
    return found


def _by_class(unit: Mapping[str, Any], arm: str) -> NDArray[np.float64]:
    """Recall by class [C], mean over the trainings."""
    truth = np.array([LETTERS.index(letter) for letter in unit["truth"]])
    count = len(unit["classes"])
    tables = [
        recalls(confusion(truth, np.array([LETTERS.index(letter) for letter in one]), count))
        for one in unit["predictions"][arm]
    ]
    return np.asarray(np.mean(tables, 0), np.float64)


def _arm(unit: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The run and the arm that an endpoint means: `chosen`, by val; `strongest`, the best of the real ones by val."""
    if "/" in name:
        variant, _, arm = name.partition("/")
        return unit["variants"][variant], arm
    levels: Mapping[str, float] = unit["val_choices"]["val_balanced_accuracy"]
    if name == "chosen":
        return unit, str(unit["val_choices"]["round"])
    if name == "strongest":
        return unit, max((arm for arm in REAL if arm in levels), key=lambda arm: levels[arm])
    return unit, name


def level_of(unit: Mapping[str, Any], name: str, among: str | None = None) -> float:
    """Balanced accuracy of an arm, 0 .. 1; `among` rare: over the rare classes alone."""
    own, arm = _arm(unit, name)
    values = _by_class(own, arm)
    rare = [own["classes"].index(one) for one in own["rare_classes"]]
    return float(np.nanmean(values[rare] if among == "rare" else values))


def compared(units: Sequence[Mapping[str, Any]], endpoint: Mapping[str, Any]) -> NDArray[np.float64]:
    """By how much an endpoint's arm is better, by seed."""
    sides = [[level_of(unit, endpoint[side], endpoint.get("among")) for unit in units] for side in ("more", "than")]
    return np.asarray(np.array(sides[0]) - np.array(sides[1]), np.float64)


def least_class(units: Sequence[Mapping[str, Any]], endpoint: Mapping[str, Any]) -> tuple[str, float]:
    """The class, of those that the endpoint is of, that its arm gains least in, or loses most, and by how much, the
    mean over seeds."""
    gains = []
    for unit in units:
        (more, better), (than, worse) = (_arm(unit, endpoint[side]) for side in ("more", "than"))
        gains.append(_by_class(more, better) - _by_class(than, worse))
    classes, means = units[0]["classes"], np.mean(gains, 0)
    among = units[0]["rare_classes"] if endpoint.get("among") == "rare" else classes
    least = min(among, key=lambda name: means[classes.index(name)])
    return least, float(means[classes.index(least)])


def looks(units: Sequence[Mapping[str, Any]], more: str, than: str) -> dict[str, dict[str, Any]]:
    """By how much one arm's images are right, near-copies and far from real ones more often than another's."""
    found = {}
    for name in LOOKS:
        sides = [
            [own["synthetic"][arm][name] for own, arm in (_arm(unit, one) for unit in units)] for one in (more, than)
        ]
        found[name] = {
            "levels": [float(np.mean(side)) for side in sides],
            **_told(np.array(sides[0]) - np.array(sides[1])),
        }
    return found


def given_away(units: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How often the model's error tells a training image from another, before alignment and after it, and the rise."""
    areas = {name: np.array([unit["membership"][name]["auc"] for unit in units]) for name in ("base", "aligned")}
    return {name: _told(values) for name, values in (areas | {"rise": areas["aligned"] - areas["base"]}).items()}


def _told(values: NDArray[np.float64]) -> dict[str, Any]:
    """What is said of N seeds' differences: mean, each, the worst, and the t-interval of two or more."""
    entry: dict[str, Any] = {"mean": float(values.mean()), "by_seed": values.tolist(), "least": float(values.min())}
    if len(values) > 1:
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        entry["ci95"] = [float(values.mean() - half), float(values.mean() + half)]
    return entry


def _p_value(values: NDArray[np.float64]) -> float:
    """Two-sided t-test against zero; 1 where seeds all say the same to the last bit, and there is no spread."""
    if np.ptp(values) < 1e-12:
        return 1.0
    return float(stats.ttest_1samp(values, 0).pvalue)


def report(study: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Endpoints with t-intervals over pipeline seeds and Holm's p-values; what is told beside them; arms."""
    found: dict[str, Any] = {"n": len(units), "endpoints": {}, "further": {}, "arms": {}, "images": {}}
    p_values: dict[str, float] = {}
    for name, endpoint in study["endpoints"].items():
        values = compared(units, endpoint)
        if len(values) > 1:
            p_values[name] = _p_value(values)
        found["endpoints"][name] = _told(values) | {"least_class": least_class(units, endpoint)}
    for name, p in holm(p_values).items():
        found["endpoints"][name]["p_holm"] = p
    for more, than in FURTHER:
        if {more, than} <= {"chosen", *units[0]["arms"]}:
            endpoint = {"more": more, "than": than}
            told = _told(compared(units, endpoint)) | {"least_class": least_class(units, endpoint)}
            found["further"][f"{more} - {than}"] = told
    for arm in units[0]["arms"]:
        levels = np.array([level_of(unit, arm) for unit in units if arm in unit["arms"]])
        found["arms"][arm] = {"mean": float(levels.mean()), "by_seed": levels.tolist()}
    for one in ("chosen", *({"unled"} & {*units[0]["arms"]})):
        found["images"][f"{one} - unaligned"] = looks(units, one, "unaligned")
    found["membership"] = given_away(units)
    return found


def _interval(entry: Mapping[str, Any]) -> str:
    return "({:.1f} to {:.1f})".format(*(100 * bound for bound in entry["ci95"])) if "ci95" in entry else "one seed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a folder with study.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[], help="seeds to run first; those done are left")
    parser.add_argument("--work", type=Path, default=Path("runs/study"), help="where their runs' folders lie")
    arguments = parser.parse_args()
    study = yaml.safe_load((arguments.study / "study.yaml").read_text(encoding="utf-8"))
    for seed in arguments.seeds:
        path = arguments.study / f"seed-{seed}.json"
        if not path.exists():
            write_atomic(path, json.dumps(run_seed(study, seed, arguments.work), separators=(",", ":")) + "\n")
    units = [read_json(path) for path in sorted(arguments.study.glob("seed-*.json"))]
    units = [unit for unit in units if unit["study"] == digest(study)]
    if not units:
        parser.error(f"{arguments.study}: no finished seed of this study.yaml; say --seeds; move older files away")
    told = report(study, units)
    table = Table("endpoint, points", "mean", "95 %", "worst seed", "worst class", "p (Holm)")
    for name, entry in (told["endpoints"] | told["further"]).items():
        p = f"{entry['p_holm']:.4f}" if "p_holm" in entry else ""
        worst = "{} {:+.1f}".format(entry["least_class"][0], 100 * entry["least_class"][1])
        table.add_row(name, f"{100 * entry['mean']:+.1f}", _interval(entry), f"{100 * entry['least']:+.1f}", worst, p)
    arms = Table("arm", "accuracy, %", "by seed")
    for name, entry in told["arms"].items():
        arms.add_row(name, f"{100 * entry['mean']:.1f}", ", ".join(f"{100 * one:.0f}" for one in entry["by_seed"]))
    images = Table("images", "of these", "of those", "difference, points", "95 %")
    for pair, measures in told["images"].items():
        for name, entry in measures.items():
            levels = (f"{100 * one:.1f}" for one in entry["levels"])
            images.add_row(f"{name}: {pair}", *levels, f"{100 * entry['mean']:+.1f}", _interval(entry))
    members = Table("the model's error tells a training image from another, %", "mean", "95 %")
    for name, entry in told["membership"].items():
        members.add_row(name, f"{100 * entry['mean']:.1f}", _interval(entry))
    Console(width=120).print(table, arms, images, members, f"{told['n']} pipeline seeds")
    write_atomic(arguments.study / "table.json", json.dumps(told, indent=1) + "\n")
    save(draw, told, arguments.study / "figure.svg")


if __name__ == "__main__":
    main()
