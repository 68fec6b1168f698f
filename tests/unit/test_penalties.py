"""Penalties against their closed forms, and how near samples lie to what."""

from __future__ import annotations

import numpy as np
import pytest

from saadi.critics.surroundings import TrainingViews, twin_distance
from saadi.data import Dataset
from saadi.penalties import PENALTIES, Surroundings, combined, penalised, ranks
from saadi.records import Condition, Frame, LabelSpace, Score


def around(**given: list[float]) -> Surroundings:
    """Of three samples; what is not given penalises nothing."""
    fine = {"training": 1.0, "own": 1.0, "others": 1.0, "least": 0.5, "most": 1.5}
    return Surroundings(**{name: np.array(given.get(name, [value] * 3)) for name, value in fine.items()})


def test_a_penalty_is_what_real_images_would_not_show() -> None:
    near = around(training=[0.1, 0.5, 0.9], own=[0.1, 1.5, 1.8], others=[2.0, 0.2, 0.0])
    np.testing.assert_allclose(PENALTIES["memorisation"](near), [0.4, 0, 0])
    np.testing.assert_allclose(PENALTIES["similarity"](near), [0, 1.8, 2])
    np.testing.assert_allclose(PENALTIES["out-of-support"](near), [0, 0, 0.3])
    for one in ("memorisation", "out-of-support"):
        endless = around(least=[-np.inf] * 3, most=[np.inf] * 3)
        assert PENALTIES[one](endless).tolist() == [0, 0, 0]  # a class that has no yardstick


def test_ranks_run_from_minus_one_to_one_and_ties_share() -> None:
    assert ranks(np.array([3.0, -900.0, 5.0])).tolist() == [0, -1, 1]
    np.testing.assert_allclose(ranks(np.array([0.0, 0.0, 0.0, 7.0])), [-1 / 3, -1 / 3, -1 / 3, 1])
    assert ranks(np.array([4.0])).tolist() == [0]
    assert ranks(np.array([4.0, 1.0])).tolist() == [1, -1]
    assert ranks(np.zeros(4)).tolist() == [0] * 4


def test_values_are_combined_within_a_condition() -> None:
    own, part = np.array([5.0, 1.0, 3.0, 900.0]), {"one": np.array([9.0, 0.0, 0.0, 4.0])}
    out = combined(own, part, {"one": 0.5}, ["p", "p", "p", "q"])
    np.testing.assert_allclose(out, [1 - 0.5, -1 + 0.25, 0.25, 0])
    assert combined(own, part, {}, ["p"] * 4) is own


def test_a_copy_loses_to_a_less_sure_image_and_its_parts_say_why() -> None:
    scores = [
        Score(name, "critic-loss", value, True, {"rival": 1.0}) for name, value in zip("abc", (3, 2, 1), strict=True)
    ]
    found = penalised(scores, around(training=[0.1, 1, 1]), {"memorisation": 2.0}, ["p"] * 3)
    assert [one.value for one in found] == pytest.approx([1 - 2, 0 + 1, -1 + 1])
    assert found[0].parts == pytest.approx({"rival": 1, "criterion": 3, "memorisation": 0.4})
    assert [one.right for one in found] == [True] * 3


def circle(*degrees: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Unit-length features at these angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def chord(degrees: float) -> float:
    return float(2 * np.sin(np.radians(degrees) / 2))


def test_twins_are_looked_for_within_the_condition() -> None:
    found = twin_distance(circle(0, 10, 40, 41, 90), ["p", "p", "p", "q", "r"])
    np.testing.assert_allclose(found, [chord(10), chord(10), chord(30), 2, 2])


def test_surroundings_are_measured_by_real_images_of_other_groups() -> None:
    """Hooks of anna at 0 and 2 degrees, of ben at 12; clips of anna at 90, of ben at 130. Mirror images lie far off."""
    shown = [("hook", "anna"), ("hook", "anna"), ("hook", "ben"), ("clip", "anna"), ("clip", "ben")]
    frames = tuple(Frame(f"{i}", (label,), group, "train") for i, (label, group) in enumerate(shown))
    train = Dataset(LabelSpace(("hook", "clip")), frames, np.zeros((5, 8, 8, 3), np.uint8))
    views = TrainingViews(circle(0, 2, 12, 90, 130), circle(-100, -100, -100, -100, -100), train)
    least, most = views.yardsticks
    hooks, clips = [chord(12), chord(10), chord(10)], [chord(40), chord(40)]
    np.testing.assert_allclose(most, [np.quantile(hooks, 0.95), np.quantile(clips, 0.95)])
    # To any image of another group: anna's clip is 78 degrees from ben's hook, but 40 from his clip.
    np.testing.assert_allclose(least, [np.quantile(hooks, 0.05), np.quantile(clips, 0.05)])
    conditions = [Condition.of("hook"), Condition.of("clip"), Condition.of("hook")]
    found = views.around(circle(1, 12, -100), conditions)
    np.testing.assert_allclose(found.training, [chord(1), 0, 0], atol=1e-7)
    np.testing.assert_allclose(found.own, [chord(1), chord(78), 0], atol=1e-7)
    np.testing.assert_allclose(found.others, [chord(101), 2, chord(101)])
    np.testing.assert_allclose(found.least, least[[0, 1, 0]])
    np.testing.assert_allclose(found.most, most[[0, 1, 0]])


def test_a_class_of_one_group_has_no_yardstick_of_support() -> None:
    frames = (Frame("0", ("hook",), "anna", "train"), Frame("1", ("clip",), "ben", "train"))
    train = Dataset(LabelSpace(("hook", "clip")), frames, np.zeros((2, 8, 8, 3), np.uint8))
    least, most = TrainingViews(circle(0, 60), circle(0, 60), train).yardsticks
    assert most.tolist() == [np.inf, np.inf]
    np.testing.assert_allclose(least, [1, 1])
