"""Progress on the terminal: each stage with its rate and the time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from saadi.training import Progress as Report

_QUIET_SECONDS = 15.0


def _pace(rate: float) -> str:
    """So many a second, or seconds each: `0.0/s` says nothing of a training that takes a minute."""
    return f"{rate:.1f}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s each"


class Terminal:
    """A context manager whose `begin` is handed to a run. Writes to standard error, so that results can be piped."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, stage: str) -> Report:
        """Start showing a stage; earlier ones stay on the screen as done."""
        task = self._bars.add_task(stage, total=None, rate="")
        begun = last = time.monotonic()
        first: tuple[int, float] | None = None
        if self._bars.disable:
            self._console.print(f"{stage} ...", highlight=False)

        def report(done: int, total: int) -> None:
            nonlocal last, first
            now = time.monotonic()
            before, since = first or (0, begun)  # a stage that is resumed begins with what was done before
            first = first or (done, now)
            rate = (done - before) / max(now - since, 1e-9)
            self._bars.update(task, completed=done, total=total, rate=_pace(rate))
            if self._bars.disable and now - last > _QUIET_SECONDS and done < total:
                last = now
                left = f", {timedelta(seconds=round((total - done) / rate))} left" if rate else ""
                self._console.print(f"  {stage}: {done}/{total}, {_pace(rate)}{left}", highlight=False)

        return report
