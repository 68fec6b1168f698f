"""`results.json`: every figure the page shows, with intervals, from predictions that are kept beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import features
from saadi.data import Dataset
from saadi.evaluation.arms import Arm, predict
from saadi.evaluation.metrics import balanced_accuracy, calibration_error, confusion, macro_f1, rare_classes
from saadi.evaluation.statistics import Bootstrap, crossed_bootstrap
from saadi.records import Split, write_atomic
from saadi.store import Run, digest, file_digest, read_manifests, versions

SCHEMA = 1
Predictions = dict[str, NDArray[np.float64]]
"""By arm, log-probabilities [seeds, N, C]."""


def choose(run: Run, data: Dataset, arms: Sequence[Arm]) -> dict[str, Any]:
    """Choices made on val alone: each arm's mixing share, and the round. All arms have equally many trials."""
    val, config = data.split("val"), run.config.evaluation

    def level(arm: Arm, share: float) -> float:
        tables = [
            confusion(val.labels, predict(run, data, arm, share, seed, "val").argmax(1), len(data.space))
            for seed in range(config.seeds)
        ]
        return float(np.mean([balanced_accuracy(table) for table in tables]))

    levels = {arm.name: {share: level(arm, share) for share in shares_of(run, arm)} for arm in arms}
    mixing = {name: max(options, key=lambda share: options[share]) for name, options in levels.items()}
    best = {name: levels[name][share] for name, share in mixing.items()}
    rounds = [name for name in best if name.startswith("round-")]
    return {"mixing": mixing, "val_balanced_accuracy": best, "round": max(rounds, key=lambda name: best[name])}


def shares_of(run: Run, arm: Arm) -> tuple[float, ...]:
    """The mixing shares an arm is trained with: none has nothing to mix."""
    return run.config.evaluation.mixing if arm.samples else (0.0,)


def gather(run: Run, data: Dataset, arms: Sequence[Arm], mixing: Mapping[str, float], split: Split) -> Predictions:
    """Predictions of all arms on a split. Reading `test` is logged in the run's folder."""
    if split == "test":
        line = json.dumps({"read": "test", "at": datetime.now(UTC).isoformat(timespec="seconds")})
        with (run.folder / "test-reads.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")
    seeds = range(run.config.evaluation.seeds)
    return {a.name: np.stack([predict(run, data, a, mixing[a.name], s, split) for s in seeds]) for a in arms}


def _gains(boot: Bootstrap, names: Sequence[str], rare: Sequence[int]) -> dict[str, Any]:
    """Every arm against `real`; every round against the rivals and the round before."""
    wanted = [(name, "real") for name in names if name != "real"]
    for name in names:
        if name.startswith("round-"):
            before = f"round-{int(name[6:]) - 1}"
            wanted += [(name, other) for other in ("unaligned", "rejection", "winners", before) if other in names]
    gains = {}
    for arm, other in wanted:
        mean, (low, high) = boot.difference(arm, other)
        rare_mean, rare_interval = boot.difference(arm, other, rare)
        gains[f"{arm} - {other}"] = {
            "mean": mean,
            "ci95": [low, high],
            "p": boot.paired_p(arm, other),
            "rare": rare_mean,
            "rare_ci95": list(rare_interval),
        }
    return gains


def _arm(
    arm: Arm,
    boot: Bootstrap,
    log_probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    names: Sequence[str],
    rare: Sequence[int],
    steps: int,
    share: float,
) -> dict[str, Any]:
    tables = [confusion(labels, one.argmax(1), len(names)) for one in log_probabilities]
    estimate, rare_estimate = boot.interval(arm.name), boot.interval(arm.name, rare)
    by_class = {name: boot.interval(arm.name, (i,)).mean for i, name in enumerate(names)}
    return {
        "mean": estimate.mean,
        "ci95": list(estimate.interval),
        "rare_mean": rare_estimate.mean,
        "rare_ci95": list(rare_estimate.interval),
        "per_class": {name: None if np.isnan(value) else value for name, value in by_class.items()},
        "per_seed": [balanced_accuracy(table) for table in tables],
        "macro_f1": float(np.mean([macro_f1(table) for table in tables])),
        "calibration_error": float(np.mean([calibration_error(labels, np.exp(one)) for one in log_probabilities])),
        "n_synthetic": len(arm.samples),
        "n_generated": arm.generated,
        "unet_evaluations": arm.passes,
        "steps": steps,
        "mixing": share if arm.samples else None,
    }


