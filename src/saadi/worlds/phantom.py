"""The phantom: eight instruments, patients with their own looks, a chosen long tail, as many images as one likes."""

from __future__ import annotations

from saadi.worlds.scene import Difficulty
from saadi.worlds.tools import Part, Tool

DIFFICULTY = Difficulty(occlusion=0.4, smoke=0.6, blur=0.02, fold=(0.55, 1.0), variety=0.15)

INSTRUMENTS: tuple[Tool, ...] = (
    Tool(
        "grasper",
        (
            Part("stroke", ((0.0, 0.0), (0.35, 0.13), (0.75, 0.12), (1.0, 0.04)), (0.10, 0.09), jaw=True),
            Part("disc", ((0.55, 0.13),), (0.17, 0.045), jaw=True, hole=True),
            Part("disc", ((0.0, 0.0),), (0.13, 0.13), tone=0.5),
        ),
        (28, 50),
    ),
    Tool(
        "scissors",
        (
            Part("stroke", ((0.0, 0.0), (0.45, 0.06), (1.0, 0.0)), (0.085, 0.015), jaw=True, tone=0.9),
            Part("disc", ((0.02, 0.0),), (0.15, 0.15), tone=0.45),
        ),
        (24, 45),
    ),
    Tool(
        "hook",
        (Part("stroke", ((0.0, 0.0), (0.82, 0.0), (0.93, 0.10), (0.93, 0.42)), (0.065, 0.05), tone=0.85),),
    ),
    Tool(
        "clip applier",
        (
            Part("stroke", ((0.0, 0.02), (0.30, 0.20), (0.95, 0.20), (1.0, 0.08)), (0.075, 0.065), jaw=True, tone=0.8),
            Part("box", ((0.08, 0.0),), (0.10, 0.15), tone=0.4),
        ),
        (3, 9),
    ),
    Tool(
        "irrigator",
        (
            Part("box", ((0.48, 0.0),), (0.50, 0.135), tone=0.8),
            Part("disc", ((0.85, 0.0),), (0.05, 0.05), hole=True),
            Part("disc", ((0.62, 0.0),), (0.05, 0.05), hole=True),
            Part("disc", ((0.39, 0.0),), (0.05, 0.05), hole=True),
        ),
    ),
    Tool(
        "bipolar forceps",
        (
            Part("stroke", ((0.0, 0.0), (0.25, 0.11), (0.7, 0.14), (1.0, 0.10)), (0.05, 0.03), jaw=True, tone=0.85),
            Part("disc", ((0.98, 0.10),), (0.085, 0.06), jaw=True, tone=0.95),
            Part("box", ((0.06, 0.0),), (0.14, 0.12), tone=0.25),
        ),
        (5, 17),
    ),
    Tool(
        "stapler",
        (
            Part("box", ((0.55, 0.085),), (0.50, 0.075), jaw=True, tone=0.8),
            Part("stroke", ((0.2, 0.02), (0.95, 0.02)), (0.02, 0.02), jaw=True, tone=0.15),
            Part("box", ((-0.02, 0.0),), (0.12, 0.20), tone=0.4),
        ),
        (6, 20),
    ),
    Tool(
        "needle driver",
        (
            Part("stroke", ((0.0, 0.05), (0.55, 0.05)), (0.12, 0.055), jaw=True, tone=0.65),
            Part(
                "stroke",
                ((0.52, -0.42), (0.72, -0.24), (0.78, 0.0), (0.70, 0.24), (0.5, 0.40)),
                (0.04, 0.025),
                tone=0.95,
            ),
        ),
        (2, 8),
    ),
)
