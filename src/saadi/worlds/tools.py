"""Instruments as data: a `Tool` is a handful of strokes, discs, rings and boxes, drawn as signed distance fields.

Both worlds speak this one language: the phantom's eight instruments (`phantom.py`) and the endless invented ones of
the pretext world (`pretext.py`). The frame is the tool's own: the joint is the origin, `u` runs towards the tip, `v`
across, and one unit is the length of the tip. Distances follow I. Quilez' catalogue of 2-D signed distance functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Part:
    """One solid of a tool.

    `stroke`: a chain of capsules through `points`, radius running from `size[0]` to `size[1]`. `disc`: an ellipse at
    `points[0]` with radii `size`. `ring`: a circle of radius `size[0]` and half-thickness `size[1]`. `box`: half-sides
    `size`. A `jaw` is drawn twice, mirrored, turned about the joint by half the opening. A `hole` is cut out.
    """

    kind: Literal["stroke", "disc", "ring", "box"]
    points: tuple[tuple[float, float], ...]
    size: tuple[float, float]
    jaw: bool = False
    hole: bool = False
    tone: float = 0.75


@dataclass(frozen=True)
class Tool:
    """A class of instrument: its name in prompts, its parts, and how far its jaws open (degrees, least and most)."""

    name: str
    parts: tuple[Part, ...]
    opening: tuple[float, float] = (0.0, 0.0)
    shaft: float = 0.16


@dataclass(frozen=True)
class Pose:
    """Where a tool is: joint (image fractions), heading of the shaft (radians), tip length (fraction of the side)."""

    x: float
    y: float
    heading: float
    length: float
    opening: float = 0.0
    wrist: float = 0.0
    roll: float = 1.0
    mirror: float = 1.0


def another_make(rng: np.random.Generator, tool: Tool, variety: float) -> Tool:
    """A tool of the same class by another maker: `variety` is the sigma of its parts' log sizes.

    Each part is also moved, by a quarter of it in tip lengths, and made lighter or darker by half of it.
    """

    def made(part: Part) -> Part:
        shift = 0.25 * variety * rng.standard_normal(2)
        grown = np.exp(variety * rng.standard_normal(2))
        return replace(
            part,
            points=tuple((u + float(shift[0]), v + float(shift[1])) for u, v in part.points),
            size=(part.size[0] * float(grown[0]), part.size[1] * float(grown[1])),
            tone=float(np.clip(part.tone + 0.5 * variety * rng.standard_normal(), 0.1, 1.0)),
        )

    return replace(tool, parts=tuple(made(part) for part in tool.parts))


def _stroke(u: Field, v: Field, part: Part) -> Field:
    best: Field | None = None
    pieces = len(part.points) - 1
    for i, ((ax, ay), (bx, by)) in enumerate(zip(part.points, part.points[1:], strict=False)):
        dx, dy = bx - ax, by - ay
        t = np.clip(((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)
        r0 = part.size[0] + (part.size[1] - part.size[0]) * i / pieces
        r1 = part.size[0] + (part.size[1] - part.size[0]) * (i + 1) / pieces
        d = np.hypot(u - (ax + t * dx), v - (ay + t * dy)) - (r0 + (r1 - r0) * t)
        best = d if best is None else np.minimum(best, d)
    assert best is not None
    return best


def part_distance(u: Field, v: Field, part: Part) -> Field:
    """Signed distance [H, W] (tip lengths, negative inside) from a part, in the frame it was declared in."""
    if part.kind == "stroke":
        return _stroke(u, v, part)
    cx, cy = part.points[0]
    a, b = part.size
    distance: Field
    if part.kind == "ring":
        distance = np.abs(np.hypot(u - cx, v - cy) - a) - np.float32(b)
    elif part.kind == "disc":
        distance = (np.hypot((u - cx) / a, (v - cy) / b) - 1.0) * np.float32(min(a, b))
    else:
        qx, qy = np.abs(u - cx) - a, np.abs(v - cy) - b
        distance = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0)) + np.minimum(np.maximum(qx, qy), 0)
    return distance


def tip_distance(u: Field, v: Field, tool: Tool, opening: float) -> tuple[Field, Field]:
    """Signed distance from the tip and the tone (0 dark, 1 bright) of its nearest part, both [H, W]."""
    distance = np.full_like(u, 1e3)
    tone = np.full_like(u, 0.7)
    holes: list[Field] = []
    for part in tool.parts:
        turns = (opening / 2, -opening / 2) if part.jaw else (0.0,)
        for k, turn in enumerate(turns):
            c, s = math.cos(turn), math.sin(turn)
            pu, pv = u * c + v * s, v * c - u * s
            d = part_distance(pu, -pv if k else pv, part)
            if part.hole:
                holes.append(d)
                continue
            np.copyto(tone, np.float32(part.tone), where=d < distance)
            distance = np.minimum(distance, d)
    for d in holes:
        distance = np.maximum(distance, -d)
    return distance, tone


def place(x: Field, y: Field, tool: Tool, pose: Pose) -> tuple[Field, Field, Field]:
    """Distances (image fractions) [H, W] from tip and from shaft, and the tip's tone, for a tool in a pose.

    `x`, `y`: pixel centres as image fractions [H, W] float32. The shaft has no end: it always leaves the image.
    """
    c, s = math.cos(pose.heading), math.sin(pose.heading)
    scale = 1.0 / pose.length
    along = ((x - pose.x) * c + (y - pose.y) * s) * np.float32(scale)
    across = ((y - pose.y) * c - (x - pose.x) * s) * np.float32(scale)
    half = np.float32(tool.shaft)
    shaft = np.hypot(np.maximum(along - 0.02, 0.0), np.maximum(np.abs(across) - half, 0.0)) + np.minimum(
        np.abs(across) - half, 0.0
    )
    cw, sw = math.cos(pose.wrist), math.sin(pose.wrist)
    u, v = along * cw + across * sw, (across * cw - along * sw) * np.float32(pose.mirror / pose.roll)
    tip, tone = tip_distance(u, v, tool, pose.opening)
    return tip * np.float32(pose.length), shaft * np.float32(pose.length), tone


@lru_cache(maxsize=256)
def silhouette(tool: Tool, opening: float | None = None, size: int = 48) -> NDArray[np.bool_]:
    """The tip's outline [size, size] in the canonical pose, by which tools are told apart (`overlap`)."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    u, v = np.meshgrid(axis * 1.6 - 0.3, axis * 1.6 - 0.8)
    mean = math.radians(sum(tool.opening) / 2)
    distance, _ = tip_distance(u, v, tool, mean if opening is None else opening)
    return distance < 0


def overlap(a: Tool, b: Tool) -> float:
    """How alike two tools look, 0 to 1: the best intersection over union of their outlines, mirror images included."""
    best = 0.0
    for share in (0.0, 0.5, 1.0):
        first = silhouette(a, math.radians(a.opening[0] + share * (a.opening[1] - a.opening[0])))
        for other in (0.0, 0.5, 1.0):
            second = silhouette(b, math.radians(b.opening[0] + other * (b.opening[1] - b.opening[0])))
            for shape in (second, second[::-1]):
                union = np.count_nonzero(first | shape)
                best = max(best, np.count_nonzero(first & shape) / union if union else 0.0)
    return best
