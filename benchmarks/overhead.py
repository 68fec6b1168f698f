"""What of the demo is neither model arithmetic nor image coding? A profile of the demo with a tenth of its steps.

    python benchmarks/overhead.py --out FILE

Every function's own time, by kind: `arithmetic` (torch's and numpy's compiled functions, rendering the phantom among
them), `coding` (PNG and safetensors), `files` (the operating system), and `python`, the rest: the interpreter, in our
code and in the libraries' between two compiled functions. The profiler slows down the last; so the same run is timed
without it, too, and `python` is also told as what that took beyond the compiled functions. One thread, no crew; the
start of the process, with the imports, is counted apart.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

SCALED = (
    "threads=1", "device=cpu", "data.phantom.val=80", "data.phantom.test=400", "data.phantom.oracle=400",
    "base.steps=30",
    "critic.classifier.steps=60", "critic.judge.steps=50", "preferences.candidates=16", "preferences.max_candidates=16",
    "alignment.steps=10", "evaluation.classifier.steps=120", "evaluation.synthetic=64",
)  # fmt: skip
CODING = ("encode", "decode", "deflate", "inflate", "crc32", "adler32", "safetensors", "sha256", "hashlib", "serialize")
FILES = ("posix.", "io.", "fsync", "_io.", "socket", "select", "sleep", "acquire")
ARITHMETIC = ("torch", "_C", "numpy", "ufunc", "run_backward", "scipy", "array", "Generator", "reduce", "einsum")


def kind_of(file: str, name: str) -> str:
    """What a profiled function spends its own time on."""
    if file != "~":  # of Python
        return "arithmetic" if "/saadi/worlds/" in file else "python"
    for kind, words in (("coding", CODING), ("files", FILES), ("arithmetic", ARITHMETIC)):
        if any(word in name for word in words):
            return kind
    return "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--top", type=int, default=12, help="functions of Python to name")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    from saadi.configfile import demo_config
    from saadi.pipeline import run

    imports = time.perf_counter() - begun
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory() as room:
        begun = time.perf_counter()
        run(demo_config(0, SCALED), Path(room) / "plain", final=True)
        plain = time.perf_counter() - begun
        profile.runcall(run, demo_config(0, SCALED), Path(room) / "profiled", final=True)
    stats = pstats.Stats(profile)
    spent, python = defaultdict[str, float](float), []
    rows = stats.stats  # type: ignore[attr-defined]
    for (file, _, name), (_, calls, own, _, _) in rows.items():
        kind = kind_of(file, name)
        spent[kind] += own
        if kind == "python":
            python.append((own, calls, f"{'/'.join(Path(file).parts[-3:])}:{name}"))
    total = sum(spent.values())
    table = Table("own time", "seconds", "share")
    for kind, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        table.add_row(kind, f"{seconds:.1f}", f"{seconds / total:.1%}")
    for seconds, calls, name in sorted(python, reverse=True)[: arguments.top]:
        table.add_row(f"  {name} ({calls} calls)", f"{seconds:.2f}", f"{seconds / total:.1%}")
    left = plain - total + spent["python"]
    said = f"without the profiler {plain:.1f} s, of which python {left:.1f} s, {left / plain:.1%}"
    Console(width=120).print(table, said, f"imports: {imports:.1f} s")
    if arguments.out:
        figures = {"imports": imports, "seconds": dict(spent), "plain": plain, "python": left}
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
