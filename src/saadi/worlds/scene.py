"""The light, the tissue and the camera both worlds share: one laparoscopic scene around one tool.

A scene is composed back to front: tissues (softly segmented noise, lit as a height field), vessels and blood, the
tool's shadow, the tool, a fold of tissue that may hide part of it, smoke, lens blur, vignette, sensor noise. All
geometry is in image fractions, so any size renders the same scene. Masks are exact: they come from the same fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from saadi.worlds.tools import Field, Pose, Tool, another_make, place

TISSUES = ("abdominal wall", "liver", "fat", "gallbladder")
_ALBEDO = np.array([[0.78, 0.42, 0.38], [0.48, 0.17, 0.14], [0.86, 0.68, 0.34], [0.58, 0.52, 0.36]], np.float32)


@dataclass(frozen=True)
class Difficulty:
    """How hard a world is.

    `occlusion`, `smoke`: probabilities. `blur`: the largest Gaussian sigma, `length`: the tip's least and most,
    `stray`: how far the tip's middle lies from the image's at most, all in image fractions. `fold`: where along the tip
    a fold of tissue begins, in tip lengths. `noise`: sigma of [0, 1]. `swing`: the shaft's largest angle with the
    horizontal, `wrist`: the tip's with the shaft, in degrees. `variety`: how far the makes of an instrument differ, see
    `another_make`; no two images show the same make.
    """

    occlusion: float = 0.5
    smoke: float = 0.5
    blur: float = 0.022
    noise: float = 0.012
    length: tuple[float, float] = (0.50, 0.60)
    stray: float = 0.06
    fold: tuple[float, float] = (0.72, 1.15)
    swing: float = 25.0
    wrist: float = 8.0
    variety: float = 0.0


@dataclass(frozen=True)
class Look:
    """What makes one patient's images alike: colours, light, texture, which tissues, how smoky and how sharp."""

    albedo: NDArray[np.float32]
    light: NDArray[np.float32]
    presence: NDArray[np.float32]
    relief: float
    grain: float
    vignette: float
    gloss: float
    smoke: float
    blur: float
    vessels: float
    steel: float


@dataclass(frozen=True)
class Scene:
    """`image` [S, S, 3] uint8 RGB; `tissue` [S, S] uint8, index into `TISSUES` (under the tool too);
    `tool` [S, S] uint8: 0 none, 1 shaft, 2 tip, where visible."""

    image: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    tool: NDArray[np.uint8]


def draw_look(rng: np.random.Generator) -> Look:
    """A patient, drawn at random."""
    tint = 1.0 + np.array([0.05, 0.05, 0.07]) * rng.standard_normal((1, 3)) + 0.06 * rng.standard_normal((4, 3))
    return Look(
        albedo=np.clip(_ALBEDO * tint, 0.05, 1.0).astype(np.float32),
        light=np.clip(1.0 + 0.04 * rng.standard_normal(3), 0.9, 1.1).astype(np.float32),
        presence=(0.9 * rng.standard_normal(4)).astype(np.float32),
        relief=rng.uniform(0.5, 1.4),
        grain=rng.uniform(0.02, 0.10),
        vignette=rng.uniform(0.2, 1.1),
        gloss=rng.uniform(0.1, 0.8),
        smoke=rng.beta(1.0, 2.0),
        blur=rng.beta(1.2, 2.0),
        vessels=rng.uniform(0.0, 0.5),
        steel=rng.uniform(0.7, 1.1),
    )


@lru_cache(maxsize=64)
def _spline(size: int, cells: int) -> Field:
    """[size, cells + 3] weights that spread a coarse grid over `size` pixels by cubic B-splines."""
    t = (np.arange(size) + 0.5) / size * cells
    k = np.floor(t).astype(int)
    f = t - k
    weights = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], 1) / 6
    out = np.zeros((size, cells + 3), np.float32)
    out[np.arange(size)[:, None], k[:, None] + np.arange(4)] = weights
    return out


@lru_cache(maxsize=64)
def _gaussian(size: int, centi_pixels: int) -> Field:
    """[size, size] matrix of a Gaussian blur with reflected edges; sigma in hundredths of a pixel."""
    sigma = centi_pixels / 100
    reach = np.arange(size)
    kernel = np.exp(-0.5 * ((reach[:, None] - np.arange(-size, 2 * size)[None]) / sigma) ** 2)
    folded = kernel[:, size : 2 * size] + kernel[:, :size][:, ::-1] + kernel[:, 2 * size :][:, ::-1]
    matrix: Field = (folded / folded.sum(1, keepdims=True)).astype(np.float32)
    return matrix


