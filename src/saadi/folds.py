"""Every patient is tested once: a run with each group, or part of them, left out, and what the runs say together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi.config import RunConfig
from saadi.critics.crossfit import deal_folds
from saadi.critics.tasks import TASKS
from saadi.data.load import labelled_frames
from saadi.errors import BadInput
from saadi.evaluation.metrics import mean_score, point, rare_classes
from saadi.evaluation.results import CHOSEN, SCHEMA, gains_of, without_nan
from saadi.evaluation.statistics import Bootstrap, crossed_bootstrap
from saadi.pipeline import run
from saadi.preflight import preflight
from saadi.records import Frame, LabelSpace, write_atomic
from saadi.report.wording import FURTHER
from saadi.seeds import seed_of
from saadi.store import Begin, silent

LEAST = 4
"""Groups: two to learn from, since critics are cross-fitted, one to choose on, one to test on."""
Answers = Mapping[str, NDArray[Any]]
"""What a final run kept: `targets`, `groups`, and by arm the answers [seeds, N, ...]."""


def folds_of(config: RunConfig, frames: Sequence[Frame], parts: int | None = None) -> dict[str, RunConfig]:
    """A run's configuration for each fold, by name: its groups are test, those of the fold before it val.

    A fold is one group, or one of so many `parts` of them, dealt so that each has its share of every class. Every fold
    makes all rounds, so that all have the same arms. Raises `BadInput` where there are too few groups for it.
    """
    groups = sorted({frame.group for frame in frames})
    if len(groups) < LEAST:
        raise BadInput(f"data: {len(groups)} groups; leaving one out takes {LEAST}: two in train, one in val and test")
    if parts is None:
        dealt = {group: [group] for group in groups}
    elif not 3 <= parts <= len(groups):
        raise BadInput(f"--parts {parts}: give 3 (train, val and test) to {len(groups)}, the number of groups")
    else:
        names = sorted({label for frame in frames for label in frame.labels})
        shown = np.array([[name in frame.labels for name in names] for frame in frames])
        part_of = deal_folds(shown, np.array([frame.group for frame in frames]), parts, config.seed)
        dealt = {f"part-{k + 1}": [group for group in groups if part_of[group] == k] for k in range(parts)}
    tests = list(dealt.values())
    return {
        name: config.model_copy(
            update={
                "data": config.data.model_copy(update={"test": tuple(test), "val": tuple(tests[k - 1])}),
                "patience": 0,
            }
        )
        for k, (name, test) in enumerate(dealt.items())
    }


def fold_folder(folder: Path, name: str) -> Path:
    """Where a fold's run is kept."""
    return folder / f"test-{re.sub(r'[^A-Za-z0-9._-]', '-', name)}"


def together(boots: Sequence[Bootstrap]) -> Bootstrap:
    """The mean over folds, class by class, of those that have the class; and likewise of every resample."""

    def mean(parts: Sequence[Mapping[str, Any]], arm: str) -> Any:
        return mean_score(np.stack([part[arm] for part in parts], -1))

    points, draws = [boot.point for boot in boots], [boot.draws for boot in boots]
    return Bootstrap(
        {arm: mean(points, arm) for arm in points[0]}, {arm: mean(draws, arm) for arm in draws[0]}, "image"
    )


def _answers(folder: Path, chosen: str) -> dict[str, NDArray[Any]]:
    """The predictions of one fold, those of the round that its val chose under `CHOSEN`, too."""
    with np.load(folder / "evaluation" / "predictions-test.npz", allow_pickle=False) as kept:
        answers = {name: kept[name] for name in kept.files if name != "files"}
    return answers | {CHOSEN: answers[chosen]}


def _pooled(folds: Sequence[Answers]) -> Answers:
    """The test images of all folds as one set."""
    once = ("targets", "groups")
    return {name: np.concatenate([one[name] for one in folds], 0 if name in once else 1) for name in folds[0]}


def _bootstrap(config: RunConfig, answers: Answers, classes: int, seed: int) -> Bootstrap:
    """Groups are resampled, the images of a single one; and seeds."""
    arms = {name: values for name, values in answers.items() if name not in ("targets", "groups")}
    task = TASKS[config.task]
    scored = {arm: task.scored(answers["targets"], values, classes) for arm, values in arms.items()}
    return crossed_bootstrap(scored, answers["groups"], config.evaluation.bootstrap, seed)


def by_group(task: str, answers: Answers, classes: int, asked: Sequence[int]) -> dict[str, dict[str, float]]:
    """The metric of every arm on the images of each group alone, over the classes that these show."""
    found: dict[str, dict[str, float]] = {}
    targets, groups = answers["targets"], answers["groups"]
    for arm in answers.keys() - {"targets", "groups"}:
        found[arm] = {}
        for group in np.unique(groups):
            own = groups == group
            scores = point(TASKS[task].scored(targets[own], answers[arm][:, own], classes))
            found[arm][str(group)] = float(mean_score(scores, asked))
    return found


def _least(more: Mapping[str, float], than: Mapping[str, float], names: Sequence[str]) -> list[Any]:
    """Where, among `names`, the gain is least, and how large it is there."""
    gains = {name: more[name] - than[name] for name in names if not np.isnan(more[name] - than[name])}
    name = min(gains, key=lambda name: gains[name])
    return [name, gains[name]]


