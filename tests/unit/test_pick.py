"""The pick of what was drawn, by the critic or, of what it is sure of, by a student."""

from __future__ import annotations

from saadi.evaluation.sets import select
from saadi.records import Condition, Sample


def sample(name: str, label: str, condition: str | None = None) -> Sample:
    return Sample(name, Condition(condition or label, (label,)), 1, 0, f"{name}.png")


def test_of_one_condition_the_best_right_ones_are_picked() -> None:
    samples = [sample(name, "hook") for name in "abcd"] + [sample("e", "clip")]
    chosen = select(samples, [0.1, 0.9, 0.5, 0.2, -3.0], [True, False, True, True, False], 2)
    assert [one.id for one in chosen] == ["c", "d", "e"]


def test_of_several_conditions_each_gives_its_best_however_hard_it_is() -> None:
    """Layout `hard` scores less than `easy` in every draw; it must not be pushed out by easy's second best, nor by the
    best of a layout that came later."""
    samples = [sample(f"hard-{k}", "hook", "hard") for k in range(2)]
    samples += [sample(f"easy-{k}", "hook", "easy") for k in range(2)]
    samples += [sample(f"late-{k}", "hook", "late") for k in range(2)]
    values, right = [0.1, 0.2, 0.9, 0.8, 0.95, 0.99], [False, False, True, True, True, True]
    assert [one.id for one in select(samples, values, right, 2)] == ["hard-1", "easy-0"]
    assert [one.id for one in select(samples, values, right, 4)] == ["hard-1", "easy-0", "late-1", "hard-0"]


def test_what_is_asked_for_stays_as_frequent_as_it_was() -> None:
    """Of presence: a set of classes that was drawn for once must not count as much as one that was drawn nine times."""
    samples = [sample(f"often-{k}", "hook", "clip+hook") for k in range(9)]
    samples += [sample(f"seldom-{k}", "hook", "hook") for k in range(3)]
    samples += [sample(f"other-{k}", "clip", "clip+hook") for k in range(4)]
    values, right = [*(k / 10 for k in range(9)), 2.0, 3.0, 1.0, *(5.0, 6.0, 7.0, 8.0)], [True] * 16
    chosen = [one.id for one in select(samples, values, right, 4)]
    assert chosen[:4] == ["often-8", "seldom-1", "often-7", "often-6"]
    assert sorted(chosen[4:]) == [f"other-{k}" for k in range(4)]


def test_a_student_picks_of_the_surest_half_what_it_expects_least() -> None:
    samples = [sample(name, "hook") for name in "abcdef"]
    values, right = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True] * 6
    surprise = [0.1, 0.3, 0.2, 9.0, 9.0, 9.0]
    assert [one.id for one in select(samples, values, right, 2, surprise)] == ["b", "c"]
    assert [one.id for one in select(samples, values, right, 2)] == ["a", "b"]


def test_a_student_is_not_taught_what_the_critic_calls_wrong() -> None:
    samples = [sample(name, "hook") for name in "abcd"]
    chosen = select(samples, [0.9, 0.8, 0.7, 0.6], [True, False, False, False], 1, [0.1, 5.0, 5.0, 5.0])
    assert [one.id for one in chosen] == ["a"]


def test_where_half_of_a_condition_is_used_there_is_nothing_to_pick_for_a_student() -> None:
    samples = [sample(name, "hook") for name in "abcd"]
    values, right, surprise = [0.9, 0.8, 0.7, 0.6], [True] * 4, [0.0, 1.0, 2.0, 3.0]
    assert {one.id for one in select(samples, values, right, 2, surprise)} == {"a", "b"}
