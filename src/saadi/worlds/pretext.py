"""The pretext world: endless invented tools under invented names, none of which is an instrument of the phantom.

Stable Diffusion has seen the world before it sees surgery; our small foundation sees this one instead. It learns from
it what light, tissue, shafts and articulated steel look like, and that a *name* means a shape; it cannot learn a single
class of the demo, since every invented tool that resembles one is thrown away (`invent`, tested).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np

from saadi.worlds.phantom import INSTRUMENTS
from saadi.worlds.tools import Part, Tool, overlap

TOO_ALIKE = 0.62
"""An invented tool whose outline overlaps an instrument's by more than this (IoU) is thrown away."""

SYLLABLES = (
    "ba",
    "cor",
    "dul",
    "fen",
    "gim",
    "hox",
    "jar",
    "kel",
    "lom",
    "mur",
    "nip",
    "pod",
    "quil",
    "rav",
    "sut",
    "tev",
    "vim",
    "wex",
    "yor",
    "zan",
)


PLACES = ("root", "mid", "end")
SOLIDS = {"disc": "disc", "ring": "ring", "box": "plate", "stroke": "prong"}
WORDS = (
    *("rigid", "narrow", "wide"),  # jaws: none, little opened, much opened
    *("thin", "medium", "thick"),
    *("tapered", "even", "flared"),
    *("straight", "bowed", "bent"),
    *("short", "long"),
    *("black", "dark", "grey", "pale", "bright"),
    *(place + solid for solid in SOLIDS.values() for place in PLACES),
    *("pierced", "double"),
)
"""What the pretext world's prompts say of a tool. A word is heard in hundreds of scenes of many tools, so that the
foundation learns to listen; of the 240 names alone, it learnt nothing in 44,800 passes."""


def _which(value: float, limits: tuple[float, ...], words: tuple[str, ...]) -> str:
    return words[sum(value > limit for limit in limits)]


def _shade(tone: float) -> str:
    return _which(tone, (0.2, 0.4, 0.6, 0.85), ("black", "dark", "grey", "pale", "bright"))


def describe(tool: Tool) -> list[str]:
    """What can be seen of an invented tool, as `WORDS`: its jaws, its main stroke, then each further part."""
    main = tool.parts[0]
    (start, end), (u, v) = main.size, zip(*main.points, strict=True)
    words = [
        _which(sum(tool.opening) / 2, (0.0, 30.0), ("rigid", "narrow", "wide")),
        _which(start, (0.065, 0.1), ("thin", "medium", "thick")),
        _which(end / start, (0.6, 1.0), ("tapered", "even", "flared")),
        "bent" if u[-1] < max(u[:-1]) + 0.15 else _which(max(v) - min(v), (0.15,), ("straight", "bowed")),
        _which(max(u), (0.75,), ("short", "long")),
        _shade(main.tone),
    ]
    for part in tool.parts[1:]:
        centre = sum(point[0] for point in part.points) / len(part.points)
        if part.hole:
            words.append("pierced")
            continue
        words += ["double"] if part.jaw else []
        words += [_shade(part.tone), _which(centre, (0.25, 0.6), PLACES) + SOLIDS[part.kind]]
    return words


def pretext_prompt(tool: Tool) -> str:
    """The prompt of an invented tool: its name, then what it looks like."""
    return f"a laparoscopic image of a {tool.name} {' '.join(describe(tool))}"


def _name(rng: np.random.Generator) -> str:
    return "".join(rng.choice(SYLLABLES, size=int(rng.integers(2, 4))))


def _stroke(rng: np.random.Generator, jaw: bool) -> Part:
    count = int(rng.integers(2, 5))
    u = np.linspace(0.0 if rng.random() < 0.7 else rng.uniform(0.1, 0.4), rng.uniform(0.55, 1.05), count)
    spread = rng.choice([0.05, 0.12, 0.28])
    v = rng.normal(0.0, spread, count).clip(-0.5, 0.5)
    if jaw:
        v = np.abs(v)
    v[0] *= 0.3
    if rng.random() < 0.3:  # a bend back, as hooks and sickles have
        u[-1] = u[-2] + rng.uniform(-0.15, 0.1)
        v[-1] = v[-2] + rng.choice([-1, 1]) * rng.uniform(0.2, 0.5)
    points = tuple((round(float(a), 3), round(float(b), 3)) for a, b in zip(u, v, strict=True))
    start = rng.uniform(0.03, 0.14)
    return Part("stroke", points, (round(start, 3), round(start * rng.uniform(0.25, 1.3), 3)), jaw=jaw, tone=_tone(rng))


def _tone(rng: np.random.Generator) -> float:
    return float(rng.choice([0.15, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95]))


def _solid(rng: np.random.Generator, jaw: bool) -> Part:
    kind = rng.choice(["disc", "ring", "box"])
    at = ((round(rng.uniform(0.1, 0.95), 3), round(rng.uniform(0.0, 0.2) if jaw or rng.random() < 0.3 else 0.0, 3)),)
    if kind == "ring":
        size = (round(rng.uniform(0.12, 0.3), 3), round(rng.uniform(0.03, 0.08), 3))
    else:
        size = (round(rng.uniform(0.06, 0.45), 3), round(rng.uniform(0.05, 0.26), 3))
    return Part(kind, at, size, jaw=jaw, tone=_tone(rng))


def _candidate(rng: np.random.Generator) -> Tool:
    jawed = rng.random() < 0.55
    parts = [_stroke(rng, jawed)]
    if rng.random() < 0.6:
        jaw = jawed and rng.random() < 0.5
        parts.append(_solid(rng, jaw) if rng.random() < 0.85 else _stroke(rng, jaw))
    if rng.random() < 0.3:
        radius = round(rng.uniform(0.04, 0.09), 3)
        parts.append(
            Part(
                "disc",
                ((round(rng.uniform(0.3, 0.9), 3), 0.0 if not jawed else 0.1),),
                (radius, radius),
                jaw=jawed,
                hole=True,
            )
        )
    if rng.random() < 0.4:
        side = round(rng.uniform(0.08, 0.2), 3)
        parts.append(Part("box" if rng.random() < 0.5 else "disc", ((0.0, 0.0),), (side, side), tone=_tone(rng)))
    low = rng.uniform(0, 25)
    opening = (round(low, 1), round(low + rng.uniform(5, 20), 1)) if jawed else (0.0, 0.0)
    return Tool(_name(rng), tuple(parts), opening)


def invent(count: int, seed: int = 0) -> tuple[Tool, ...]:
    """`count` tools with distinct names, none like an instrument of the phantom (`overlap` at most `TOO_ALIKE`)."""
    rng = np.random.default_rng([seed, 0x5AAD1])
    instruments = {word for tool in INSTRUMENTS for word in tool.name.split()}
    tools: dict[str, Tool] = {}
    while len(tools) < count:
        tool = _candidate(rng)
        if tool.name in tools or tool.name in instruments:
            continue
        if max(overlap(tool, instrument) for instrument in INSTRUMENTS) <= TOO_ALIKE:
            tools[tool.name] = tool
    return tuple(tools.values())


def world_hash(tools: tuple[Tool, ...]) -> str:
    """A fingerprint of a world's tools, kept with whatever was trained on it."""
    return hashlib.sha256(json.dumps([asdict(tool) for tool in tools]).encode()).hexdigest()[:16]
