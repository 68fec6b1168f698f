"""Training the adapter on pairs: how long, how far, and what it costs."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from small_diffusion import CONFIG, HELD_OUT, TRAIN, every_draw, small_generator, stir

from saadi.alignment import train
from saadi.alignment.train import align, alignment_passes, bank_errors, extrapolate, make_bank, training_draws
from saadi.diffusion.generator import Generator
from saadi.diffusion.lora import add_adapter, outer_weights
from saadi.errors import BadInput
from saadi.seeds import seed_of
from saadi.shares import Resources


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


# Extrapolation


@pytest.mark.parametrize(("limit", "factor"), [(10.0, 3.0), (0.04, 2.0), (0.0, 1.0)])
def test_the_adapter_goes_as_far_as_the_winners_allow(generator: Generator, limit: float, factor: float) -> None:
    unet = deepcopy(generator.unet)
    add_adapter(unet, 2, seed=2)
    stir(unet, 1)
    learnt = [p.detach().clone() for p in outer_weights(unet)]

    def watch(_: int) -> dict[str, float]:
        return {"winner_change": 0.02 * float(outer_weights(unet)[0].detach().norm() / learnt[0].norm())}

    row = extrapolate(unet, 3.0, watch, lambda row: "too far" if row["winner_change"] > limit + 1e-6 else None)
    assert row["extrapolation"] == factor
    for p, before in zip(outer_weights(unet), learnt, strict=True):
        torch.testing.assert_close(p.data, factor * before)


def test_an_extrapolated_adapter_changes_the_weights_as_many_times_as_much(generator: Generator) -> None:
    config = CONFIG.model_copy(update={"extrapolation": 2.0})
    changes = []
    for one in (CONFIG, config):
        unet = deepcopy(generator.unet)
        name, before = "down_blocks.0.resnets.0.conv1", deepcopy(unet).down_blocks[0].resnets[0].conv1.weight
        _, reason = align(unet, unet, generator.schedule, TRAIN, HELD_OUT, one, 1)
        unet.fuse_lora()
        changes.append(unet.get_submodule(name).base_layer.weight - before)
    assert reason == "all steps done; taken 2 times as far"
    torch.testing.assert_close(changes[1], 2 * changes[0], rtol=1e-3, atol=1e-6)


# Watching


def test_training_stops_when_the_held_out_winners_error_rises(generator: Generator) -> None:
    unet = deepcopy(generator.unet)
    config = CONFIG.model_copy(update={"steps": 40, "lr": 0.02, "beta": 10.0, "sft": 0.0, "stop_rise": 0.01})
    rows, reason = align(unet, unet, generator.schedule, TRAIN, HELD_OUT, config, seed=1)
    *fine, last = rows
    assert fine
    assert last["winner_change"] > 0.01 >= max(row["winner_change"] for row in fine)
    assert last["step"] < 40
    assert reason.startswith("the held-out winners' error rose")
    # The weights are those of the last row that was fine
    bank = make_bank(
        generator.unet,
        generator.schedule,
        HELD_OUT,
        config.bank,
        seed_of(1, "held-out"),
        weighting=config.weighting,
        earliest=config.earliest,
    )
    kept = bank_errors(unet, generator.schedule, HELD_OUT, bank, *every_draw(len(HELD_OUT), config.bank))
    change = kept.winner.mean() / kept.reference_winner.mean() - 1
    assert float(change.detach()) == pytest.approx(fine[-1]["winner_change"], abs=1e-4)


def test_errors_are_taken_in_pieces_that_memory_allows(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, asked, ask = make_bank(generator.unet, generator.schedule, TRAIN, 2, seed=1), list[int](), train._bank_errors

    def scarce(*known: Any) -> Any:
        asked.append(len(known[-1]))
        if asked[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return ask(*known)

    monkeypatch.setattr(train, "_bank_errors", scarce)
    room = 3
    pieces = make_bank(generator.unet, generator.schedule, TRAIN, 2, seed=1)
    torch.testing.assert_close(pieces.reference_winner, whole.reference_winner)
    torch.testing.assert_close(pieces.reference_loser, whole.reference_loser)
    assert asked == [8, 4, 2, 2, 4, 2, 2]
    asked.clear()
    make_bank(generator.unet, generator.schedule, TRAIN, 2, seed=1, resources=Resources(micro=3))
    assert asked == [3, 3, 2]
    room = 0
    with pytest.raises(BadInput, match="no memory for a pair"):
        make_bank(generator.unet, generator.schedule, TRAIN, 2, seed=1)


def test_an_unknown_objective_is_bad_input(generator: Generator) -> None:
    unet, schedule = deepcopy(generator.unet), generator.schedule
    unknown = CONFIG.model_copy(update={"objective": "ppo"})
    with pytest.raises(BadInput, match=r"alignment.objective: unknown 'ppo'; one of dpo, ipo, kto, mapo, sdpo, sft"):
        align(unet, unet, schedule, TRAIN, HELD_OUT, unknown, 1)


def test_a_pair_is_not_met_again_and_again_under_the_same_noise() -> None:
    """With four fixed draws a pair, 60 steps of 16 pairs met each of 77 pairs' draws three times over."""
    config = CONFIG.model_copy(update={"steps": 60, "pairs": 16, "bank": 4})
    assert training_draws(config, 77) == 13  # 960 meetings among 77 pairs
    assert training_draws(config, 10_000) == 4


def test_the_cost_of_an_alignment_counts_every_pass(generator: Generator) -> None:
    """The UNet itself is asked how many images it was shown; a training pass counts three times."""
    shown = {True: 0, False: 0}
    unet = deepcopy(generator.unet)
    unet.register_forward_pre_hook(
        lambda _, args: shown.__setitem__(k := torch.is_grad_enabled(), shown[k] + len(args[0]))
    )
    config = CONFIG.model_copy(update={"extrapolation": 2.0})
    rows, _ = align(unet, unet, generator.schedule, TRAIN, HELD_OUT, config, 1)
    counted = alignment_passes(config, len(TRAIN), len(HELD_OUT), int(rows[-1]["step"]), int(rows[-1]["tried"]))
    assert counted == shown[False] + 3 * shown[True]
