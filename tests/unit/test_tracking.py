"""What TensorBoard is told, and that nothing is told where nobody asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saadi.config import RunConfig
from saadi.configfile import parse_config
from saadi.errors import BadInput
from saadi.store import Run
from saadi.tracking import check_trackers, tracked
from saadi.training import write_log


def test_curves_and_results_reach_tensorboard(tmp_path: Path) -> None:
    folder, config = tmp_path / "run", parse_config({"tracking": ["tensorboard"], "threads": 1}, "a test")

    def make(place: Path, _: object) -> None:
        write_log(place / "log.jsonl", [{"step": 10.0, "loss": 0.5}, {"step": 20.0, "loss": 0.25}])

    with Run(folder, config) as run, tracked(run) as trackers:
        run.stage("base", make)
        run.stage("data", lambda place, _: (place / "nothing.txt").touch())
        trackers.results({"arms": {"real": {"mean": 0.5}}, "gains": {"round-1 - real": {"mean": 0.125}}})
    events = EventAccumulator(str(folder / "tracking"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("base/loss")] == [(10, 0.5), (20, 0.25)]
    assert [one.value for one in events.Scalars("arms/real")] == [0.5]
    assert [one.value for one in events.Scalars("gains/round-1 - real")] == [0.125]


def test_a_stage_that_is_done_is_not_told_twice(tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        with Run(tmp_path / "run", RunConfig(threads=1)) as run:
            run.finished = lambda name, folder: told.append(name)
            run.stage("base", lambda place, _: (place / "a.txt").touch())
    assert told == ["base"]


def test_nothing_is_told_where_nobody_asked(tmp_path: Path) -> None:
    with Run(tmp_path / "run", RunConfig(threads=1)) as run, tracked(run) as trackers:
        run.stage("base", lambda place, _: write_log(place / "log.jsonl", [{"step": 1.0, "loss": 1.0}]))
        trackers.results({})
    assert not (tmp_path / "run/tracking").exists()


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"tracking: wandb is not installed"):
        check_trackers(parse_config({"tracking": ["wandb"]}, "a test"))


def test_wandb_is_given_steps_as_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses steps that fall, as they do from stage to stage."""
    told: list[tuple[dict[str, float], int | None]] = []

    class Wandb:
        name = "wandb"

        def __init__(self, project: str, *, dir: str, name: str) -> None:
            assert (project, name) == ("saadi", "run")

        def log(self, values: dict[str, float], step: int | None) -> None:
            told.append((values, step))

        start = finish = lambda self: None
        store_init_configuration = lambda self, values: None  # noqa: E731

    monkeypatch.setattr("saadi.tracking.LOGGER_TYPE_TO_CLASS", {"wandb": Wandb})
    run = SimpleNamespace(
        config=parse_config({"tracking": ["wandb"]}, ""), folder=tmp_path / "run", team=SimpleNamespace(leads=True)
    )
    write_log(tmp_path / "log.jsonl", [{"step": 3.0, "loss": 1.0}])
    with tracked(run) as trackers:  # type: ignore[arg-type]
        trackers.stage("base", tmp_path)
    assert told == [({"base/step": 3.0, "base/loss": 1.0}, None)]