def _noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth noise [size, size], about unit variance."""
    weights = _spline(size, cells)
    grid = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32) * np.float32(1.9)
    noise: Field = weights @ grid @ weights.T
    return noise


def _blur(field: Field, sigma: float) -> Field:
    """Gaussian blur of [S, S] or [S, S, C]; sigma in pixels."""
    size = field.shape[0]
    matrix = _gaussian(size, max(10, round(sigma * 20) * 5))
    if field.ndim == 2:
        return matrix @ field @ matrix.T
    return np.ascontiguousarray(np.moveaxis(matrix @ np.moveaxis(field, 2, 0) @ matrix.T, 0, 2))


def _smoothstep(low: float, high: float, value: Field) -> Field:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    step: Field = t * t * (3 - 2 * t)
    return step


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Field, Field]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = np.meshgrid(axis, axis)
    return x, y


def _shade(height: Field, look: Look, x: Field, y: Field, lamp: tuple[float, float]) -> tuple[Field, Field]:
    """Diffuse and specular light [S, S] on a height field under a lamp beside the camera."""
    size = height.shape[0]
    gy, gx = np.gradient(height)
    gx, gy = gx * np.float32(size / 4), gy * np.float32(size / 4)
    inverse = 1.0 / np.sqrt(gx * gx + gy * gy + 1.0)
    lx, ly = lamp[0] - x, lamp[1] - y
    reach = 1.0 / np.sqrt(lx * lx + ly * ly + 0.64)
    facing = (-gx * lx - gy * ly + 0.8) * inverse * reach
    falloff = np.float32(1.0) / (1.0 + np.float32(look.vignette) * 2.2 * (lx * lx + ly * ly))
    return np.clip(facing, 0.0, 1.0) * falloff, np.clip(facing, 0.0, 1.0) ** 40 * falloff


def _tissue(
    rng: np.random.Generator, look: Look, size: int, lamp: tuple[float, float]
) -> tuple[Field, NDArray[np.uint8]]:
    x, y = _grid(size)
    fields = np.stack([_noise(rng, size, 2) + bias for bias in look.presence])
    tissue = fields.argmax(0).astype(np.uint8)
    weights = np.exp(9.0 * (fields - fields.max(0)))
    weights /= weights.sum(0)
    fine = _noise(rng, size, 22)
    lobes = np.abs(_noise(rng, size, 9))
    height = np.float32(0.10 * look.relief) * (_noise(rng, size, 4) + 0.45 * _noise(rng, size, 9) * (1 - weights[2]))
    height += np.float32(0.10) * weights[2] * lobes + np.float32(0.012) * fine + np.float32(0.10) * weights.max(0)
    albedo = np.tensordot(weights, look.albedo, axes=(0, 0))
    albedo *= (1.0 + np.float32(look.grain) * fine + np.float32(0.08) * _noise(rng, size, 6))[..., None]
    vessel = _smoothstep(0.16, 0.04, np.abs(_noise(rng, size, 5))) * np.clip(weights[0] + weights[3], 0, 1)
    blood = _smoothstep(1.3, 1.8, _noise(rng, size, 5)) * np.float32(rng.random() < 0.3)
    stain = np.clip(np.float32(look.vessels) * vessel + np.float32(0.75) * blood, 0, 1)[..., None]
    albedo = albedo * (1 - stain) + stain * np.array([0.42, 0.05, 0.06], np.float32)
    diffuse, specular = _shade(height, look, x, y, lamp)
    colour = albedo * (0.30 + 1.05 * diffuse)[..., None] + (np.float32(look.gloss) * specular)[..., None]
    return colour.astype(np.float32), tissue


def _metal(distance: Field, tone: Field, look: Look, width: float, lamp: tuple[float, float]) -> Field:
    """Brightness [S, S] of a bevelled solid: bright where its rim faces the lamp, dark where it turns away."""
    gy, gx = np.gradient(distance)
    size = distance.shape[0]
    rim = 1.0 - np.clip(-distance / np.float32(width), 0.0, 1.0)
    angle = math.atan2(lamp[1] - 0.5, lamp[0] - 0.5)
    lit = (gx * np.float32(math.cos(angle)) + gy * np.float32(math.sin(angle))) * np.float32(size) * rim
    bright: Field = np.clip(tone * np.float32(look.steel) * (0.72 + 0.42 * lit - 0.25 * rim), 0.02, 1.0)
    return bright


def draw_pose(rng: np.random.Generator, tool: Tool, difficulty: Difficulty) -> Pose:
    """A pose as a trocar allows it: the shaft comes from the left or, mirrored, from the right; the tip is in view."""
    left = rng.random() < 0.5
    swing, wrist = np.radians(rng.uniform(-1, 1, 2) * (difficulty.swing, difficulty.wrist))
    heading = float(swing) + (0.0 if left else math.pi)
    length = rng.uniform(*difficulty.length)
    cx, cy = 0.5 + difficulty.stray * rng.uniform(-1, 1, 2)
    return Pose(
        x=cx - 0.5 * length * math.cos(heading),
        y=cy - 0.5 * length * math.sin(heading),
        heading=heading,
        length=length,
        opening=math.radians(rng.uniform(*tool.opening)),
        wrist=float(wrist),
        roll=rng.uniform(0.9, 1.0),
        mirror=1.0 if left else -1.0,
    )


def render(
    tool: Tool, look: Look, rng: np.random.Generator, size: int = 64, difficulty: Difficulty | None = None
) -> Scene:
    """One scene of `tool` in a patient with this `look`; `rng` decides all else."""
    hard = difficulty or Difficulty()
    x, y = _grid(size)
    lamp = (0.5 + 0.25 * rng.uniform(-1, 1), 0.5 + 0.25 * rng.uniform(-1, 1))
    pose = draw_pose(rng, tool, hard)
    if hard.variety:
        tool = another_make(rng, tool, hard.variety)
    colour, tissue = _tissue(rng, look, size, lamp)
    tip, shaft, tone = place(x, y, tool, pose)

    body = np.minimum(tip, shaft)
    pixel = np.float32(1.0 / size)
    shift = max(1, round(size * 0.03))
    cast = np.pad(body, shift, mode="edge")[:size, :size]
    colour *= (1.0 - 0.55 * _smoothstep(0.035, -0.02, cast))[..., None]

    tone = np.where(tip < shaft, tone, np.float32(rng.choice([0.14, 0.22, 0.62])))
    bright = _metal(body, tone, look, 0.4 * tool.shaft * pose.length + 0.012, lamp)
    glint = (
        rng.uniform(0.0, 0.6)
        * _smoothstep(0.03, 0.0, np.abs(body + 0.02))
        * _smoothstep(0.2, 1.4, _noise(rng, size, 6))
    )
    metal = (bright + glint)[..., None] * look.light * np.array([0.93, 0.97, 1.0], np.float32)
    alpha = np.clip(0.5 - body / pixel, 0.0, 1.0)[..., None]
    colour = colour * (1 - alpha) + metal * alpha
    part = np.where(body < 0, np.where(tip < shaft, 2, 1), 0).astype(np.uint8)

    if rng.random() < hard.occlusion:
        side = pose.heading + rng.uniform(-1.0, 1.0) + (0.0 if rng.random() < 0.6 else math.pi / 2)
        reach = pose.length * rng.uniform(*hard.fold)
        edge = (x - pose.x) * math.cos(side) + (y - pose.y) * math.sin(side) - reach + 0.035 * _noise(rng, size, 5)
        cover = _smoothstep(-0.5 / size, 0.5 / size, edge)
        skin = (
            look.albedo[rng.integers(4)]
            * (0.45 + 0.55 * _smoothstep(0.0, 0.12, edge) + 0.06 * _noise(rng, size, 8))[..., None]
        )
        falloff = 1.0 / (1.0 + look.vignette * 2.2 * ((x - lamp[0]) ** 2 + (y - lamp[1]) ** 2))
        colour = colour * (1 - cover[..., None]) + skin * falloff[..., None] * cover[..., None]
        part = np.where(cover > 0.5, 0, part).astype(np.uint8)

    if rng.random() < hard.smoke:
        density = look.smoke * rng.uniform(0.2, 0.8) * _smoothstep(-1.2, 1.6, _noise(rng, size, 3))
        colour = colour * (1 - density[..., None]) + (0.78 * density)[..., None]

    colour = _blur(colour * look.light, size * hard.blur * look.blur * rng.uniform(0.1, 1.0) + 0.25)
    colour += rng.standard_normal(colour.shape, dtype=np.float32) * np.float32(hard.noise * rng.uniform(0.2, 1.0))
    image = (np.clip(colour, 0.0, 1.0) ** np.float32(0.85) * 255 + 0.5).astype(np.uint8)
    return Scene(image=image, tissue=tissue, tool=part)
