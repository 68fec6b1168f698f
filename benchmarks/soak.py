"""Rounds again and again in one process: does it come to need more memory, more open files, more threads?

    python benchmarks/soak.py --minutes 60 --out runs/soak

A lap makes the rounds of a tiny run anew, with all that follows: samples, scores, pairs, adapters, sets, trainings,
images, results, page. Logs each lap as a line of `laps.jsonl`; the table at the end gives the growth a lap as a
straight line says it, without the first laps, in which libraries fill their caches.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time
from pathlib import Path

import numpy as np

from saadi.configfile import load_config
from saadi.pipeline import run

TINY = Path(__file__).parent.parent / "tests" / "tiny.yaml"
SMALL = ("evaluation.seeds=1", "evaluation.bootstrap=10")
"""Of a lap's seconds more are rounds, fewer trainings."""
WARM = 3
"""Laps that are left out of the growth."""


def measure() -> dict[str, float]:
    """What this process holds at the moment."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "resident_mb": pages * resource.getpagesize() / 1e6,
        "open_files": len(os.listdir("/proc/self/fd")) - 1,  # noqa: PTH208
        "threads": threading.active_count(),
        "children": len(Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()),
    }


def growth(laps: list[dict[str, float]], name: str) -> float:
    """By how much a figure grows a lap."""
    values = np.array([lap[name] for lap in laps[WARM:]])
    return float(np.polyfit(np.arange(len(values)), values, 1)[0]) if len(values) > 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    options = parser.parse_args()
    config = load_config(TINY, SMALL)
    folder, laps, begun = options.out / "run", list[dict[str, float]](), time.monotonic()
    run(config, folder)
    with (options.out / "laps.jsonl").open("w", encoding="utf-8") as log:
        while time.monotonic() - begun < 60 * options.minutes:
            started = time.monotonic()
            run(config, folder, redo=["round-1/samples"])
            laps.append({"lap": len(laps) + 1, "seconds": time.monotonic() - started, **measure()})
            print(json.dumps(laps[-1]), file=log, flush=True)
            print("  ".join(f"{name} {value:.0f}" for name, value in laps[-1].items()), flush=True)
    print(f"\n{'':<12} {'first':>8} {'last':>8} {'most':>8}  a lap")
    for name in measure():
        values = [lap[name] for lap in laps]
        print(f"{name:<12} {values[0]:>8.0f} {values[-1]:>8.0f} {max(values):>8.0f}  {growth(laps, name):+.3f}")


if __name__ == "__main__":
    main()
