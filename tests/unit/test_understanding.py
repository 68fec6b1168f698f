"""What a classifier learns from in the experiments: as many of each class, as right as said, nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from lessons import PURITIES, SHARES, Lesson, Pool, by_class, lessons_of, picks_of, stratified
from understanding import _trained, equivalent, table_of

from saadi.critics.downstream import Labelled


def pool_of(each: int = 40, classes: int = 3) -> Pool:
    """Images that hold their own number; the judge sees every second one as meant, the critic two of three."""
    asked = np.repeat(np.arange(classes), each)
    numbers = np.arange(len(asked))
    images = np.repeat(numbers.astype(np.uint8), 12).reshape(-1, 2, 2, 3)
    judged = np.where(numbers % 2, asked, (asked + 1) % classes)
    seen = np.where(numbers % 3, asked, (asked + 1) % classes)
    critic, judge = (np.log(np.where(np.eye(classes)[one] > 0, 0.8, 0.1)) for one in (seen, judged))
    critic[numbers, asked] -= numbers / 1000  # the later, the less sure
    student = np.zeros((len(asked), classes))
    student[numbers, asked] = numbers * 7 % len(asked)  # in an order that is not the critic's
    return Pool(images, asked.astype(np.int64), critic, judge, student)


@pytest.fixture
def lessons() -> dict[str, Lesson]:
    real = Labelled(np.zeros((20, 2, 2, 3), np.uint8), np.arange(20) % 3)
    own = np.eye(3)[np.zeros(20, int)]
    found = lessons_of(pool_of(), real, own, {"2 times as many": Labelled(real.images, real.targets)}, 8)
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def rows_of(lesson: Lesson) -> list[int]:
    assert lesson.extra is not None
    return [int(number) for number in lesson.extra.images[:, 0, 0, 0]]


@pytest.mark.parametrize("purity", PURITIES)
def test_a_purity_is_kept_in_each_class(lessons: dict[str, Lesson], purity: float) -> None:
    lesson, pool = lessons[f"{100 * purity:g} % right"], pool_of()
    rows = rows_of(lesson)
    assert len(rows) == len(set(rows)) == 24
    right = pool.judge.argmax(1) == pool.asked
    for k in range(3):
        own = [row for row in rows if pool.asked[row] == k]
        assert len(own) == 8
        assert right[own].mean() == purity


def test_the_critics_order_is_kept(lessons: dict[str, Lesson]) -> None:
    surest, least = rows_of(lessons["right, the critic is surest"]), rows_of(lessons["right, the critic is least sure"])
    pool = pool_of()
    right, sure = pool.judge.argmax(1) == pool.asked, pool.sure(pool.critic)
    assert right[surest].all()
    assert right[least].all()
    for k in range(3):
        more, less = ([sure[row] for row in rows if pool.asked[row] == k] for rows in (surest, least))
        assert min(more) > max(less)
    assert sure[rows_of(lessons["the critic is surest: rejection"])].min() > -0.4


def test_a_student_is_asked_about_what_the_critic_is_sure_of() -> None:
    pool = pool_of()
    real = Labelled(np.zeros((6, 2, 2, 3), np.uint8), np.arange(6))
    picks = {one.name: rows_of(one) for one in picks_of(pool, real, 8, "plain")}
    sure, known = pool.sure(pool.critic), pool.sure(pool.student)
    for k in range(3):
        own = np.flatnonzero(pool.asked == k)
        half = set(own[np.argsort(-sure[own])][:20])
        for name, sign in (("best", -1), ("least", 1)):
            asked = picks[f"plain, of the critic's surest half, those a student knows {name}"]
            rows = [row for row in asked if row in own]
            assert set(rows) <= half
            assert sorted(rows) == sorted(sorted(half, key=lambda row: sign * known[row])[:8])


def test_labels_are_those_of_whoever_is_asked(lessons: dict[str, Lesson]) -> None:
    pool = pool_of()
    for name, said in (("critic", pool.critic), ("judge", pool.judge)):
        lesson = lessons[f"unaligned, under the {name}'s labels"]
        assert lesson.extra is not None
        np.testing.assert_array_equal(lesson.extra.targets, said.argmax(1)[rows_of(lesson)])
    again = lessons["real again, under the critic's labels"].extra
    assert again is not None
    assert not again.targets.any()


def test_shares_of_the_real_images_have_every_class(lessons: dict[str, Lesson]) -> None:
    sizes = [len(lessons[f"real, {100 * share:g} %"].real) for share in SHARES]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 20
    for share in SHARES:
        assert set(lessons[f"real, {100 * share:g} %"].real.targets) == {0, 1, 2}
    rows = stratified(np.array([0] * 10 + [1] * 2), 0.5, np.random.default_rng(0))
    assert np.bincount(np.array([0] * 10 + [1] * 2)[rows]).tolist() == [5, 1]


def test_few_of_a_class_are_all_taken() -> None:
    rows = by_class(np.array([0, 0, 0, 1]), 2, np.array([3, 1, 2, 0]), np.array([True, True, True, True]))
    assert rows.tolist() == [1, 2, 3]


def test_an_accuracy_is_worth_so_many_real_images() -> None:
    sizes, levels = [100, 200, 400], [0.5, 0.6, 0.7]
    assert equivalent(0.6, sizes, levels) == pytest.approx(200)
    assert equivalent(0.55, sizes, levels) == pytest.approx(np.sqrt(100 * 200))
    assert equivalent(0.4, sizes, levels) == 0
    assert equivalent(0.71, sizes, levels) == np.inf


def test_what_was_trained_is_not_trained_again(tmp_path: Path) -> None:
    real = Labelled(np.zeros((6, 2, 2, 3), np.uint8), np.arange(6) % 2)
    two = [Lesson("real, 100 %", real), Lesson("arm", real, real)]
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"lesson": "arm", "seed": 0, "recalls": [0.5, 1.0]}) + "\n")
    asked: list[tuple[str, int]] = []

    def train(todo: Sequence[tuple[Lesson, int]]) -> Iterator[list[float]]:
        asked.extend((lesson.name, seed) for lesson, seed in todo)
        return iter([[0.5, 0.5 + seed / 10] for _, seed in todo])

    recalls = _trained(two, 2, log, train)
    assert asked == [("real, 100 %", 0), ("real, 100 %", 1), ("arm", 1)]
    assert len(log.read_text().splitlines()) == 4
    assert _trained(two, 2, log, lambda todo: iter(())) == recalls
    rows = table_of(two, recalls, [1], 2)
    assert [row["accuracy"] for row in rows] == pytest.approx([0.525, 0.65])
    assert rows[1]["gain"] == pytest.approx((0.25 + 0.0) / 2)
    assert rows[1]["rare_gain"] == pytest.approx((0.5 + 0.0) / 2)
    assert (rows[1]["real"], rows[1]["others"]) == (6, 6)
    assert rows[1]["worth"] is None  # one size of real images is no curve
