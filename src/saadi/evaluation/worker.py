"""The process behind `trainings.train_arms`: python -m saadi.evaluation.worker RUN, jobs on standard input."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import torch

from saadi.config import load_config
from saadi.data.stages import read_data
from saadi.evaluation.trainings import Training, train
from saadi.runtime import prepare_runtime
from saadi.workers import serve


def main(root: Path) -> None:
    """Train on the data of the run in `root`, one thread, until there are no more jobs."""
    config = load_config(root / "config.yaml")
    prepare_runtime(config)
    torch.set_num_threads(1)
    data = read_data(root / "data")

    def work(job: dict[str, Any]) -> dict[str, Any]:
        train(root, config, data, Training.of(job["training"]), Path(job["out"]))
        return {"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

    serve(work)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
