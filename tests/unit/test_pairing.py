"""What a preference pair may be, by each rule, and how many a class has."""

from __future__ import annotations

from saadi.config import PreferenceConfig
from saadi.pairing import hold_out, make_pairs
from saadi.records import Condition, Pair, Sample, Score


def sample(name: str, label: str = "hook") -> Sample:
    return Sample(name, Condition.of(label), 1, 0, f"{name}.png")


def judged(values: dict[str, float], right: str = "") -> tuple[list[Sample], list[Score]]:
    """Samples named by one letter each; those in `right` are right."""
    scores = [Score(name, "critic-loss", value, name in right, {}) for name, value in values.items()]
    return [sample(name) for name in values], scores


def config(pairs: int = 9, margin: float = 0.0) -> PreferenceConfig:
    return PreferenceConfig(pairs=pairs, margin=margin)


def test_best_right_one_beats_the_worst_the_next_the_next_worst() -> None:
    samples, scores = judged({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, right="abc")
    pairs = make_pairs(samples, scores, config())
    assert pairs == [Pair("a", "e", "hook", 4), Pair("b", "d", "hook", 2)]


def test_the_better_of_two_wrong_ones_is_no_winner() -> None:
    samples, scores = judged({"a": 5, "b": 4, "c": 1}, right="b")
    assert make_pairs(samples, scores, config()) == [Pair("b", "c", "hook", 3)]
    assert make_pairs(*judged({"a": 5, "b": 1}), config()) == []


def test_a_right_image_may_lose_to_a_clearly_better_one() -> None:
    assert make_pairs(*judged({"a": 5, "b": 1}, right="ab"), config()) == [Pair("a", "b", "hook", 4)]


def test_margin_and_number_are_respected() -> None:
    values = {"a": 5.0, "b": 4.0, "c": 2.5, "d": 1.0}
    assert len(make_pairs(*judged(values, right="ab"), config(margin=2))) == 1
    assert len(make_pairs(*judged(values, right="ab"), config(margin=1.5))) == 2
    assert len(make_pairs(*judged(values, right="ab"), config(pairs=1))) == 1
    assert make_pairs(*judged({"a": 1.0, "b": 1.0}, right="ab"), config(margin=0)) == []


def test_pairs_are_made_within_a_class() -> None:
    samples = [sample("a"), sample("b", "scissors"), sample("c"), sample("d", "scissors")]
    scores = [Score(name, "critic-loss", value, True, {}) for name, value in zip("abcd", (9, 8, 2, 1), strict=True)]
    pairs = make_pairs(samples, scores, config())
    assert pairs == [Pair("a", "c", "hook", 7), Pair("b", "d", "scissors", 7)]


def test_hold_out_keeps_at_least_one_on_each_side() -> None:
    assert hold_out([], 0.5, 0) == ([], [])
    assert hold_out([1], 0.5, 0) == ([1], [])
    assert hold_out([1, 2], 0.0, 0) == ([1, 2], [])
    for share in (0.01, 0.5, 1.0):
        kept, held = hold_out([1, 2], share, "key")
        assert (len(kept), len(held)) == (1, 1)
    kept, held = hold_out(list(range(20)), 0.2, "key")
    assert len(held) == 4
    assert (kept, held) == hold_out(list(range(20)), 0.2, "key")
    assert held != hold_out(list(range(20)), 0.2, "another key")[1]
