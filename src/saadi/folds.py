"""Every patient is tested once: a run with each group, or part of them, left out, and what the runs say together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saadi.config import RunConfig
from saadi.critics.crossfit import deal_folds
from saadi.critics.tasks import TASKS
from saadi.data.load import labelled_frames
from saadi.data.rules import groups_of
from saadi.errors import BadInput
from saadi.evaluation.results import CHOSEN
from saadi.evaluation.together import Fold, read_together
from saadi.files import digest
from saadi.manifests import REDO, read_redo
from saadi.pipeline import run
from saadi.preflight import check_settings, preflight
from saadi.records import Frame, LabelSpace, write_atomic
from saadi.report.wording import FURTHER
from saadi.runtime import prepare_runtime
from saadi.store import Begin, silent
from saadi.team import join_team

LEAST = 4
"""Groups: two to learn from, since critics are cross-fitted, one to choose on, one to test on."""
IN_TRAIN = re.compile(r"training (images|groups?)\b|groups in train")
IN_VAL = "images in val"
"""In what is wrong with a fold where another deal might mend it; of single groups none leaves more to learn from."""


def folds_of(config: RunConfig, frames: Sequence[Frame], parts: int | None = None) -> dict[str, RunConfig]:
    """A run's configuration for each fold, by name: its groups are test, those of the fold before it val, or of the
    nearest before which leaves every class to learn from.

    A fold is one group, or one of so many `parts` of them, dealt so that each has its share of every class. Every fold
    makes all rounds, so that all have the same arms. Raises `BadInput` where there are too few groups for it.
    """
    groups = sorted({frame.group for frame in frames})
    if len(groups) < LEAST:
        raise BadInput(f"data: {len(groups)} groups; leaving one out takes {LEAST}: two in train, one in val and test")
    if parts is None:
        dealt = {group: [group] for group in groups}
    elif not 3 <= parts <= len(groups):
        least = 3 if len(groups) >= 6 else LEAST  # of three, one is left: it has to hold two groups
        range_ = f"{least} to {len(groups)}" if least < len(groups) else str(least)
        raise BadInput(f"--parts {parts}: give {range_}, so that test and val leave two groups or more to learn from")
    else:
        names = sorted({label for frame in frames for label in frame.labels})
        shown = np.array([[name in frame.labels for name in names] for frame in frames])
        part_of = deal_folds(shown, np.array([frame.group for frame in frames]), parts, config.seed)
        dealt = {f"part-{k + 1}": [group for group in groups if part_of[group] == k] for k in range(parts)}
    shown_in = groups_of(frames).values()
    needed = 2 if config.task == "classification" else 1  # groups in train: a class's critics are cross-fitted

    def lacking(*left_out: str) -> int:
        """How many classes would have too few groups to learn from."""
        return sum(len(having - {*left_out}) < needed for having in shown_in)

    tests = list(dealt.values())
    vals = [
        min((tests[k - back] for back in range(1, len(tests))), key=lambda val: lacking(*tests[k], *val))
        for k in range(len(tests))
    ]
    return {
        name: config.model_copy(
            update={
                "data": config.data.model_copy(update={"test": tuple(test), "val": tuple(vals[k])}),
                "patience": 0,
            }
        )
        for k, (name, test) in enumerate(dealt.items())
    }


def fold_folder(folder: Path, name: str) -> Path:
    """Where a fold's run is kept: no two names in one place."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return folder / (f"test-{plain}" if plain == name else f"test-{plain}-{digest(name)[:8]}")


def read_fold(name: str, config: RunConfig, folder: Path, results: Mapping[str, Any], space: LabelSpace) -> Fold:
    """What a finished final run in `folder` says, from its predictions."""
    with np.load(folder / "evaluation" / "predictions-test.npz", allow_pickle=False) as kept:
        arrays = {key: kept[key] for key in kept.files if key != "files"}
    targets, groups = arrays.pop("targets"), arrays.pop("groups")
    scored = {arm: TASKS[config.task].scored(targets, answers, len(space)) for arm, answers in arrays.items()}
    arms, chosen = results["arms"], str(results["val_choices"]["round"])
    further = {arm: {key: row[key] for key in FURTHER if row.get(key) is not None} for arm, row in arms.items()}
    generated = {arm: row["n_generated"] for arm, row in arms.items()}
    return Fold(name, config.data.test, config.data.val, groups, scored, chosen, further, generated)


