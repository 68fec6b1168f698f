"""`results.json`: every figure the page shows, with intervals, from predictions that are kept beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saadi import features
from saadi.alignment.stages import why_idle
from saadi.critics.tasks import TASKS
from saadi.data import Dataset
from saadi.evaluation.arms import Arm
from saadi.evaluation.choices import choose
from saadi.evaluation.metrics import mean_score, point, rare_classes
from saadi.evaluation.statistics import Bootstrap, crossed_bootstrap, holm
from saadi.evaluation.trainings import stage_of, tell
from saadi.files import digest, file_digest, versions
from saadi.manifests import read_manifests
from saadi.records import LabelSpace, Split, read_json, write_atomic
from saadi.store import Run

SCHEMA = 1
RIVALS = ("unaligned", "feedback", "rejection", "winners", "copy-paste")
"""What every round is compared with, beside `real` and the round before."""
CHOSEN = "chosen"
"""Of folds: in each the round that its val chose."""
Predictions = dict[str, NDArray[Any]]
"""By arm, answers [seeds, N, ...] of the task."""


def gather(
    run: Run, names: Sequence[str], arms: Sequence[Arm], mixing: Mapping[str, float], split: Split
) -> tuple[Predictions, dict[str, dict[str, Any]]]:
    """Predictions of all arms on a split, and the task's further figures, some by class `names`. Reading `test` is
    logged in the folder."""
    if split == "test":
        line = json.dumps({"read": "test", "at": datetime.now(UTC).isoformat(timespec="seconds")})
        with (run.folder / "test-reads.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")
    report, predictions, further = run.begin("evaluation/answers"), Predictions(), dict[str, dict[str, Any]]()
    seeds = range(run.config.evaluation.seeds)
    trainings = {arm.name: [stage_of(arm.name, mixing[arm.name], seed) for seed in seeds] for arm in arms}
    jobs = [run.crew.own_job(tell, trainings=trainings[a.name], recipe=a.recipe, split=split) for a in arms]
    for done, (arm, fetch) in enumerate(zip(arms, jobs, strict=True), 1):
        with run.crew.place() as place:
            fetch(place)
            predictions[arm.name] = np.load(place / "answers.npy", allow_pickle=False)
            told = json.loads((place / "further.json").read_text(encoding="utf-8"))
            by_class = {key: dict(zip(names, row, strict=True)) for key, row in told.items() if isinstance(row, list)}
            further[arm.name] = told | by_class
        report(done, len(arms))
    return predictions, further


def gains_of(boot: Bootstrap, names: Sequence[str], asked: Sequence[int], rare: Sequence[int]) -> dict[str, Any]:
    """Every arm against `real`; every round, and the chosen one, against the rivals; a round against the one before;
    alignment, lead and pick apart.

    `p_holm` allows for them all.
    """
    wanted = [(name, "real") for name in names if name != "real"]
    rounds = [name for name in names if name.startswith("round-")]
    for name, before in zip([*rounds, CHOSEN], ["", *rounds], strict=True):
        others = RIVALS if name == CHOSEN else (*RIVALS, before)
        wanted += [(name, other) for other in others if {name, other} <= {*names}]
    last = rounds[-1]
    wanted += [(name, "unaligned") for name in ("feedback", "unpicked", "unled") if name in names]
    wanted += [(last, name) for name in ("unpicked", "unled") if name in names]
    gains: dict[str, Any] = {}
    for arm, other in wanted:
        mean, (low, high) = boot.difference(arm, other, asked)
        rare_mean, rare_interval = boot.difference(arm, other, rare)
        gains[f"{arm} - {other}"] = {
            "mean": mean,
            "ci95": [low, high],
            "p": boot.paired_p(arm, other, asked),
            "rare": rare_mean,
            "rare_ci95": list(rare_interval),
        }
    adjusted = holm({name: gain["p"] for name, gain in gains.items()})
    return {name: gain | {"p_holm": adjusted[name]} for name, gain in gains.items()}


def _arm(
    arm: Arm,
    boot: Bootstrap,
    space: LabelSpace,
    per_seed: Sequence[float],
    rare: Sequence[int],
    steps: int,
    share: float,
) -> dict[str, Any]:
    estimate, rare_estimate = boot.interval(arm.name, space.asked_ids), boot.interval(arm.name, rare)
    return {
        "mean": estimate.mean,
        "ci95": list(estimate.interval),
        "rare_mean": rare_estimate.mean,
        "rare_ci95": list(rare_estimate.interval),
        "per_class": {name: boot.interval(arm.name, (i,)).mean for i, name in enumerate(space.names)},
        "per_seed": list(per_seed),
        "n_synthetic": len(arm.samples),
        "n_generated": arm.generated,
        "unet_evaluations": arm.passes,
        "steps": arm.recipe.get("steps", steps),
        "mixing": share if arm.samples else None,
    }


def write_results(run: Run, data: Dataset, arms: Sequence[Arm], *, final: bool) -> dict[str, Any]:
    """Choose on val, read `test` if `final`, write `results.json` and the predictions behind it; returns the results.

    They hold None where nothing was measured. Final results stay: without `final` they are returned as they are, and
    those of stages since made anew, which the store has kept under another name, are named in a note.
    """
    config = run.config
    split: Split = "test" if final else "val"
    path = run.folder / "results.json"
    if path.is_file() and not final:
        before = read_json(path)
        if before.get("final"):
            return before
    choices = choose(run, data, arms)
    mixing: dict[str, float] = choices["mixing"]
    predictions, further = gather(run, data.space.names, arms, mixing, split)
    shown, train = data.split(split), data.split("train")
    space, task, truth = data.space, TASKS[config.task], shown.targets(config.task)
    rare_names = rare_classes(train.counts())
    rare = [space.id(name) for name in rare_names]
    scored = {name: task.scored(truth, values, len(space)) for name, values in predictions.items()}
    per_seed = {
        name: [float(mean_score(point(task.scored(truth, one[None], len(space))), space.asked_ids)) for one in values]
        for name, values in predictions.items()
    }
    boot = crossed_bootstrap(
        scored,
        shown.groups,
        config.evaluation.bootstrap,
        config.seed,
    )
    unit = "patient" if boot.unit == "group" and config.data.source == "phantom" else boot.unit
    manifests = read_manifests(run.folder)
    images = json.loads((run.path("evaluation/images") / "images.json").read_text(encoding="utf-8"))
    membership = json.loads((run.path("evaluation/membership") / "membership.json").read_text(encoding="utf-8"))
    critic = json.loads((run.path("critic") / "critic.json").read_text(encoding="utf-8"))
    groups = {part: sorted({f.group for f in data.frames if f.split == part}) for part in ("train", "val", "test")}
    steps = config.evaluation.classifier.steps
    results = {
        "schema": SCHEMA,
        "task": run.config.task,
        "name": run.folder.name,
        "final": final,
        "split": split,
        "metric": task.metric,
        **{f"n_{part}": sum(frame.split == part for frame in data.frames) for part in ("train", "val", "test")},
        "groups": groups,
        "classes": list(space.asked),
        "train_counts": train.counts(),
        "rare_classes": list(rare_names),
        "pipeline_seeds": [config.seed],
        "seeds": list(range(config.evaluation.seeds)),
        "interval": {
            "method": f"crossed bootstrap of {config.evaluation.bootstrap} resamples "
            f"over {unit}s and training seeds, paired",
            "unit": unit,
            "given": "given one generator",
        },
        "led": config.sampling.lead > 0,
        "picked": config.evaluation.drawn > 1,
        "arms": {
            arm.name: _arm(arm, boot, space, per_seed[arm.name], rare, steps, mixing[arm.name]) | further[arm.name]
            for arm in arms
        },
        "gains": gains_of(boot, [arm.name for arm in arms], space.asked_ids, rare),
        "synthetic": images["synthetic"],
        "judge_gains": images["judge_gains"],
        "features": features.NAME,
        "memorisation_yardstick": images["yardstick"],
        "memorised_fresh": images["memorised_fresh"],
        "membership": membership,
        "val_choices": choices,
        "critic": {key: value for key, value in critic.items() if key != "fold_of_group"},
        "seconds": _seconds(manifests),
        "peak_memory": max(manifest["peak_memory"] for manifest in manifests.values()),
        "versions": versions(),
        "hashes": {
            "config": digest(config.model_dump(mode="json")),
            "test_set": split_digest(data, "test"),
            "images": file_digest(run.path("data") / "images.npy"),
        },
        "notes": [
            *data.notes,
            *([choices["over"]] if choices["over"] else []),
            *_idle_rounds(run, arms),
            *(
                f"{kept.name} holds final results of stages since made anew"
                for kept in sorted(run.folder.glob("results-final-*.json"))
            ),
        ],
    }
    files = np.array([frame.file for frame in shown.frames])
    arrays = {"files": files, "targets": truth, "groups": shown.groups, **predictions}
    _save_arrays(run.folder / "evaluation" / f"predictions-{split}.npz", arrays)
    clean: dict[str, Any] = without_nan(results)
    write_atomic(path, json.dumps(clean, indent=1, allow_nan=False))
    return clean


def _idle_rounds(run: Run, arms: Sequence[Arm]) -> list[str]:
    """Rounds whose arm is another drawing of the model before them: else an equal figure would look like a finding."""
    names = [arm.name for arm in arms if arm.name.startswith("round-")]
    why = {name: why_idle(run, f"{name}/adapter") for name in names}
    return [
        f"{name.replace('-', ' ')} changed nothing, its model is the one before: {reason}"
        for name, reason in why.items()
        if reason
    ]


def split_digest(data: Dataset, split: Split) -> str:
    """SHA-256 of a split, image by image: names, labels, groups, pixels and masks."""
    found = hashlib.sha256()
    arrays = [data.images] if data.masks is None else [data.images, data.masks]
    for row, frame in enumerate(data.frames):
        if frame.split == split:
            found.update(json.dumps(vars(frame), sort_keys=True).encode())
            for array in arrays:
                found.update(np.ascontiguousarray(array[row]).tobytes())
    return found.hexdigest()


def without_nan(value: Any) -> Any:
    """A nested value with None for nan, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an .npz so that it is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    partial.replace(path)


def _seconds(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds by stage; the many small ones of the evaluation together."""
    seconds: dict[str, float] = {}
    for name, manifest in manifests.items():
        short = "/".join(name.split("/")[:2])
        seconds[short] = round(seconds.get(short, 0.0) + manifest["seconds"], 2)
    return seconds
