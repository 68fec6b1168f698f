"""What caches, batches and a reference stated once are worth: our ways beside the ordinary ones, in one command.

    python benchmarks/speed.py                    # all cases, a table; JSON with --out FILE
    python benchmarks/speed.py --only drawing --repeats 5

Ways of one case run in turn, each in a process of its own, on all threads; figures are medians over the repeats.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table


def _measured(way: str) -> dict[str, Any]:
    """One way's figures, from a child process."""
    done = subprocess.run([sys.executable, __file__, "--way", way], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way}: {done.stderr.strip()}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _middle(rows: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = {key: median(row["seconds"][key] for row in rows) for key in rows[0]["seconds"]}
    return {"seconds": seconds, "peak": median(row["peak"] for row in rows), "losses": rows[0]["losses"]}


def _compare(cases: dict[str, dict[str, dict[str, Any]]]) -> Table:
    table = Table("case", "way", "counted", "ms", "times as fast", "peak, MB", "of the peak", "losses differ by")
    for case, ways in cases.items():
        first = next(iter(ways.values()))
        for way, told in ways.items():
            # The first step's loss is ln 2 whatever is computed: the others tell
            apart = [abs(a - b) for a, b in zip(told["losses"], first["losses"], strict=True)]
            worst = f"{max(apart):.1e}" if apart else ""
            for counted, seconds in told["seconds"].items():
                table.add_row(
                    case, way, counted, f"{1e3 * seconds:.2f}",
                    f"{first['seconds'].get(counted, seconds) / seconds:.2f}", f"{told['peak'] / 1e6:.0f}",
                    f"{told['peak'] / first['peak']:.2f}" if first["peak"] else "", worst,
                )  # fmt: skip
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="cases that begin so")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    from ways import WAYS

    if arguments.way:
        print(json.dumps(asdict(WAYS[arguments.way]())))
        return
    chosen = [way for way in WAYS if way.startswith(tuple(arguments.only))]
    rows = defaultdict[str, list[dict[str, Any]]](list)
    for _ in range(arguments.repeats):
        for way in chosen:
            rows[way].append(_measured(way))
    cases = defaultdict[str, dict[str, dict[str, Any]]](dict)
    for way in chosen:
        case, name = way.rsplit("/", 1)
        cases[case][name] = _middle(rows[way])
    Console(width=120).print(_compare(cases))
    if arguments.out:
        arguments.out.write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