def _redo_left(folder: Path, names: Sequence[str], redo: Sequence[str]) -> dict[str, list[str]]:
    """By fold what of it is still to be made anew: what is asked for, of the folds that have begun; or, where a command
    that asked for it did not reach its end, of those that it left."""
    before, left = read_redo(folder)
    if {*redo} - before:  # something else
        left = {name for name in names if (fold_folder(folder, name) / "config.yaml").exists()}
    return {name: sorted(before.union(redo)) for name in names if name in left}


def _check_fold(name: str, config: RunConfig, folder: Path, parts: int | None, redo: Sequence[str]) -> None:
    """`preflight` of a fold, which says of which: what lacks there is in the data, but in other folds."""
    try:
        preflight(config, folder, redo)
    except BadInput as error:
        test, val = (
            ", ".join(groups[:3]) + ", ..." * (len(groups) > 3) for groups in (config.data.test, config.data.val)
        )
        mends = IN_VAL in str(error) or (parts and IN_TRAIN.search(str(error)))
        deal = f"; or give {'other ' if parts else ''}--parts" if mends else ""
        raise BadInput(f"fold {name} (test {test}, val {val}): {error}{deal}") from None


def checked_folds(
    config: RunConfig, folder: Path, parts: int | None = None, redo: Sequence[str] = ()
) -> tuple[dict[str, RunConfig], LabelSpace, Sequence[Frame]]:
    """`folds_of` a configuration's data, each checked for a run in its own folder below `folder`; its classes and its
    frames. Raises `BadInput` as `saadi.run` and `folds_of` do, and for the phantom, which has fresh patients for its
    test."""
    if config.data.source == "phantom":
        raise BadInput("data.source: the phantom tests on fresh patients as it is; folds are for sets of few groups")
    prepare_runtime(config)
    space, frames, _ = labelled_frames(config.data, config.seed, config.task)
    folds = folds_of(config, frames, parts)
    check_settings(config)  # here, or it would be said of the first fold
    anew = _redo_left(folder, [*folds], redo)
    for name, fold in folds.items():
        _check_fold(name, fold, fold_folder(folder, name), parts, anew.get(name, ()))
    return folds, space, frames


def run_folds(
    config: RunConfig, folder: Path, parts: int | None = None, *, begin: Begin = silent, redo: Sequence[str] = ()
) -> dict[str, Any]:
    """Run or resume each fold in a folder of its own below `folder`, final; write and return `folds.json`. Of several
    processes that torchrun started, the first does, and others return nothing.

    Every fold is checked before the first one begins. `redo`: of the folds that have begun, each once, however often
    the command is stopped before its end. Raises `BadInput` as `checked_folds` does.
    """
    folds, space, frames = checked_folds(config, folder, parts, redo)
    leads, rows = join_team(cpu=config.device == "cpu").leads, {}
    anew = _redo_left(folder, [*folds], redo)
    asked = next(iter(anew.values()), [])  # the same of each
    for name, fold in folds.items():
        if leads and asked:
            write_atomic(folder / REDO, json.dumps({"asked": asked, "left": sorted(anew)}))
        rows[name] = run(fold, fold_folder(folder, name), final=True, begin=begin, redo=anew.pop(name, ()))
    if leads and asked:
        write_atomic(folder / REDO, json.dumps({"asked": asked, "left": []}))
    if not all(rows.values()):  # not the process that writes
        return {}
    read = [read_fold(name, fold, fold_folder(folder, name), rows[name], space) for name, fold in folds.items()]
    counts = Counter(label for frame in frames for label in frame.labels)
    results = {
        "task": config.task,
        "metric": TASKS[config.task].metric,
        **read_together(read, space, counts, config.evaluation.bootstrap, config.seed),
    }
    write_atomic(folder / "folds.json", json.dumps(results, indent=1, allow_nan=False))
    (folder / REDO).unlink(missing_ok=True)
    return results


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
