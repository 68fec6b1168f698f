"""What a preference pair may be, by each rule, and how many a class has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saadi.config import PreferenceConfig
from saadi.errors import BadInput
from saadi.pairing import PAIRINGS, budgets, bundles, hold_out, joined, make_pairs
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
    made = [Pair(f"w{row}", f"l{row}", "hook", 1.0) for row in range(20)]
    assert hold_out([], 0.5, 0) == ([], [])
    assert hold_out(made[:1], 0.5, 0) == (made[:1], [])
    assert hold_out(made[:2], 0.0, 0) == (made[:2], [])
    for share in (0.01, 0.5, 1.0):
        kept, held = hold_out(made[:2], share, "key")
        assert (len(kept), len(held)) == (1, 1)
    kept, held = hold_out(made, 0.2, "key")
    assert len(held) == 4
    assert (kept, held) == hold_out(made, 0.2, "key")
    assert held != hold_out(made, 0.2, "another key")[1]


PAIRS = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=2, unique=True).map(
    lambda both: Pair(both[0], both[1], "hook", 1.0)
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(PAIRS, max_size=8), st.floats(0.05, 1), st.integers(0, 99))
def test_no_image_is_both_learnt_from_and_held_out(pairs: list[Pair], share: float, seed: int) -> None:
    """Imported pairs may share images; where all hang together, pairs are dealt one by one."""
    kept, held = hold_out(pairs, share, seed)
    assert sorted(map(str, kept + held)) == sorted(map(str, pairs))
    assert bool(held) == (len(pairs) > 1)
    assert bool(kept) == bool(pairs)
    if len(bundles(pairs)) > 1:
        assert not {one for pair in kept for one in (pair.winner, pair.loser)} & {
            one for pair in held for one in (pair.winner, pair.loser)
        }


def test_what_is_painted_at_one_place_is_held_out_together() -> None:
    pairs = [Pair(f"w{row}", f"l{row}", "hook", 1.0) for row in range(12)]
    places = {f"{end}{row}": f"place-{row // 3}" for row in range(12) for end in "wl"}
    assert bundles(pairs, places) == [pairs[start : start + 3] for start in range(0, 12, 3)]
    for key in range(9):
        kept, held = hold_out(pairs, 0.2, key, places=places)
        assert len(held) == 3
        assert {places[pair.winner] for pair in kept}.isdisjoint(places[pair.winner] for pair in held)
    assert len(hold_out(pairs, 0.2, 0, places=dict.fromkeys(places, "one"))[1]) == 2  # else none could be watched


def test_the_critics_own_pairs_give_way_to_imported_ones_of_the_same_images() -> None:
    own = [Pair("a", "b", "hook", 2.0), Pair("c", "d", "hook", 1.0)]
    imported = [Pair("b", "a", "hook", 0.0), Pair("b", "e", "hook", 0.0)]
    assert joined(own, imported) == [own[1], *imported]
    assert joined(own, ()) == own


def test_best_right_ones_beat_others_drawn_at_random_the_same_each_time() -> None:
    samples, scores = judged({name: float(9 - i) for i, name in enumerate("abcdefghi")}, right="abcd")
    random = PreferenceConfig(pairing="best-random", pairs=9)
    made = [make_pairs(samples, scores, random, seed=seed) for seed in range(20)]
    for pairs in made:
        assert {pair.winner for pair in pairs} <= {*"abcd"}
        assert len({one for pair in pairs for one in (pair.winner, pair.loser)}) == 2 * len(pairs)
        assert all(pair.margin == ord(pair.loser) - ord(pair.winner) for pair in pairs)
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
