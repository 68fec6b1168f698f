"""How do time and memory of each stage grow with the images? A tiny run at 1, 10 and 100 times as many, one command.

    python benchmarks/growth.py --times 1 10 100 --out FILE

Training and test images, candidates, pairs and synthetic images all grow; optimiser steps and solver steps do not, so
that stages which only train stay level and the others grow with the images at most. A stage's memory is the largest
resident set of the run's one process while it lasted, a poll every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console
from rich.table import Table


def recipe(times: int) -> dict[str, Any]:
    """The tiny run with `times` as many images of every kind."""
    return {
        "threads": 1,
        "device": "cpu",
        "patience": 0,
        "data": {
            "source": "phantom",
            "size": 32,
            "phantom": {
                "train": 24 * times, "val": 8 * times, "test": 16 * times, "patients": [3, 1, 2], "tail": 0.5
            },
        },
        "base": {"steps": 20, "batch": 4},
        "sampling": {"steps": 2},
        "critic": {
            "classifier": {"steps": 20, "batch": 8}, "judge": {"model": "test_vit", "steps": 20, "batch": 8}, "folds": 2
        },
        "preferences": {"candidates": 6 * times, "max_candidates": 6 * times, "pairs": 3 * times, "margin": 0.0},
        "alignment": {"steps": 20, "pairs": 4, "bank": 1, "stop_rise": 10.0},
        "evaluation": {
            "classifier": {"steps": 20, "batch": 8}, "seeds": 1, "synthetic": 8 * times, "mixing": [0.5],
            "bootstrap": 100,
        },
    }  # fmt: skip


def measured(times: int) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds and peak bytes by stage of one run."""
    with tempfile.TemporaryDirectory() as room:
        config = Path(room) / "config.yaml"
        config.write_text(yaml.safe_dump(recipe(times)), encoding="utf-8")
        command = [sys.executable, "-m", "saadi", "run", str(config), "--out", f"{room}/run", "--final"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        stage, peaks, lines = ["start"], defaultdict[str, int](int), []

        def follow() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if line.endswith(" ...\n"):
                    stage[0] = line.removesuffix(" ...\n")

        reader = threading.Thread(target=follow)
        reader.start()
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peaks[stage[0]] = max(peaks[stage[0]], watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
        reader.join()
        if process.wait():
            sys.exit("".join(lines))
        results = json.loads((Path(room) / "run" / "results.json").read_text(encoding="utf-8"))
        return results["seconds"], dict(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    runs = {times: measured(times) for times in arguments.times}
    columns = [f"{what}, x{times}" for what in ("s", "MB") for times in runs]
    table = Table("stage", *columns)
    for stage in dict.fromkeys(name for seconds, peaks in runs.values() for name in (*seconds, *peaks)):
        spent = [f"{seconds[stage]:.1f}" if stage in seconds else "" for seconds, _ in runs.values()]
        taken = [f"{peaks[stage] / 1e6:.0f}" if stage in peaks else "" for _, peaks in runs.values()]
        table.add_row(stage, *spent, *taken)
    Console(width=120).print(table)
    if arguments.out:
        rows = {times: {"seconds": seconds, "peak": peaks} for times, (seconds, peaks) in runs.items()}
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
