"""Leave one group out: where groups are few, each is the test set once, and the folds are read together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saadi.config import RunConfig
from saadi.critics.tasks import TASKS
from saadi.data.load import list_frames, scan_source
from saadi.errors import BadInput
from saadi.evaluation.metrics import mean_score, rare_classes
from saadi.evaluation.results import SCHEMA, gains_of, without_nan
from saadi.evaluation.statistics import Bootstrap, crossed_bootstrap
from saadi.pipeline import run
from saadi.preflight import preflight
from saadi.records import LabelSpace, write_atomic
from saadi.report.wording import FURTHER
from saadi.seeds import seed_of
from saadi.store import Begin, silent

LEAST = 4
"""Groups: two to learn from, since critics are cross-fitted, one to choose on, one to test on."""


def folds_of(config: RunConfig) -> dict[str, RunConfig]:
    """A run's configuration for each group of the data, in their order: it is test, the one before it val.

    Raises `BadInput` for fewer than four groups, or for the phantom, which has fresh patients for its test.
    """
    if config.data.source == "phantom":
        raise BadInput("data.source: the phantom tests on fresh patients as it is; folds are for sets of few groups")
    groups = sorted({frame.group for frame in scan_source(config.data, config.seed, config.task).frames})
    if len(groups) < LEAST:
        raise BadInput(f"data: {len(groups)} groups; leaving one out takes {LEAST}: two in train, one in val and test")
    return {
        group: config.model_copy(
            update={"data": config.data.model_copy(update={"test": (group,), "val": (groups[k - 1],)}), "patience": 0}
        )
        for k, group in enumerate(groups)
    }


def fold_folder(folder: Path, group: str) -> Path:
    """Where a fold's run is kept."""
    return folder / f"test-{re.sub(r'[^A-Za-z0-9._-]', '-', group)}"


def together(boots: Sequence[Bootstrap]) -> Bootstrap:
    """The mean over folds, class by class, of those that have the class; and likewise of every resample."""

    def mean(parts: Sequence[Mapping[str, Any]], arm: str) -> Any:
        return mean_score(np.stack([part[arm] for part in parts], -1))

    points, draws = [boot.point for boot in boots], [boot.draws for boot in boots]
    return Bootstrap(
        {arm: mean(points, arm) for arm in points[0]}, {arm: mean(draws, arm) for arm in draws[0]}, "image"
    )


def _bootstrap(config: RunConfig, folder: Path, space: LabelSpace, seed: int) -> Bootstrap:
    """The bootstrap of one fold's predictions: images of its one group, and seeds."""
    with np.load(folder / "evaluation" / "predictions-test.npz", allow_pickle=False) as kept:
        arrays = dict(kept)
    targets, groups = arrays.pop("targets"), arrays.pop("groups")
    arrays.pop("files")
    task = TASKS[config.task]
    scored = {arm: task.scored(targets, answers, len(space)) for arm, answers in arrays.items()}
    return crossed_bootstrap(scored, groups, config.evaluation.bootstrap, seed)


def _further(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """An arm's further figures, IoU, surface distance and the like: the means of the folds that have them."""
    told = {key: [row[key] for row in rows if row.get(key) is not None] for key in FURTHER}
    return {key: float(np.mean(values)) for key, values in told.items() if values}


def run_folds(config: RunConfig, folder: Path, *, begin: Begin = silent) -> dict[str, Any]:
    """Run or resume each fold in a folder of its own below `folder`, final; write and return `folds.json`.

    Every fold is checked before the first one begins. Raises `BadInput` as `saadi.run` and `folds_of` do.
    """
    folds = folds_of(config)
    for group, fold in folds.items():
        preflight(fold, fold_folder(folder, group))
    space, frames, _ = list_frames(next(iter(folds.values())).data, config.seed, config.task)
    rows = [run(fold, fold_folder(folder, group), final=True, begin=begin) for group, fold in folds.items()]
    boots = [
        _bootstrap(fold, fold_folder(folder, group), space, seed_of(config.seed, "fold", group))
        for group, fold in folds.items()
    ]
    boot, counts = together(boots), Counter(label for frame in frames for label in frame.labels)
    rare_names = rare_classes({name: counts[name] for name in space.asked})
    rare, asked = [space.id(name) for name in rare_names], space.asked_ids
    arms = {}
    for arm in boot.point:
        whole, few = boot.interval(arm, asked), boot.interval(arm, rare)
        arms[arm] = {
            "mean": whole.mean,
            "ci95": list(whole.interval),
            "rare_mean": few.mean,
            "rare_ci95": list(few.interval),
            "per_class": {name: boot.interval(arm, (k,)).mean for k, name in enumerate(space.names)},
            "per_fold": {group: one.interval(arm, asked).mean for group, one in zip(folds, boots, strict=True)},
            **_further([row["arms"][arm] for row in rows]),
            "n_generated": sum(row["arms"][arm]["n_generated"] for row in rows),
        }
    results = without_nan(
        {
            "schema": SCHEMA,
            "task": config.task,
            "metric": rows[0]["metric"],
            "folds": {
                group: {"val": list(fold.data.val), "n_test": row["n_test"], "run": fold_folder(folder, group).name}
                for (group, fold), row in zip(folds.items(), rows, strict=True)
            },
            "rare_classes": list(rare_names),
            "interval": {
                "method": f"bootstrap of {config.evaluation.bootstrap} resamples over the images of each fold's test "
                "group and over training seeds, paired; the mean of the folds",
                "unit": "image",
                "given": f"given these {len(folds)} groups, and one generator a fold",
            },
            "arms": arms,
            "gains": gains_of(boot, list(arms), asked, rare),
        }
    )
    write_atomic(folder / "folds.json", json.dumps(results, indent=1, allow_nan=False))
    return dict(results)


def folds_table(results: Mapping[str, Any]) -> str:
    """Every arm's metric, in per cent, by the group that was left out."""
    names = list(results["folds"])
    head = ["left out", *names]
    rows = [head] + [
        [arm, *("–" if row["per_fold"][name] is None else f"{100 * row['per_fold'][name]:.1f}" for name in names)]
        for arm, row in results["arms"].items()
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)
