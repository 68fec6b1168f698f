"""The two worlds: their renderer, and that their classes do not meet."""

from __future__ import annotations

import math

import numpy as np
import pytest

from saadi.foundation.pool import pretext_tools
from saadi.worlds.phantom import INSTRUMENTS
from saadi.worlds.pretext import TOO_ALIKE, WORDS, describe, invent, pretext_prompt, world_hash
from saadi.worlds.scene import TISSUES, Difficulty, draw_look, render
from saadi.worlds.tools import Part, Tool, another_make, overlap, part_distance, silhouette


def _axes(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    return u, v


@pytest.mark.parametrize(
    ("part", "inside", "outside"),
    [
        (Part("disc", ((0.0, 0.0),), (0.5, 0.5)), (0.0, 0.4), (0.0, 0.6)),
        (Part("ring", ((0.0, 0.0),), (0.5, 0.1)), (0.5, 0.0), (0.0, 0.0)),
        (Part("box", ((0.0, 0.0),), (0.5, 0.2)), (0.45, 0.15), (0.0, 0.25)),
        (Part("stroke", ((-0.5, 0.0), (0.5, 0.0)), (0.1, 0.1)), (0.4, 0.05), (0.65, 0.0)),
    ],
)
def test_signed_distance_is_negative_inside(
    part: Part, inside: tuple[float, float], outside: tuple[float, float]
) -> None:
    for point, sign in ((inside, -1), (outside, 1)):
        u, v = (np.full((1, 1), value, np.float32) for value in point)
        assert np.sign(part_distance(u, v, part)[0, 0]) == sign


def test_distance_of_a_circle_is_exact() -> None:
    u, v = _axes()
    distance = part_distance(u, v, Part("disc", ((0.1, -0.2),), (0.3, 0.3)))
    np.testing.assert_allclose(distance, np.hypot(u - 0.1, v + 0.2) - 0.3, atol=1e-6)


def test_a_jaw_is_drawn_twice_and_opens() -> None:
    tool = Tool("x", (Part("stroke", ((0.0, 0.0), (1.0, 0.0)), (0.05, 0.05), jaw=True),), (0, 90))
    closed, opened = silhouette(tool, 0.0), silhouette(tool, math.pi / 2)
    assert opened.sum() > 1.5 * closed.sum()
    np.testing.assert_array_equal(opened, opened[::-1])


def test_another_make_has_the_same_parts_in_other_proportions() -> None:
    tool = INSTRUMENTS[4]
    assert another_make(np.random.default_rng(0), tool, 0.0) == tool
    makes = [another_make(np.random.default_rng(seed), tool, 0.2) for seed in range(400)]
    assert {(make.name, *(part.kind for part in make.parts)) for make in makes} == {
        (tool.name, *(part.kind for part in tool.parts))
    }
    sizes = np.log([[part.size for part in make.parts] for make in makes])
    np.testing.assert_allclose(sizes.mean(0), np.log([part.size for part in tool.parts]), atol=0.04)
    np.testing.assert_allclose(sizes.std(0), 0.2, atol=0.03)
    points = np.array([[part.points[0] for part in make.parts] for make in makes])
    np.testing.assert_allclose(points.std(0), 0.05, atol=0.01)


def test_without_variety_a_scene_is_what_it_was_before_there_was_any() -> None:
    """Golden values: the foundation was pretrained on such scenes."""
    look = draw_look(np.random.default_rng(1))
    scene = render(INSTRUMENTS[2], look, np.random.default_rng(3))
    assert scene.image.mean() == pytest.approx(148.254, abs=0.01)
    assert [np.count_nonzero(scene.tool == part) for part in (1, 2)] == pytest.approx([199, 157], abs=2)
    other = render(INSTRUMENTS[2], look, np.random.default_rng(3), 64, Difficulty(variety=0.3))
    assert not np.array_equal(scene.tool == 2, other.tool == 2)


def test_a_scene_is_decided_by_its_generator() -> None:
    def scene(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return render(INSTRUMENTS[0], draw_look(rng), rng).image

    np.testing.assert_array_equal(scene(3), scene(3))
    assert not np.array_equal(scene(3), scene(4))


@pytest.mark.parametrize("size", [32, 64, 128])
def test_any_size_shows_the_same_scene(size: int) -> None:
    def small(side: int) -> np.ndarray:
        rng = np.random.default_rng(5)
        look = draw_look(rng)
        image = render(INSTRUMENTS[2], look, rng, side, Difficulty(noise=0.0, smoke=0.0)).image
        coarse: np.ndarray = image.reshape(32, side // 32, 32, side // 32, 3).mean((1, 3))
        return coarse

    assert np.corrcoef(small(size)[..., 0].ravel(), small(64)[..., 0].ravel())[0, 1] > 0.5


def test_masks_name_tool_and_tissues() -> None:
    rng = np.random.default_rng(0)
    scenes = [
        render(tool, draw_look(rng), rng, 64, Difficulty(occlusion=0.0)) for tool in INSTRUMENTS for _ in range(4)
    ]
    assert len(TISSUES) >= 3
    assert {int(i) for scene in scenes for i in np.unique(scene.tissue)} == set(range(len(TISSUES)))
    for scene in scenes:
        assert scene.image.shape == (64, 64, 3)
        assert scene.image.dtype == np.uint8
        assert set(np.unique(scene.tool)) <= {0, 1, 2}
        assert (scene.tool == 2).sum() > 20, "the tip is in view"


def test_occlusion_hides_part_of_the_tool() -> None:
    def visible(occlusion: float) -> int:
        total = 0
        for seed in range(40):
            rng = np.random.default_rng(seed)
            hard = Difficulty(occlusion=occlusion, fold=(0.4, 0.8))
            total += int((render(INSTRUMENTS[1], draw_look(rng), rng, 64, hard).tool == 2).sum())
        return total

    assert visible(1.0) < 0.95 * visible(0.0)


def test_at_least_seven_instruments_that_differ() -> None:
    assert len({tool.name for tool in INSTRUMENTS}) >= 7
    for i, a in enumerate(INSTRUMENTS):
        assert overlap(a, a) == 1.0
        for b in INSTRUMENTS[:i]:
            assert overlap(a, b) < 0.9, (a.name, b.name)


def test_the_two_worlds_classes_do_not_meet() -> None:
    tools = pretext_tools()
    words = {word for instrument in INSTRUMENTS for word in instrument.name.split()}
    assert len({tool.name for tool in tools}) == len(tools)
    assert not words & {tool.name for tool in tools}
    heard = {word for tool in tools for word in pretext_prompt(tool).split()}
    assert not words & heard
    assert set(WORDS) <= heard
    worst = max(overlap(tool, instrument) for tool in tools for instrument in INSTRUMENTS)
    assert worst <= TOO_ALIKE


def test_a_prompt_says_what_is_seen() -> None:
    """Jaws little opened, a thick main stroke that tapers, bows and is pale, two dark rings on its jaws, a hole."""
    stroke = Part("stroke", ((0.0, 0.0), (0.5, 0.3), (0.9, 0.1)), (0.12, 0.05), jaw=True, tone=0.7)
    ring = Part("ring", ((0.9, 0.1),), (0.2, 0.05), jaw=True, tone=0.3)
    hole = Part("disc", ((0.5, 0.0),), (0.05, 0.05), hole=True)
    words = ["narrow", "thick", "tapered", "bowed", "long", "pale", "double", "dark", "endring", "pierced"]
    assert describe(Tool("bado", (stroke, ring, hole), (0.0, 20.0))) == words
    straight = Part("stroke", ((0.0, 0.0), (0.7, 0.0)), (0.05, 0.05), tone=0.15)
    assert describe(Tool("bado", (straight,))) == ["rigid", "thin", "even", "straight", "short", "black"]


def test_the_pretext_world_is_the_same_everywhere() -> None:
    assert world_hash(invent(5)) == world_hash(invent(5)) != world_hash(invent(5, seed=1))
    assert invent(3) == invent(5)[:3]
