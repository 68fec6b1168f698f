"""The study on real sets: what is committed of a fold says all that the fold said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from real_sets import fold_in, pack, report, unit_of, unpack
from study_figure import draw_sets

from saadi.evaluation.metrics import Tally, tally_recalls
from saadi.evaluation.presence import rank
from saadi.evaluation.together import Fold, read_together
from saadi.files import digest
from saadi.records import LabelSpace

SPACE = LabelSpace(("a", "b"))
COUNTS = {"a": 30, "b": 3}
ENTRY = {"config": "mine.yaml", "parts": 3}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(arrays(np.int32, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)))
def test_counts_come_back(counts: NDArray[np.int32]) -> None:
    text = json.loads(json.dumps(pack(counts.astype(np.float64))))
    np.testing.assert_array_equal(unpack(text), counts)


def test_what_is_no_count_is_refused() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        pack(np.array([0.5]))


def fold_of(number: int, wrong: int) -> Fold:
    """Ten images of two patients, two trainings; `real` misses `wrong` of the first class, `round-1` none."""
    labels = np.array([0, 0, 0, 1, 1] * 2)
    said = np.stack([labels, labels])
    missed = said.copy()
    missed[:, np.flatnonzero(labels == 0)[:wrong]] = 1
    scored = {"real": tally_recalls(labels, missed, 2), "unaligned": tally_recalls(labels, missed, 2)}
    scored["real-mixup"] = scored["round-1"] = tally_recalls(labels, said, 2)
    groups = np.repeat([f"p{number}", f"q{number}"], 5)
    generated = {"real": 0, "real-mixup": 0, "unaligned": 4, "round-1": 8}
    return Fold(
        f"part-{number}", (f"p{number}", f"q{number}"), ("v",), groups, scored, "round-1",
        {arm: {"macro_f1": 0.5} for arm in scored}, generated,
    )  # fmt: skip


def kept(fold: Fold, **changes: Any) -> dict[str, Any]:
    val = {"round": "round-1", "val_balanced_accuracy": {"real": 0.5, "real-mixup": 0.6, "real-pretrained": 0.9}}
    unit = {"set": "mine", "entry": digest(ENTRY), **unit_of(fold, SPACE, COUNTS), "val_choices": val}
    loaded: dict[str, Any] = json.loads(json.dumps(unit))
    return loaded | changes


def test_a_committed_fold_says_what_the_fold_said() -> None:
    folds = [fold_of(1, 0), fold_of(2, 3)]
    again = [fold_in(kept(fold)) for fold in folds]
    assert read_together(again, SPACE, COUNTS, 40, 0) == read_together(folds, SPACE, COUNTS, 40, 0)
    painted = Tally(np.array([[[4.0, 6.0]]]), np.array([[[8.0, 6.0]]]), np.array([[3.0, 0.0]]))
    back = fold_in(
        kept(Fold("A", ("A",), ("B",), np.array(["A"]), {"round-1": painted}, "round-1", {"round-1": {}}, {}))
    )
    for one, other in zip(back.scored["round-1"], painted, strict=True):  # type: ignore[call-overload]
        np.testing.assert_array_equal(one, other)


def test_presence_has_no_counts() -> None:
    sets = np.array([[0, 1], [1, 0]])
    fold = Fold("A", ("A",), ("B",), np.array(["A", "A"]), {"real": rank(sets, np.zeros((1, 2, 2)))}, "real", {}, {})
    with pytest.raises(ValueError, match="presence"):
        unit_of(fold, SPACE, COUNTS)


def test_a_report_is_of_the_folds_of_this_study() -> None:
    study = {
        "sets": {"mine": ENTRY, "other": {"config": "other.yaml"}},
        "primary": "chosen - real",
        "others": ["chosen - unaligned"],
    }
    units = [kept(fold_of(1, 1)), kept(fold_of(2, 3)), kept(fold_of(3, 6), entry="of an earlier study.yaml")]
    told = report(study, units)
    assert list(told["sets"]) == ["mine"]
    own = told["sets"]["mine"]
    assert list(own["folds"]) == ["part-1", "part-2"]
    # 4 of 12 images of class a are missed, none of b
    assert own["gains"]["chosen - real"]["mean"] == pytest.approx((4 / 12) / 2)
    assert own["gains"]["chosen - real"]["least_group"] == ["q1", 0]
    assert own["gains"]["chosen - real"]["least_class"] == ["b", 0]
    assert set(own["gains"]) == {"chosen - real", "chosen - unaligned", "chosen - strongest real"}
    assert own["gains"]["chosen - strongest real"]["mean"] == 0  # mixup, which misses nothing either
    # Corrected over both sets of the study, though one has no fold yet
    assert told["p_holm"] == {"mine": pytest.approx(min(1, 2 * own["gains"]["chosen - real"]["p"]))}
    (axes,) = draw_sets(told).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"mine (2 folds): {gain}" for gain in own["gains"]]


def test_the_page_of_studies_says_what_the_committed_folds_say() -> None:
    study = Path(__file__).parents[2] / "studies/real-sets"
    asked = yaml.safe_load((study / "study.yaml").read_text(encoding="utf-8"))
    told = report(asked, [json.loads(path.read_text(encoding="utf-8")) for path in sorted(study.glob("*-*.json"))])
    page = (study.parents[1] / "docs/study.md").read_text(encoding="utf-8")
    cells_of = [[*map(str.strip, row.split("|")[1:-1])] for row in page.splitlines() if row.startswith("|")]
    rows = {cells[0]: cells[1:] for cells in cells_of if len(cells) == 1 + len(told["sets"])}
    for number, (name, own) in enumerate(told["sets"].items()):
        for gain, entry in own["gains"].items():
            mean, (low, high) = 100 * entry["mean"], (100 * bound for bound in entry["ci95"])
            assert f"{mean:+.1f} ({low:.1f} to {high:.1f})" in rows[gain][number].replace("*", ""), (name, gain)
        assert rows["p (Holm)"][number] == f"{told['p_holm'][name]:.2f}"
        for arm, entry in own["arms"].items():
            by_fold = ", ".join(f"{100 * level:.1f}" for level in entry["per_fold"].values())
            assert f"| `{arm}` | {100 * entry['mean']:.1f} | {by_fold} |" in page, (name, arm)
