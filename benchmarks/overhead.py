"""What of the demo is neither model arithmetic nor image coding: where the processor is, sampled through all of it.

    python benchmarks/overhead.py --out FILE [--set rounds=1]

Runs the demo with one thread under `perf record` (Linux; in Debian's package linux-perf), which notes 49 times in each
second of processor time whose code is being executed, and tells it by kind: `arithmetic` (torch's, numpy's and scipy's
compiled code), `coding` (PNG, safetensors, hashes), `memory` (the system's kernel, the C library and torch's allocator:
pages, copies, files) and `interpreter`, all else: Python, and torch's way from it to compiled code. A profiler of
Python could not tell: it sees no operators, so `a + b` of two tensors is Python's own time to it, and it slows down
what it looks at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

RATE = 49
"""Samples a second: no divisor of the rates at which systems tick."""
KINDS = {
    "arithmetic": r"libtorch_cpu|\[JIT\]|gomp|mkl|openblas|libm\.|multiarray|scipy|_pcg64|_generator|_nd_image",
    "coding": r"_imaging|libz|libpng|libjpeg|safetensors|libcrypto|_hashlib|_sha|_blake|zlib|binascii",
    "memory": r"\[kernel|\[vdso|libc\.|libc-|libc10",
}
"""What a library's name says of its kind; the first that fits."""


def kind_of(library: str) -> str:
    """What the processor does while it is in the code of a library."""
    return next((kind for kind, names in KINDS.items() if re.search(names, library)), "interpreter")


def sampled(command: list[str], room: Path) -> dict[str, int]:
    """Samples by library while a command runs, its children's with it."""
    perf = shutil.which("perf")
    if perf is None:
        sys.exit("perf is not installed; in Debian it is in linux-perf")
    data, environment = room / "perf.data", os.environ | {"OMP_NUM_THREADS": "1"}
    record = [perf, "record", "--quiet", "--event", "cpu-clock", "--freq", str(RATE), "--output", str(data), "--"]
    subprocess.run([*record, *command], check=True, env=environment)
    report = [perf, "report", "--input", str(data), "--sort", "dso", "--stdio", "--show-nr-samples", "--quiet"]
    lines = subprocess.run(report, check=True, capture_output=True, text=True).stdout.splitlines()
    found = defaultdict[str, int](int)
    for line in lines:
        if row := re.match(r"\s*[\d.]+%\s+(\d+)\s+(.+?)\s*$", line):
            found[row[2].split(" tid ")[0]] += int(row[1])  # what is compiled while it runs is of one kind
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--set", action="append", default=[], help="a setting of the demo, as `saadi demo` takes it")
    parser.add_argument("--top", type=int, default=5, help="libraries of a kind to name")
    arguments = parser.parse_args()
    settings = [word for one in ("threads=1", *arguments.set) for word in ("--set", one)]
    with tempfile.TemporaryDirectory() as room:
        command = [sys.executable, "-m", "saadi", "demo", "--out", f"{room}/demo", *settings]
        found = sampled(command, Path(room))
    total, kinds = sum(found.values()), defaultdict[str, dict[str, int]](dict)
    for library, count in sorted(found.items(), key=lambda item: -item[1]):
        kinds[kind_of(library)][library] = count
    table = Table("where the processor is", "seconds", "share")
    for kind, libraries in sorted(kinds.items(), key=lambda item: -sum(item[1].values())):
        own = sum(libraries.values())
        table.add_row(kind, f"{own / RATE:.1f}", f"{own / total:.1%}")
        for library, count in [*libraries.items()][: arguments.top]:
            table.add_row(f"  {escape(library)}", f"{count / RATE:.1f}", f"{count / total:.1%}")
    Console(width=120).print(table)
    if arguments.out:
        seconds = {kind: sum(libraries.values()) / RATE for kind, libraries in kinds.items()}
        facts = {"seconds": seconds, "libraries": {name: count / RATE for name, count in found.items()}}
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
