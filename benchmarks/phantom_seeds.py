"""The demo's recipe on phantom seeds it was not tuned on: one command, one JSON and one table, resumable.

    python benchmarks/phantom_seeds.py --seeds 101 102 103 104 105 --out runs/phantom-seeds
    python benchmarks/phantom_seeds.py --task segmentation --out runs/phantom-seeds-segmentation

Each seed redraws patients, images, base, critic, samples, adapters and trainings. The summary's interval is a
t-interval over pipeline seeds: unlike the demo's own, it is not conditional on one generator.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from saadi.configfile import demo_config
from saadi.pipeline import run
from saadi.progress import Terminal
from saadi.records import write_atomic


def summary(values: list[float]) -> dict[str, Any]:
    """Mean and 95 % t-interval of one figure over pipeline seeds; one seed has no interval."""
    data, interval = np.array(values), None
    if len(data) > 1:
        half = stats.t.ppf(0.975, len(data) - 1) * data.std(ddof=1) / np.sqrt(len(data))
        interval = [float(data.mean() - half), float(data.mean() + half)]
    return {"mean": float(data.mean()), "ci95": interval, "values": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104, 105])
    parser.add_argument("--task", default="classification", help="of the two demos")
    parser.add_argument("--out", type=Path, default=Path("runs/phantom-seeds"))
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="A.B=C")
    arguments = parser.parse_args()
    results = []
    for seed in arguments.seeds:
        with Terminal() as terminal:
            folder, config = arguments.out / f"seed-{seed}", demo_config(seed, arguments.assignments, arguments.task)
            results.append(run(config, folder, final=True, begin=terminal.begin))

    def over(part: str, key: str) -> dict[str, Any]:
        return {name: summary([result[part][name][key] for result in results]) for name in results[0][part]}

    table = {
        "seeds": arguments.seeds,
        "arms": over("arms", "mean"),
        "gains": over("gains", "mean"),
        "rare": over("gains", "rare"),
        "judge": over("judge_gains", "mean"),
    }
    write_atomic(arguments.out / "summary.json", json.dumps(table, indent=1) + "\n")
    for kind in ("arms", "gains", "rare", "judge"):
        print(kind)
        for name, entry in table[kind].items():
            interval = entry["ci95"] and "({:.1f} to {:.1f})".format(*(100 * bound for bound in entry["ci95"]))
            print(f"  {name:<28} {100 * entry['mean']:6.1f}  {interval or 'one seed'}")


if __name__ == "__main__":
    main()
