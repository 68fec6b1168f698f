"""Does a model wear out over the rounds? The demo with more of them, and each round's model by what it draws.

    python benchmarks/rounds.py --rounds 5 --out runs/rounds [--seed 0] [--set A.B=C ...]

Of every model, from the unaligned one on, the images that it drew as candidates for the next round, and of the last one
those of its set that nobody led: as many of each class, as they come, nobody picked. Then what is used of each round's
model, led and picked (`used_...`), and the accuracy of its arm, on `val`. Resumable; a table, and rounds.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from saadi.configfile import demo_config
from saadi.critics.judging import Critic
from saadi.critics.stages import fit_critics
from saadi.data import Dataset
from saadi.data.stages import prepare_data
from saadi.diffusion.painting import read_images
from saadi.evaluation.audits import probe
from saadi.evaluation.fidelity import cosine_kid, precision_recall_coverage
from saadi.evaluation.images import judge_images, yardstick
from saadi.evaluation.memorisation import memorised_by_class
from saadi.features import nearest_mirrored
from saadi.pipeline import run as run_method
from saadi.progress import Terminal
from saadi.records import Sample, by_label, read_json, read_records, write_atomic
from saadi.store import Run


def drawn_by(run: Run, rounds: int) -> list[list[Sample]]:
    """What the model drew after 0, 1, ... rounds, not led, equally many of each class and in number."""
    last = "unled" if run.config.sampling.lead else f"round-{rounds}"
    files = [f"round-{k}/samples/samples.jsonl" for k in range(1, rounds + 1)]
    pools = [read_records(run.folder / file, Sample) for file in (*files, f"evaluation/sets/{last}/drawn.jsonl")]
    count = min(len(members) for pool in pools for members in by_label(pool).values())
    return [[sample for members in by_label(pool).values() for sample in members[:count]] for pool in pools]


def measure(run: Run, data: Dataset, critic: Critic, samples: Sequence[Sample]) -> dict[str, float]:
    """What the images of one model are like."""
    names, val = data.space.asked, data.split("val")
    real, fresh, labels, _ = critic.embedder.embed(val.images), *yardstick(run.config, data, critic)
    images = read_images(run.folder, samples)
    features = critic.embedder.embed(images)
    own = np.array([names.index(sample.label) for sample in samples])
    far = nearest_mirrored(fresh, critic.features, critic.mirrored).distance
    near = nearest_mirrored(features, critic.features, critic.mirrored).distance
    seen = critic.judge.logits(images).argmax(1)
    shares = np.bincount(seen, minlength=len(names)) / len(seen)
    return {
        "judge_agreement": float(judge_images(run, critic, samples, images)[0].mean()),
        "kid": cosine_kid(real, features),
        "coverage": precision_recall_coverage(real, features).coverage,
        "told_apart": probe(real, features, val.groups),
        "memorised": float(np.nanmean(memorised_by_class(near, own, far, labels, len(names))[0])),
        "least_seen_class": float(shares.min() * len(names)),
        "n": len(samples),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/rounds"))
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="A.B=C")
    arguments = parser.parse_args()
    config = demo_config(arguments.seed, (f"rounds={arguments.rounds}", *arguments.assignments))
    folder = arguments.out / f"seed-{arguments.seed}"
    with Terminal() as terminal:
        results = run_method(config, folder, begin=terminal.begin)
    rows: list[dict[str, Any]] = []
    with Run(folder, config) as run:
        data = prepare_data(run)
        critic = fit_critics(run, data)
        for k, samples in enumerate(drawn_by(run, arguments.rounds)):
            name = f"round-{k}" if k else "unaligned"
            arm, used = results["arms"][name], results["synthetic"][name]
            log = [json.loads(line) for line in (folder / f"round-{k}/adapter/log.jsonl").open()] if k else [{}]
            pairs = len((folder / f"round-{k}/pairs/pairs.jsonl").read_text().splitlines()) if k else 0
            told = {"round": k, "pairs": pairs, "winners_error": log[-1].get("winner_change", 0.0)}
            told_of = {f"used_{key}": used[key] for key in ("judge_agreement", "kid", "memorised")}
            rows.append(told | measure(run, data, critic, samples) | told_of | {"val": arm["mean"]})
            rows[-1]["reason"] = read_json(folder / f"round-{k}/adapter/summary.json")["reason"] if k else ""
    write_atomic(arguments.out / "rounds.json", json.dumps(rows, indent=1) + "\n")
    columns = [name for name in rows[0] if name != "reason"]
    table = Table(*(name.replace("_", " ") for name in columns))
    for row in rows:
        table.add_row(*(f"{row[name]:.3f}" if isinstance(row[name], float) else str(row[name]) for name in columns))
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
