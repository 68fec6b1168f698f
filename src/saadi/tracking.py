"""Curves and results also go to TensorBoard, or Weights & Biases, through Accelerate's trackers; on the user's word."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from saadi.config import RunConfig
from saadi.errors import BadInput
from saadi.store import Run

PLACE = "tracking"
"""Where, in a run's folder, TensorBoard's files lie."""


def check_trackers(config: RunConfig) -> None:
    """Raise `BadInput` for a tracker whose package is not installed."""
    for name in config.tracking:
        if importlib.util.find_spec(name) is None:
            raise BadInput(f"tracking: {name} is not installed; install it, or leave {name} out")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | float]:
    """A nested mapping as dotted names of numbers and texts."""
    out: dict[str, str | float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return out


class Tracking:
    """The trackers of a run. Without any, every method is free."""

    def __init__(self, config: RunConfig, folder: Path, names: Sequence[str]) -> None:
        self._trackers = []
        for name in names:
            given = {"logging_dir": folder} if name == "tensorboard" else {"dir": str(folder), "name": folder.name}
            tracker = LOGGER_TYPE_TO_CLASS[name](PLACE if name == "tensorboard" else "saadi", **given)
            tracker.start()
            tracker.store_init_configuration(_flat(config.model_dump(mode="json")))
            self._trackers.append(tracker)

    def _log(self, values: dict[str, float], step: int | None) -> None:
        for tracker in self._trackers:
            # W&B wants steps that never fall over a whole run: there they are a figure of their own.
            tracker.log(values, step=step if tracker.name == "tensorboard" else None)

    def stage(self, name: str, folder: Path) -> None:
        """The log of a stage that was finished, if it has one."""
        path = folder / "log.jsonl"
        if not self._trackers or not path.is_file():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            self._log({f"{name}/{key}": value for key, value in row.items()}, int(row["step"]))

    def results(self, results: Mapping[str, Any]) -> None:
        """Every arm's mean and every gain."""
        for kind in ("arms", "gains"):
            self._log({f"{kind}/{name}": float(row["mean"]) for name, row in results.get(kind, {}).items()}, 0)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()


@contextmanager
def tracked(run: Run) -> Iterator[Tracking]:
    """The trackers a run asks for, told of every stage that is made. Of several processes the first has them."""
    trackers = Tracking(run.config, run.folder, run.config.tracking if run.team.leads else ())
    run.finished = trackers.stage
    try:
        yield trackers
    finally:
        trackers.close()
