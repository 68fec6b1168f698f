"""Drawing and judging candidates by two processes of one thread each, beside one: how many times as fast.

    python benchmarks/processes.py --out runs/processes

Both ways that a run has of sharing them out: its own crew of workers (a CPU with several threads) and torchrun. Seconds
are those of the stages `round-1/samples` and `round-1/scores` together, as their manifests have them. As in a run the
critic is made before, by the same processes, which so have started. Images and scores of all ways are compared, too:
they have to be the same. Base and critic are of few steps: what an image costs does not depend on what its model has
learnt. On a machine with nothing else to do; ways take turns, and the median of the repeats is told.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from saadi import workers
from saadi.config import RunConfig
from saadi.configfile import demo_config, load_config
from saadi.critics.stages import draw_candidates, fit_critics, score_candidates
from saadi.data.stages import prepare_data
from saadi.diffusion.painting import Sampler
from saadi.diffusion.stages import train_base
from saadi.manifests import MANIFEST
from saadi.records import read_json, write_atomic
from saadi.runtime import prepare_runtime
from saadi.store import Run
from saadi.team import join_team

STAGES = ("round-1/samples", "round-1/scores")
WAYS = {"one": (1, 0), "crew of one": (1, 1), "crew of two": (1, 2), "torchrun, two": (2, 0)}
"""By name: how many processes torchrun starts, and how many workers each has; 0: it works itself."""
QUICK = ("base.steps=2", "critic.classifier.steps=20", "critic.judge.steps=2", "data.phantom.oracle=0")


def member(folder: Path, crew: int, *, draws: bool) -> None:
    """One process of a run: data and base if they are not there; if it `draws`, the critic and round 1's candidates."""
    config = load_config(folder / "config.yaml")
    prepare_runtime(config)
    workers.crew_size = lambda config: crew
    with Run(folder, config, team=join_team(cpu=True)) as run:
        data = prepare_data(run)
        train_base(run, data)
        if draws:
            critic = fit_critics(run, data)
            samples = draw_candidates(run, Sampler(run, data.space, [], 0), critic, 1, ["base", "critic"])
            score_candidates(run, samples, critic, 1)


def start(folder: Path, processes: int, crew: int, *, draws: bool = True) -> None:
    """Have a run's `member`s run, and wait for them."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--member", str(folder)]
    command += ["--crew", str(crew), *(["--draws"] if draws else [])]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)


def measured(begun: Path, place: Path, way: str) -> tuple[float, dict[str, str]]:
    """The seconds that drawing and judging take, and the hashes of what comes out."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(begun, place)
    start(place, *WAYS[way])
    kept = [read_json(place / stage / MANIFEST) for stage in STAGES]
    shutil.rmtree(place)
    return sum(one["seconds"] for one in kept), {name: at for one in kept for name, at in one["outputs"].items()}


def begin(folder: Path, config: RunConfig) -> None:
    """A run with data and base, if it is not there already."""
    with Run(folder, config):
        pass  # it holds its configuration
    start(folder, 1, 0, draws=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/processes"))
    parser.add_argument("--candidates", type=int, default=96, help="images a class, of eight classes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--task", default="classification", help="or segmentation")
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--member", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--crew", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--draws", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.member is not None:
        member(arguments.member, arguments.crew, draws=arguments.draws)
        return
    count = [f"preferences.{name}={arguments.candidates}" for name in ("candidates", "max_candidates")]
    settings = ("threads=1", "device=cpu", *QUICK, *count, *arguments.assignments)
    begun = arguments.out / f"begun-{arguments.task}"
    begin(begun, demo_config(0, settings, arguments.task))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    made: dict[str, dict[str, str]] = {}
    for _ in range(arguments.repeats):
        for way, so_far in seconds.items():
            taken, made[way] = measured(begun, arguments.out / "measured", way)
            so_far.append(taken)
            print(json.dumps({"way": way, "seconds": taken}), flush=True)
    medians = {way: statistics.median(all_) for way, all_ in seconds.items()}
    summary = {
        "images": sum(name.endswith(".png") and "-mask" not in name for name in made["one"]),
        "seconds": {way: round(median, 2) for way, median in medians.items()},
        "times as fast as one": {way: round(medians["one"] / median, 3) for way, median in medians.items()},
        "the same images and scores": all(hashes == made["one"] for hashes in made.values()),
    }
    write_atomic(arguments.out / f"summary-{arguments.task}.json", json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