def _further(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """An arm's further figures, IoU, surface distance and the like: the means of the folds that have them."""
    told = {key: [row[key] for row in rows if row.get(key) is not None] for key in FURTHER}
    return {key: float(np.mean(values)) for key, values in told.items() if values}


def run_folds(config: RunConfig, folder: Path, parts: int | None = None, *, begin: Begin = silent) -> dict[str, Any]:
    """Run or resume each fold in a folder of its own below `folder`, final; write and return `folds.json`.

    Every fold is checked before the first one begins. Raises `BadInput` as `saadi.run` and `folds_of` do, and for the
    phantom, which has fresh patients for its test.
    """
    if config.data.source == "phantom":
        raise BadInput("data.source: the phantom tests on fresh patients as it is; folds are for sets of few groups")
    space, frames, _ = labelled_frames(config.data, config.seed, config.task)
    folds = folds_of(config, frames, parts)
    for name, fold in folds.items():
        preflight(fold, fold_folder(folder, name))
    rows = {name: run(fold, fold_folder(folder, name), final=True, begin=begin) for name, fold in folds.items()}
    results = without_nan(
        _read(config, folder, space, Counter(label for f in frames for label in f.labels), folds, rows)
    )
    write_atomic(folder / "folds.json", json.dumps(results, indent=1, allow_nan=False))
    return dict(results)


def _read(
    config: RunConfig,
    folder: Path,
    space: LabelSpace,
    counts: Mapping[str, int],
    folds: Mapping[str, RunConfig],
    rows: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What finished folds say together; `rows`: the results of each. `counts`: images by class, all folds'."""
    chosen = {name: str(row["val_choices"]["round"]) for name, row in rows.items()}
    answers = {name: _answers(fold_folder(folder, name), chosen[name]) for name in folds}
    whole, classes, asked = _pooled(list(answers.values())), len(space), space.asked_ids
    each = {name: _bootstrap(config, one, classes, seed_of(config.seed, "fold", name)) for name, one in answers.items()}
    single = all(len(fold.data.test) == 1 for fold in folds.values())
    boot = together(list(each.values())) if single else _bootstrap(config, whole, classes, config.seed)
    rare_names = rare_classes({name: counts[name] for name in space.asked})
    rare = [space.id(name) for name in rare_names]
    per_group = by_group(config.task, whole, classes, asked)
    arms = {}
    for arm in boot.point:
        score, few = boot.interval(arm, asked), boot.interval(arm, rare)
        own = [row["arms"][chosen[name] if arm == CHOSEN else arm] for name, row in rows.items()]
        arms[arm] = {
            "mean": score.mean,
            "ci95": list(score.interval),
            "rare_mean": few.mean,
            "rare_ci95": list(few.interval),
            "per_class": {name: boot.interval(arm, (k,)).mean for k, name in enumerate(space.names)},
            "per_group": per_group[arm],
            "per_fold": {name: one.interval(arm, asked).mean for name, one in each.items()},
            **_further(own),
            "n_generated": sum(row["n_generated"] for row in own),
        }
    gains = gains_of(boot, list(arms), asked, rare)
    for name, gain in gains.items():
        more, than = (arms[arm] for arm in name.split(" - "))
        gain["least_group"] = _least(more["per_group"], than["per_group"], list(more["per_group"]))
        gain["least_class"] = _least(more["per_class"], than["per_class"], space.asked)
    resampled, read = ("the images of each fold's group", "the mean of the folds") if single else (
        "all groups", "the test images of all folds together",
    )  # fmt: skip
    return {
        "schema": SCHEMA,
        "task": config.task,
        "metric": next(iter(rows.values()))["metric"],
        "folds": {
            name: {
                "test": list(fold.data.test),
                "val": list(fold.data.val),
                "n_test": rows[name]["n_test"],
                "chosen": chosen[name],
                "run": fold_folder(folder, name).name,
            }
            for name, fold in folds.items()
        },
        "rare_classes": list(rare_names),
        "interval": {
            "method": f"bootstrap of {config.evaluation.bootstrap} resamples over {resampled} and over training seeds, "
            f"paired; {read}",
            "unit": "image" if single else "group",
            "given": f"given these {len(folds)} groups, and one generator a fold"
            if single
            else f"given these {len(folds)} generators, one a fold",
        },
        "arms": arms,
        "gains": gains,
    }


def folds_table(results: Mapping[str, Any]) -> str:
    """Every arm's metric, in per cent, by the fold that was left out; and where the chosen round gains least."""
    folds = results["folds"]
    rows = [["left out", *folds]] + [
        [arm, *("–" if row["per_fold"][name] is None else f"{100 * row['per_fold'][name]:.1f}" for name in folds)]
        for arm, row in results["arms"].items()
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    picked = ", ".join(f"{name} {fold['chosen']}" for name, fold in folds.items())
    gain = results["gains"][f"{CHOSEN} - real"]
    (group, by_group), (label, by_class) = gain["least_group"], gain["least_class"]
    least = f"{group} {100 * by_group:+.1f}, of classes {label} {100 * by_class:+.1f}"
    return "\n".join([*lines, "", f"{CHOSEN} on val: {picked}", f"{CHOSEN} - real, least of groups: {least}"])
