"""What a preference pair may be, by each rule, and how many a class has."""

from __future__ import annotations

import pytest

from saadi.config import PreferenceConfig
from saadi.errors import BadInput
from saadi.pairing import PAIRINGS, budgets, hold_out, make_pairs
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


def test_best_right_ones_beat_others_drawn_at_random_the_same_each_time() -> None:
    samples, scores = judged({name: float(9 - i) for i, name in enumerate("abcdefghi")}, right="abcd")
    random = PreferenceConfig(pairing="best-random", pairs=9)
    made = [make_pairs(samples, scores, random, seed=seed) for seed in range(20)]
    assert all(pairs[0].winner == "a" or pairs[0].margin >= 1 for pairs in made)
    losers_of_best = {pair.loser for pairs in made for pair in pairs if pair.winner == "a"}
    assert len(losers_of_best) > 3
    assert made[3] == make_pairs(samples, scores, random, seed=3)


def test_reversed_pairs_are_the_same_turned_round() -> None:
    samples, scores = judged({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, right="abc")
    turned = make_pairs(samples, scores, PreferenceConfig(pairing="reversed", margin=0))
    assert turned == [Pair("e", "a", "hook", -4), Pair("d", "b", "hook", -2)]


def test_random_pairs_favour_neither_right_nor_good() -> None:
    samples, scores = judged({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, right="abc")
    config = PreferenceConfig(pairing="random", margin=0)
    made = [make_pairs(samples, scores, config, seed=seed) for seed in range(200)]
    assert {len(pairs) for pairs in made} == {2}
    wins = [pair.winner for pairs in made for pair in pairs]
    assert all(50 < wins.count(name) < 110 for name in "abcde")  # 80 each


def test_a_rare_class_may_have_more_pairs_up_to_a_cap() -> None:
    counts = {"hook": 100, "scissors": 25, "clip": 1}
    assert budgets(counts, PreferenceConfig(pairs=10)) == {"hook": 10, "scissors": 10, "clip": 10}
    assert budgets(counts, PreferenceConfig(pairs=10, rare_power=0.5)) == {"hook": 10, "scissors": 20, "clip": 30}
    assert budgets(counts, PreferenceConfig(pairs=10, rare_power=0.5, rare_cap=1.5))["clip"] == 15
    samples, scores = judged({"a": 5, "b": 4, "c": 2, "d": 1}, right="ab")
    assert len(make_pairs(samples, scores, config(), {"hook": 1})) == 1


def test_an_unknown_rule_is_bad_input_that_names_the_known_ones() -> None:
    assert sorted(PAIRINGS) == ["best-random", "best-worst", "random", "reversed"]
    with pytest.raises(BadInput, match=r"^preferences.pairing: unknown 'luck'; one of best-random, best-worst"):
        make_pairs([], [], PreferenceConfig(pairing="luck"))
