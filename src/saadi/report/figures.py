"""Pictures for the page: plots as inline SVG that follows the page's colours, images as sprites in data URIs.

Plots are drawn small (345 units wide) so that their text stays legible on a phone; their colours are replaced by the
page's CSS variables, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from saadi.report.wording import duration, estimate, short

INK, MUTED, PALE, SOFT, LINE, ACCENT = "#1c2127", "#5f6975", "#aab3bd", "#cdd4da", "#d9dee3", "#0b6e7f"
WANTED, FOUND = "#ffd60a", "#35d0ff"
"""Outlines of the mask that was asked for, and of the one that a judge sees."""
_THEME = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PALE: "--pale", SOFT: "--soft"}
_WIDTH = 345 / 72
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
}


@dataclass(frozen=True)
class Interval:
    """One row of a dot-and-interval plot, in points, nan where nothing was measured.

    `dots`: single trainings; `strong`: drawn in the accent colour.
    """

    name: str
    mean: float
    low: float
    high: float
    strong: bool = False
    dots: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    """One curve: `x` and `y` of equal length; not finite values leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    strong: bool = False


@dataclass(frozen=True)
class Sprite:
    """Several images in one: a data URI and its size in pixels."""

    uri: str
    width: int
    height: int


def _svg(figure: Figure, label: str) -> Markup:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The browser draws the text; that matplotlib's own font lacks a letter of it does not matter.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing).replace("xlink:href", "href")
    colour = r"(fill|stroke): (#[0-9a-f]{6})"
    drawing = re.sub(colour, lambda m: f"{m[1]}: var({_THEME[m[2]]})" if m[2] in _THEME else m[0], drawing)
    view = re.search(r'viewBox="([^"]*)"', drawing)
    head = Markup('<svg class="plot" role="img" viewBox="{}" aria-label="{}">').format(view[1] if view else "", label)
    return head + Markup(drawing[drawing.index(">") + 1 :])


def _draw(height: float, salt: str, panels: int = 1) -> tuple[Figure, list[Axes]]:
    # The salt keeps the ids of two drawings in one page apart.
    matplotlib.rcParams["svg.hashsalt"] = salt
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    return figure, list(axes)


def _rows(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(title, fontsize=9)


def _beside(axes: Axes, y: float, text: str, strong: bool) -> None:
    colour = ACCENT if strong else MUTED
    axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=colour)


def intervals(rows: Sequence[Interval], title: str, label: str, zero: bool = False) -> Markup:
    """A dot and a 95 % interval a row, the values beside it; `zero` draws the line of no difference."""
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _draw(0.30 * len(rows) + 0.55, label)
        for y, row in enumerate(rows):
            colour = ACCENT if row.strong else MUTED
            axes.plot([row.low, row.high], [y, y], color=colour, lw=2.4, solid_capstyle="round")
            axes.plot(row.dots, [y + 0.3] * len(row.dots), "|", color=colour, ms=4, alpha=0.7)
            axes.plot([row.mean], [y], "o", color=colour, ms=6.5)
            _beside(axes, y, estimate(row.mean, (row.low, row.high), scale=1, sign=zero), row.strong)
        if zero:
            axes.axvline(0, color=INK, lw=0.9)
        _rows(axes, [row.name for row in rows], title)
        return _svg(figure, label)


def bars(
    names: Sequence[str], series: Mapping[str, Sequence[float]], marked: set[int], title: str, label: str
) -> Markup:
    """Horizontal bars: a group for every name, a bar for each of up to four series, the last in the accent colour.

    The names of the `marked` rows are bold. A row that is nan in all series is said to be not measured.
    """
    colours = [*(MUTED, PALE, SOFT)[: len(series) - 1], ACCENT]
    thick = 0.8 / max(len(series), 1)
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _draw((0.17 + 0.11 * len(series)) * len(names) + 0.8, label)
        for k, ((name, values), colour) in enumerate(zip(series.items(), colours, strict=True)):
            offsets = [y - 0.4 + thick * (k + 0.5) for y in range(len(names))]
            axes.barh(offsets, values, height=thick * 0.86, color=colour, label=name)
        _rows(axes, names, title)
        for y in range(len(names)):
            if all(math.isnan(values[y]) for values in series.values()):
                axes.text(1, y, "not measured", va="center", fontsize=9, color=MUTED)
        axes.set_xlim(0, 100)
        for y in marked:
            axes.get_yticklabels()[y].set_fontweight("bold")
        figure.legend(loc="outside upper left", ncols=4, fontsize=9, handlelength=1.0, columnspacing=1.1)
        return _svg(figure, label)


