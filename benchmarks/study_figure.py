"""The pictures of the studies: what each arm reached, and by how much the round that val chose is ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from saadi.report.figures import ACCENT, INK, LINE, MUTED, PALE

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "study",  # the same figures, the same file
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
}
CONTROLS = ("real-pretrained", "unled", "unpicked")


def _colour(arm: str) -> str:
    return ACCENT if arm.startswith("round-") else PALE if arm in CONTROLS else MUTED


def _rows(axes: Axes, names: list[str], title: str) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(title)


def _gain(axes: Axes, y: float, entry: Mapping[str, Any]) -> None:
    """A mean in points and, where there is one, its interval."""
    if "ci95" in entry:
        axes.plot([100 * bound for bound in entry["ci95"]], [y, y], color=ACCENT, lw=2.4, solid_capstyle="round")
    axes.plot([100 * entry["mean"]], [y], "o", color=ACCENT, ms=6)


def draw(told: Mapping[str, Any]) -> Figure:
    """What `study.report` found, n seeds: left a dot a seed and the mean of each arm; right each endpoint's difference
    by seed, its mean and t-interval."""
    arms, endpoints = told["arms"], told["endpoints"]
    figure = Figure(figsize=(10, 0.3 * max(len(arms), len(endpoints)) + 0.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for y, (name, entry) in enumerate(arms.items()):
        points = [100 * one for one in entry["by_seed"]]
        left.plot(points, [y] * len(points), "o", color=_colour(name), ms=4, alpha=0.5, mew=0)
        left.plot([100 * entry["mean"]], [y], "|", color=_colour(name), ms=14, mew=2.4)
    _rows(left, list(arms), f"balanced accuracy on test, %: {told['n']} pipeline seeds, and their mean")
    for y, entry in enumerate(endpoints.values()):
        points = [100 * one for one in entry["by_seed"]]
        right.plot(points, [y + 0.25] * len(points), "o", color=PALE, ms=4, mew=0)
        _gain(right, y, entry)
    right.axvline(0, color=INK, lw=0.9)
    _rows(right, list(endpoints), "points, with a 95 % t-interval over the seeds")
    return figure


def draw_sets(told: Mapping[str, Any]) -> Figure:
    """What `real_sets.report` found: each set's gains with their intervals, and how many folds they are of."""
    gains = {
        f"{name} ({len(own['folds'])} folds): {gain}": entry
        for name, own in told["sets"].items()
        for gain, entry in own["gains"].items()
    }
    figure = Figure(figsize=(8, 0.3 * len(gains) + 0.8), layout="constrained")
    axes = figure.subplots()
    for y, entry in enumerate(gains.values()):
        _gain(axes, y, entry)
    axes.axvline(0, color=INK, lw=0.9)
    _rows(axes, list(gains), "points, with 95 % bootstrap intervals")
    return figure


def save(drawn: Callable[[Mapping[str, Any]], Figure], told: Mapping[str, Any], path: Path) -> None:
    """Write a picture of what was found as SVG, on white."""
    with matplotlib.rc_context(STYLE):
        drawn(told).savefig(path, format="svg", facecolor="white", metadata={"Date": None})
