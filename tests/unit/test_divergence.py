"""Trainings that run away: what was good is kept, and nothing else is ever written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_diffusion import CONFIG, HELD_OUT, TRAIN, small_generator
from test_training import EVERY, RECIPE, assert_same, fresh, loss_of, run
from torch import Tensor

from saadi.alignment import train
from saadi.alignment.train import align, extrapolate
from saadi.diffusion.lora import add_adapter, outer_weights
from saadi.errors import BadInput, Diverged
from saadi.training import EXPLODED, fit


def assert_kept(checkpoint: Path) -> None:
    """The checkpoint leads to where an undisturbed training ends."""
    undisturbed, resumed = fresh(), fresh()
    assert run(resumed, checkpoint) == run(undisturbed)
    assert_same(resumed, undisturbed)


def test_a_weight_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    """The last step's, too, after which no loss would tell."""
    for bad in (2 * EVERY, RECIPE.steps):
        net, checkpoint = fresh(), tmp_path / f"{bad}.safetensors"

        def spoil(done: int, _: int, bad: int = bad, net: Any = net) -> None:
            if done == bad:
                net.head.weight.data[0, 0] = float("inf")

        with pytest.raises(Diverged, match=rf"^here: a weight is not a number at step {bad}; lower the learning rate"):
            fit(
                {"net": net}, loss_of(net), RECIPE, seed=7, what="here", checkpoint=checkpoint, every=EVERY,
                progress=spoil,
            )  # fmt: skip
        assert_kept(checkpoint)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_loss_that_explodes_ends_training_at_the_last_good_checkpoint(interrupted: bool, tmp_path: Path) -> None:
    net, checkpoint, since = fresh(), tmp_path / "c.safetensors", 2 * EVERY - 1

    def loss_at(step: int, rows: slice) -> Tensor:
        if interrupted and step == EVERY and not list(tmp_path.glob("stopped")):
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        # The size of a loss alone moves nothing here: gradients are clipped
        return loss_of(net)(step, rows) * (10 * EVERY * EXPLODED if step == since else 1)

    def go() -> None:
        fit({"net": net}, loss_at, RECIPE, seed=7, what="here", checkpoint=checkpoint, every=EVERY)

    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            go()
    with pytest.raises(Diverged, match=rf"^here: the loss has exploded from .* at step {2 * EVERY}; lower"):
        go()
    assert_kept(checkpoint)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    net, checkpoint = fresh(), tmp_path / "c.safetensors"
    run(fresh(), checkpoint)
    whole = checkpoint.read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"\xff" * 64):
        checkpoint.write_bytes(data)
        with pytest.raises(BadInput, match=r"c\.safetensors: is damaged .*delete it"):
            run(net, checkpoint)


def test_an_adapter_whose_winners_cannot_be_measured_goes_back_to_the_last_good_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, every, calls = small_generator(), train._every_error, list[int]()
    unet = generator.unet

    def poisoned(*arguments: Any) -> tuple[Tensor, ...]:
        calls.append(1)
        winner, loser, overlap = every(*arguments)
        return (winner if len(calls) <= 3 else winner * float("nan")), loser, overlap  # two banks, and one check

    monkeypatch.setattr(train, "_every_error", poisoned)
    config = CONFIG.model_copy(update={"steps": 24, "extrapolation": 3.0, "stop_rise": 10.0})
    rows, reason = align(unet, unet, generator.schedule, TRAIN, HELD_OUT, config, seed=1)
    assert "the weights of step 10 were kept" in reason
    assert all(p.isfinite().all() for p in outer_weights(unet))
    # Extrapolated, it could not be measured either: nothing was added to it
    assert rows[-1]["extrapolation"] == 1.0


def test_no_extrapolation_that_cannot_be_measured_is_taken() -> None:
    unet = small_generator().unet
    add_adapter(unet, 2, seed=2)
    row = extrapolate(unet, 3.0, lambda _: {"winner_change": float("nan")}, lambda row: "no number")
    assert row["extrapolation"] == 1.0
