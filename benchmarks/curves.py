"""What solver, steps and guidance are worth: KID and the judge's agreement of a run's base model, and what they cost.

    python benchmarks/curves.py runs/demo-classification --out FILE

Images of one noise are drawn in every row. Rows differ from the run's own settings in one thing: the solver and its
steps, or the guidance. KID against the validation images; seconds of this process on all threads. The test set is not
read.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from saadi.config import RunConfig
from saadi.configfile import load_config
from saadi.critics.stages import fit_critics
from saadi.data.conditions import conditions_of
from saadi.data.stages import prepare_data
from saadi.diffusion.painting import Painter
from saadi.evaluation.fidelity import cosine_kid
from saadi.evaluation.images import judge_images
from saadi.records import Sample
from saadi.runtime import prepare_runtime
from saadi.seeds import seed_of
from saadi.store import Run


class Row(NamedTuple):
    """One way of drawing: its settings, what its images are like, and the seconds of one."""

    solver: str
    steps: int
    guidance: float
    kid: float
    judge_agreement: float
    seconds: float


def settings(config: RunConfig, steps: list[int], guidances: list[float]) -> Iterator[dict[str, Any]]:
    """The changes of `sampling` that are compared."""
    for solver in ("dpm++", "ddim"):
        yield from ({"solver": solver, "steps": count} for count in steps)
    yield from ({"guidance": strength} for strength in guidances if strength != config.sampling.guidance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run of classification whose critic is there")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--steps", type=int, nargs="+", default=[3, 5, 7, 12, 25])
    parser.add_argument("--guidances", type=float, nargs="+", default=[1.0, 1.3, 1.6, 2.0, 3.0])
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    config = load_config(arguments.run / "config.yaml")
    if config.task != "classification":
        parser.error(f"{arguments.run}: a run of {config.task}; KID and judge are of whole images of one class here")
    prepare_runtime(config)
    rows = list[Row]()
    with Run(arguments.run, config) as run:
        data = prepare_data(run)
        critic = fit_critics(run, data)
        real = critic.embedder.embed(data.split("val").images)
        names, condition = data.space.asked, conditions_of(config, critic.train, "curves")
        samples = [
            Sample(f"{i}", condition(names[i % len(names)], i), 0, seed_of(config.seed, "curves", i), "")
            for i in range(arguments.images)
        ]
        painter, size = Painter.open(run.folder, config, []), config.sampling.batch
        for change in settings(config, arguments.steps, arguments.guidances):
            chosen = config.sampling.model_copy(update=change)
            artist = replace(painter, config=config.model_copy(update={"sampling": chosen}))
            begun = time.perf_counter()
            parts = [artist.paint(samples[start : start + size])[0] for start in range(0, len(samples), size)]
            seconds = (time.perf_counter() - begun) / len(samples)
            images = np.concatenate(parts)
            agrees = float(judge_images(run, critic, samples, images)[0].mean())
            kid = cosine_kid(real, critic.embedder.embed(images))
            rows.append(Row(chosen.solver, chosen.steps, chosen.guidance, kid, agrees, seconds))
    table = Table("solver", "steps", "guidance", "judge agrees", "KID", "ms an image")
    for row in rows:
        figures = (f"{row.judge_agreement:.0%}", f"{row.kid:.3f}", f"{1e3 * row.seconds:.0f}")
        table.add_row(row.solver, str(row.steps), str(row.guidance), *figures)
    Console(width=120).print(table, f"{arguments.images} images in each row")
    if arguments.out:
        arguments.out.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