def durations(seconds: Mapping[str, float], label: str) -> Markup:
    """Horizontal bars of wall time, one a stage."""
    with matplotlib.rc_context(_STYLE):
        figure, (axes,) = _draw(0.24 * len(seconds) + 0.55, label)
        minutes = [value / 60 for value in seconds.values()]
        axes.barh(range(len(minutes)), minutes, height=0.62, color=ACCENT)
        for y, value in enumerate(seconds.values()):
            _beside(axes, y, duration(value), False)
        _rows(axes, list(seconds), "minutes")
        return _svg(figure, label)


def curves(panels: Mapping[str, Sequence[Line]], label: str, rule: Mapping[str, float] | None = None) -> Markup:
    """Panels of curves over optimiser steps, one above the other; `rule`: a level to compare with, by panel."""
    with matplotlib.rc_context(_STYLE):
        figure, all_axes = _draw(1.75 * len(panels) + 0.35, label, len(panels))
        for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
            for line in lines:
                few = len(line.x) <= 40
                axes.plot(
                    line.x, line.y, color=ACCENT if line.strong else PALE, lw=1.9 if line.strong else 1.5,
                    label=line.name, marker="o" if few else None, ms=3.2,
                )  # fmt: skip
            if rule and title in rule:
                axes.axhline(rule[title], color=MUTED, lw=0.9, ls=(0, (4, 3)))
            axes.set_title(title, loc="left", fontsize=10, color=INK)
            axes.tick_params(length=0, labelcolor=MUTED)
            axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=3))
            if len(lines) > 1:
                axes.legend(fontsize=9, handlelength=1.4)
        all_axes[-1].set_xlabel("optimiser steps", fontsize=9)
        return _svg(figure, label)


def smooth(values: Sequence[float], width: int) -> list[float]:
    """A running mean over about `width` neighbours; the ends average over what is there."""
    half = width // 2
    return [float(np.mean(values[max(0, k - half) : k + half + 1])) for k in range(len(values))]


DASH = 4
"""Pixels of a colour, where lines of several are one."""


def outlined(
    image: NDArray[np.uint8], masks: Sequence[tuple[NDArray[np.bool_], str]], side: int = 128
) -> NDArray[np.uint8]:
    """An image [h, w, 3], enlarged to `side` pixels at the least, with masks [h, w] outlined in colours (#rrggbb).

    A line runs around the mask, not on it: a thin shaft stays to be seen. Where several lines are one, their colours
    take turns along it.
    """
    grown = max(1.0, side / max(image.shape[:2]))
    size = (round(image.shape[1] * grown), round(image.shape[0] * grown))
    large = np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    insides = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask, _ in masks]
    lines = [ndimage.binary_dilation(inside) & ~inside for inside in insides]
    turn = np.add.outer(np.arange(size[1]), np.arange(size[0])) // DASH % max(1, len(masks))
    for own in (True, False):  # each line whole, then each where it is its turn
        for number, (line, (_, colour)) in enumerate(zip(lines, masks, strict=True)):
            large[line & (own | (turn == number))] = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return large


def sprite(tiles: Sequence[NDArray[np.uint8] | None], columns: int, limit: int = 160) -> Sprite:
    """Images [h, w, 3] uint8 side by side in one; missing ones (None) are grey.

    All get the size of the first there is, at most `limit` pixels a side. Small ones stay exact (PNG with clear gaps),
    large ones become JPEG, so that a page of hundreds of images can still be mailed.
    """
    first = next((tile for tile in tiles if tile is not None), np.full((64, 64, 3), 128, np.uint8))
    shrink = min(1.0, limit / max(first.shape[:2]))
    height, width = (max(1, round(side * shrink)) for side in first.shape[:2])
    exact, gap = max(first.shape[:2]) <= 96, 2
    size = (columns * (width + gap) - gap, -(-len(tiles) // columns) * (height + gap) - gap)
    sheet = Image.new("RGBA", size, (0, 0, 0, 0)) if exact else Image.new("RGB", size, (128, 128, 128))
    for k, tile in enumerate(tiles):
        image = Image.new("RGB", (width, height), (128, 128, 128)) if tile is None else Image.fromarray(tile)
        row, column = divmod(k, columns)
        where = (column * (width + gap), row * (height + gap))
        sheet.paste(image.resize((width, height), Image.Resampling.LANCZOS), where)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG" if exact else "JPEG", optimize=True, quality=88)
    kind, data = "png" if exact else "jpeg", base64.b64encode(buffer.getvalue()).decode()
    return Sprite(f"data:image/{kind};base64,{data}", *size)
