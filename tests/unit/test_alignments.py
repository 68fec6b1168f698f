"""The benchmark of what teaches a model: its rows are settings that exist, and its table is of paired differences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from alignments import ALONE, RECIPE, folder_of, gains, oracle_of

from saadi.alignment.objectives import OBJECTIVES
from saadi.configfile import demo_config, dump_config
from saadi.critics.crossfit import CrossFitted
from saadi.critics.judging import Critic
from saadi.pairing import PAIRINGS
from saadi.penalties import PENALTIES
from saadi.preferences import CRITERIA


def test_every_row_is_a_recipe_of_its_own_in_a_folder_of_its_own() -> None:
    rows = [*RECIPE, *ALONE]
    configs = [demo_config(0, row.changes) for row in rows]
    assert len({(dump_config(config), row.oracle) for config, row in zip(configs, rows, strict=True)}) == len(rows)
    assert len({folder_of(row.name) for row in rows}) == len(rows)
    for config in configs:
        assert config.alignment.objective in OBJECTIVES
        assert CRITERIA[config.preferences.criterion].task == "classification"
        assert config.preferences.pairing in PAIRINGS
        assert set(config.preferences.penalties) <= set(PENALTIES)


def test_every_objective_and_the_controls_of_pairing_are_among_the_rows() -> None:
    configs = [demo_config(0, row.changes) for row in (*RECIPE, *ALONE)]
    assert {config.alignment.objective for config in configs} == set(OBJECTIVES)
    assert {config.preferences.pairing for config in configs} == set(PAIRINGS)


def test_a_gain_is_of_images_of_the_same_noise() -> None:
    said = {"unaligned": [0.0, 1.0, 0.0, 1.0], "all": [1.0] * 4, "same": [0.0, 1.0, 0.0, 1.0]}
    rows = [{"row": name, "agrees": agrees} for name, agrees in said.items()]
    none, half, same = gains(rows)
    assert none is None
    assert half is not None
    mean, (low, high) = half
    assert mean == pytest.approx(0.5)
    assert 0 <= low < mean < high <= 1
    assert same == (0.0, (0.0, 0.0))  # image by image they are alike, so there is nothing uncertain
    assert [one is None for one in gains(rows, "same")] == [False, False, True]
    assert gains(rows, "same")[1] == half


def test_an_oracle_judges_in_every_members_place() -> None:
    judge = cast(Any, SimpleNamespace())
    members = tuple(cast(Any, SimpleNamespace()) for _ in range(3))
    nobody = np.zeros((0, 2))
    crossfit = CrossFitted(members, {"a": 0, "b": 1, "c": 2}, 1)
    critic = Critic(crossfit, judge, cast(Any, None), cast(Any, None), demo_config(0), nobody, nobody)
    found = oracle_of(critic).crossfit
    assert found.fold_of_group == crossfit.fold_of_group
    assert found.copies == 1
    assert len(found.members) == 3
    assert all(member is judge for member in found.members)
