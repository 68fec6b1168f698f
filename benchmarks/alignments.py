"""What teaches a model: one round of alignment, one thing changed at a time, on the same candidates and the same noise.

    python benchmarks/alignments.py runs/demo-classification --out runs/alignments [--only WORD ...] [--than ROW]

For a finished run of classification on the phantom. Objectives, criteria, rules of pairing and their controls (random
and reversed pairs), and the judge in the critic's place: of the pairs alone, and of the whole recipe. Each row's model
draws `--count` images, as many of each class, neither led nor picked: how often the judge sees what was asked for, and
by how much more than of the unaligned model's images of the same noise. Resumable; a table, and alignments.json. A row
keeps 60 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rounds import measure

from saadi.alignment.stages import align_round
from saadi.configfile import dump_config, load_config
from saadi.critics.crossfit import CrossFitted
from saadi.critics.judging import Critic
from saadi.critics.stages import draw_candidates, fit_critics, pair_candidates, score_candidates
from saadi.data import Dataset
from saadi.data.conditions import conditions_of
from saadi.data.stages import prepare_data
from saadi.diffusion.painting import Sampler, read_images
from saadi.diffusion.stages import train_base
from saadi.evaluation.images import judge_images
from saadi.evaluation.statistics import Estimate, paired_mean
from saadi.pairing import budgets, make_pairs
from saadi.progress import Terminal
from saadi.records import Sample, read_json, write_atomic
from saadi.store import Run, silent

SHARED = ("data", "base", "critic")
"""What every row has of the finished run."""
ROUND = ("round-1/samples", "round-1/scores", "round-1/pairs")
"""What a row has, too, that prefers as the run did; others draw their candidates anew, from the same noise."""
UNALIGNED = "unaligned"
PAIRS_ALONE = ("alignment.prompts=false", "alignment.anchors=0")
"""Nothing is learnt but which of two images is preferred."""


@dataclass(frozen=True)
class Row:
    """What differs from the run. `oracle`: the judge, who learnt from plenty, says what is right."""

    name: str
    changes: tuple[str, ...] = ()
    oracle: bool = False


def _one(key: str, *values: str) -> list[Row]:
    return [Row(f"{key.rpartition('.')[2]}: {value}", (f"{key}={value}",)) for value in values]


RECIPE = [
    Row("the recipe"),
    Row("the recipe, the judge's verdicts", oracle=True),
    *_one("alignment.objective", "sdpo", "ipo", "kto", "mapo", "sft"),
    *_one("preferences.criterion", "margin", "learnability", "influence"),
    Row("penalties", ("preferences.penalties={memorisation: 0.5, similarity: 0.5, out-of-support: 0.5}",)),
    *_one("preferences.pairing", "best-random"),
    *_one("alignment.focus", "saliency"),
    Row("epsilon's errors", ("alignment.weighting=epsilon",)),
    Row("no supervised term", ("alignment.sft=0",)),
    Row("a quarter of the supervised term", ("alignment.sft=0.25",)),
    Row("as far as trained", ("alignment.extrapolation=1",)),
    Row("without anchors", ("alignment.anchors=0",)),
    Row("anchors, and a pair a class", ("preferences.pairs=1",)),
    Row("anchors, and a pair a class, no supervised term", ("preferences.pairs=1", "alignment.sft=0")),
]
ALONE = [
    Row("pairs alone", PAIRS_ALONE),
    Row("pairs alone, the judge's verdicts", PAIRS_ALONE, oracle=True),
    *(Row(f"pairs alone, {rule}", (*PAIRS_ALONE, f"preferences.pairing={rule}")) for rule in ("random", "reversed")),
    Row("pairs alone, no supervised term", (*PAIRS_ALONE, "alignment.sft=0")),
    Row("winners alone", (*PAIRS_ALONE, "alignment.objective=sft")),
]


def oracle_of(critic: Critic) -> Critic:
    """The judge in the place of every member of the critic."""
    own = critic.crossfit
    return replace(critic, crossfit=CrossFitted((critic.judge,) * len(own.members), own.fold_of_group, own.copies))


def folder_of(name: str) -> str:
    """A row's folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def prepare(source: Path, folder: Path, row: Row) -> Run:
    """A run of its own for a row, which shares what comes before its change."""
    config = load_config(source / "config.yaml", row.changes)
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        prefers = any(change.startswith("preferences.") for change in row.changes)
        for stage in (*SHARED, *(() if prefers else ROUND)):
            shutil.copytree(source / stage, partial / stage)
        (partial / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        partial.rename(folder)
    return Run(folder, config, begin=Terminal().begin)


def learn(run: Run, data: Dataset, critic: Critic, row: Row) -> tuple[str, dict[str, Any]]:
    """The row's adapter, and what was watched as it was made."""
    config = run.config.preferences
    samples = draw_candidates(run, Sampler(run, data.space, [], 0), critic, 1, ["base", "critic"])
    scores = score_candidates(run, samples, critic, 1)
    pairs = pair_candidates(run, samples, scores, critic.train.counts(), 1)
    if row.oracle:
        critic, conditions = oracle_of(critic), [sample.condition for sample in samples]
        images = read_images(run.folder, samples)
        groups = critic.groups_of(critic.embedder.embed(images), conditions)
        scores = critic.verdicts(images, conditions, None, groups, [sample.id for sample in samples])
        pairs = make_pairs(samples, scores, config, budgets(critic.train.counts(), config), run.config.seed)
    adapter = align_round(run, data, critic, samples, scores, pairs, 1)
    told = json.loads((run.path(adapter) / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    ended = read_json(run.path(adapter) / "summary.json")
    kept = {key: told.get(key) for key in ("pair_accuracy", "winner_change", "loser_change", "extrapolation")}
    return adapter, {"pairs": len(pairs), "steps": ended["stopped_at"], **kept}


def draw(run: Run, data: Dataset, adapters: list[str], count: int) -> list[Sample]:
    """`count` images of a model, always of the same noise."""
    names, condition = data.space.asked, conditions_of(run.config, data.split("train"), "set")
    turns = [(names[i % len(names)], i // len(names)) for i in range(count)]
    requests = [(condition(label, turn), turn) for label, turn in turns]
    folder = run.folder / "drawn"
    folder.mkdir(exist_ok=True)
    return Sampler(run, data.space, adapters, len(adapters)).draw(
        folder, requests, "drawn", silent("draw"), "alignments"
    )


def measured(source: Path, out: Path, row: Row | None, count: int) -> dict[str, Any]:
    """One row, or with None the unaligned model: what its images are like, and what the judge sees in each of them."""
    name = row.name if row else UNALIGNED
    folder = out / folder_of(name)
    kept = folder / f"measured-{count}.json"
    if kept.exists():
        return dict(read_json(kept))
    with prepare(source, folder, row or Row("")) as run:
        data = prepare_data(run)
        train_base(run, data)
        critic = fit_critics(run, data)
        adapter, told = learn(run, data, critic, row) if row else (None, {})
        samples = draw(run, data, [adapter] if adapter else [], count)
        images = read_images(run.folder, samples)
        agrees = judge_images(run, critic, samples, images)[0].tolist()
        told = {"row": name, **told, **measure(run, data, critic, samples), "agrees": agrees}
    write_atomic(kept, json.dumps(told))
    return told


def gains(rows: Sequence[dict[str, Any]], than: str = UNALIGNED, resamples: int = 2000) -> list[Estimate | None]:
    """By how much the judge agrees more with each row's images than with those of the row `than`, of the same noise."""
    agrees = {row["row"]: np.array(row["agrees"]) for row in rows}
    return [None if name == than else paired_mean(own - agrees[than], resamples, 0) for name, own in agrees.items()]


def table_of(rows: Sequence[dict[str, Any]], than: str = UNALIGNED) -> Table:
    """The rows, the unaligned model first, beside the row `than`."""
    table = Table(
        "row", "pairs", "steps", "far", "pair acc.", "winner", "judge", f"- {than}", "KID", "coverage", "copies"
    )
    for row, found in zip(rows, gains(rows, than), strict=True):
        told = [
            f"{row[key]:{form}}" if row.get(key) is not None else ""
            for key, form in (
                ("pairs", "d"), ("steps", "d"), ("extrapolation", ".1f"), ("pair_accuracy", ".0%"),
                ("winner_change", "+.1%"), ("judge_agreement", ".1%"),
            )
        ]  # fmt: skip
        gain = ""
        if found is not None:
            mean, (low, high) = found
            gain = f"{100 * mean:+.1f} ({100 * low:.1f} to {100 * high:.1f})"
        table.add_row(row["row"], *told, gain, f"{row['kid']:.2f}", f"{row['coverage']:.2f}", f"{row['memorised']:.1%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/alignments"))
    parser.add_argument("--only", nargs="+", metavar="WORD", help="rows that have such a name")
    parser.add_argument("--than", default=UNALIGNED, metavar="ROW", help="beside which row the others are put")
    parser.add_argument("--count", type=int, default=512)
    arguments = parser.parse_args()
    config = load_config(arguments.run / "config.yaml")
    if config.task != "classification" or config.data.source != "phantom":
        parser.error(f"{arguments.run}: expected a run of classification on the phantom")
    arguments.out.mkdir(parents=True, exist_ok=True)
    wanted = [
        row for row in (*RECIPE, *ALONE) if not arguments.only or any(word in row.name for word in arguments.only)
    ]
    if arguments.than not in (names := [UNALIGNED, *(row.name for row in wanted)]):
        parser.error(f"--than {arguments.than}: expected one of {', '.join(names)}")
    rows = [measured(arguments.run, arguments.out, row, arguments.count) for row in (None, *wanted)]
    write_atomic(arguments.out / "alignments.json", json.dumps(rows) + "\n")
    Console(width=180).print(table_of(rows, arguments.than))


if __name__ == "__main__":
    main()