def write_results(run: Run, data: Dataset, arms: Sequence[Arm], *, final: bool) -> dict[str, Any]:
    """Choose on val, read `test` if `final`, and write `results.json` and the predictions behind it."""
    config, split = run.config, "test" if final else "val"
    choices = choose(run, data, arms)
    mixing: dict[str, float] = choices["mixing"]
    predictions = gather(run, data, arms, mixing, "test" if final else "val")
    shown, train = data.split("test" if final else "val"), data.split("train")
    names = list(data.space.names)
    rare_names = rare_classes(train.counts())
    rare = [names.index(name) for name in rare_names]
    boot = crossed_bootstrap(
        {name: values.argmax(2) for name, values in predictions.items()},
        shown.labels,
        shown.groups,
        len(names),
        config.evaluation.bootstrap,
        config.seed,
    )
    manifests = read_manifests(run.folder)
    images = json.loads((run.path("evaluation/images") / "images.json").read_text(encoding="utf-8"))
    critic = json.loads((run.path("critic") / "critic.json").read_text(encoding="utf-8"))
    groups = {part: sorted({f.group for f in data.frames if f.split == part}) for part in ("train", "val", "test")}
    steps = config.evaluation.classifier.steps
    results = {
        "schema": SCHEMA,
        "task": "classification",
        "name": run.folder.name,
        "final": final,
        "split": split,
        "metric": "balanced_accuracy",
        **{f"n_{part}": sum(frame.split == part for frame in data.frames) for part in ("train", "val", "test")},
        "groups": groups,
        "classes": names,
        "train_counts": train.counts(),
        "rare_classes": list(rare_names),
        "pipeline_seeds": [config.seed],
        "seeds": list(range(config.evaluation.seeds)),
        "interval": {
            "method": f"crossed bootstrap of {config.evaluation.bootstrap} resamples "
            f"over {boot.unit}s and training seeds, paired",
            "unit": boot.unit if boot.unit == "image" else "patient",
            "given": "given one generator",
        },
        "arms": {
            arm.name: _arm(arm, boot, predictions[arm.name], shown.labels, names, rare, steps, mixing[arm.name])
            for arm in arms
        },
        "gains": _gains(boot, [arm.name for arm in arms], rare),
        "synthetic": images["synthetic"],
        "features": features.NAME,
        "memorisation_yardstick": images["yardstick"],
        "val_choices": choices,
        "critic": {key: value for key, value in critic.items() if key != "fold_of_group"},
        "seconds": _seconds(manifests),
        "peak_memory": max(manifest["peak_memory"] for manifest in manifests.values()),
        "versions": versions(),
        "hashes": {
            "config": digest(config.model_dump(mode="json")),
            "test_set": digest([vars(frame) for frame in data.frames if frame.split == "test"]),
            "images": file_digest(run.path("data") / "images.npy"),
        },
        "notes": list(data.notes),
    }
    folder = run.folder / "evaluation"
    arrays: dict[str, Any] = {"labels": shown.labels, "groups": shown.groups, **predictions}
    np.savez_compressed(folder / f"predictions-{split}.npz", **arrays)
    write_atomic(run.folder / "results.json", json.dumps(results, indent=1))
    return results


def _seconds(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage; the many small ones of the evaluation together."""
    seconds: dict[str, float] = {}
    for name, manifest in manifests.items():
        short = "/".join(name.split("/")[:2])
        seconds[short] = round(seconds.get(short, 0.0) + manifest["seconds"], 2)
    return seconds
