"""The training loop: resuming to the bit, refusing to go on from numbers that are none, and its schedule."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from saadi.errors import BadInput
from saadi.seeds import seed_torch, torch_rng
from saadi.shares import Loss, Shares
from saadi.training import Recipe, evaluating, fit, write_log

STEPS, EVERY = 10, 3
RECIPE = Recipe(STEPS, 1e-2, weight_decay=0.1, ema=0.9)


class Net(nn.Module):
    """All that has state: a convolution in channels_last, batch norm's running figures, dropout's global draws."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.convolution(x)))
        out: Tensor = self.frozen(self.head(nn.functional.dropout(maps.mean((2, 3)), 0.3)))
        return out


def fresh() -> Net:
    torch.manual_seed(5)
    net = Net()
    net.to(memory_format=torch.channels_last)
    return net


def loss_of(net: Net) -> Loss:
    def loss_at(step: int, _: slice) -> Tensor:
        x = torch.randn(4, 3, 6, 6, generator=torch_rng("x", step)).contiguous(memory_format=torch.channels_last)
        out: Tensor = net(x)
        return (out - 1).square().mean()

    return loss_at


def killed_at(step: int, loss_at: Loss) -> Loss:
    def until(at: int, rows: slice) -> Tensor:
        if at == step:
            raise KeyboardInterrupt
        return loss_at(at, rows)

    return until


def without_seconds(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same(one: nn.Module, two: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def run(net: Net, checkpoint: Path | None = None) -> list[dict[str, float]]:
    rows, reason = fit({"net": net}, loss_of(net), RECIPE, seed=7, checkpoint=checkpoint, every=EVERY)
    assert reason == "all steps done"
    return without_seconds(rows)


@pytest.mark.parametrize("step", range(STEPS))
def test_killed_at_any_step_and_resumed_equals_undisturbed_to_the_bit(step: int, tmp_path: Path) -> None:
    undisturbed, checkpoint = fresh(), tmp_path / "checkpoint.safetensors"
    rows = run(undisturbed)
    (tmp_path / "checkpoint.safetensors.partial").write_bytes(b"half a file, left by a kill while it was written")
    net = fresh()
    with pytest.raises(KeyboardInterrupt):
        fit({"net": net}, killed_at(step, loss_of(net)), RECIPE, seed=7, checkpoint=checkpoint, every=EVERY)
    assert checkpoint.exists() == (step >= EVERY)
    resumed = fresh()
    torch.randn(3)  # what ran before in the process must not matter
    assert run(resumed, checkpoint) == rows
    assert_same(resumed, undisturbed)
    assert resumed.convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_resuming_a_finished_training_gives_its_result(tmp_path: Path) -> None:
    one, two = fresh(), fresh()
    rows = run(one, tmp_path / "c.safetensors")
    assert run(two, tmp_path / "c.safetensors") == rows
    assert_same(one, two)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_numbers_that_are_none_are_bad_input_and_the_checkpoint_holds_the_last_good_weights(
    broken: str, tmp_path: Path
) -> None:
    net, checkpoint, bad = fresh(), tmp_path / "c.safetensors", 2 * EVERY - 1
    good = loss_of(net)

    def loss_at(step: int, rows: slice) -> Tensor:
        if step != bad:
            return good(step, rows)
        nothing = net.head.weight.sum() * 0
        return nothing / 0 if broken == "loss" else good(step, rows) + nothing.sqrt()

    with pytest.raises(BadInput, match=rf"^here: .*not a number at step {bad}; lower the learning rate"):
        fit({"net": net}, loss_at, RECIPE, seed=7, what="here", checkpoint=checkpoint, every=EVERY)
    undisturbed, resumed = fresh(), fresh()
    assert run(resumed, checkpoint) == run(undisturbed)
    assert_same(resumed, undisturbed)


def test_rate_rises_linearly_then_falls_along_a_cosine_to_the_floor() -> None:
    recipe = Recipe(steps=110, lr=2.0, warmup=10 / 110, floor=0.1)
    assert [recipe.rate(step) for step in range(10)] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert recipe.rate(10) == 2.0
    assert recipe.rate(60) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    falling = [recipe.rate(step) for step in range(10, 110)]
    assert falling == sorted(falling, reverse=True)
    assert recipe.rate(110) == pytest.approx(0.2)
    assert Recipe(steps=1, lr=1.0).rate(0) == 1.0


def test_stop_ends_training_with_its_reason_and_the_log_says_where() -> None:
    net, seen = fresh(), []
    rows, reason = fit(
        {"net": net},
        loss_of(net),
        RECIPE,
        every=2,
        progress=lambda done, total: seen.append((done, total)),
        watch=lambda step: {"figure": 10.0 * step},
        stop=lambda row: "figure too large" if row["figure"] > 35 else None,
    )
    assert reason == "figure too large; the weights of step 2 were kept"
    undisturbed = fresh()
    fit({"net": undisturbed}, loss_of(undisturbed), RECIPE, every=2, watch=lambda step: {"figure": 0.0},
        stop=lambda row: "there" if row["step"] > 2 else None)  # fmt: skip
    for kept, expected in zip(net.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(kept, expected)
    assert [row["step"] for row in rows] == [2, 4]
    assert [row["figure"] for row in rows] == [20, 40]
    assert seen == [(step, STEPS) for step in range(1, 5)]


def test_no_steps_leave_the_weights_as_they_are() -> None:
    net = fresh()
    assert fit({"net": net}, loss_of(net), Recipe(0, 1.0)) == ([], "all steps done")
    assert_same(net, fresh())


def test_averaged_weights_are_adopted_and_frozen_ones_left() -> None:
    net, seen = fresh(), []
    average = net.head.weight.detach().clone()

    def watch(step: int) -> dict[str, float]:
        seen.append(net.head.weight.detach().clone())
        return {}

    fit({"net": net}, loss_of(net), RECIPE, every=1, watch=watch)
    for step, weight in enumerate(seen):
        decay = min(0.9, (step + 1) / (step + 10))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(net.head.weight.detach(), average)
    assert torch.equal(net.frozen.weight, fresh().frozen.weight)


def test_matrices_decay_and_biases_do_not() -> None:
    net = nn.Linear(2, 2)
    weight, bias = net.weight.detach().clone(), net.bias.detach().clone()
    recipe = Recipe(steps=3, lr=0.1, weight_decay=0.5, warmup=0.0, floor=1.0)
    fit({"net": net}, lambda step, _: 0 * (net.weight.sum() + net.bias.sum()), recipe)
    torch.testing.assert_close(net.weight.detach(), weight * (1 - 0.05) ** 3)
    assert torch.equal(net.bias, bias)


class Rows:
    """A loss over rows, which notes how many it was asked for at once, and has memory for `most` of them."""

    def __init__(self, most: int = 99) -> None:
        torch.manual_seed(1)
        self.net, self.most, self.asked = nn.Linear(3, 1), most, list[int]()

    def __call__(self, step: int, rows: slice) -> Tensor:
        self.asked.append(rows.stop - rows.start)
        if self.asked[-1] > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        x = torch.randn(7, 3, generator=torch_rng("rows", step))[rows]
        out: Tensor = self.net(x)
        return out.square().mean()


@pytest.mark.parametrize(("shares", "pieces"), [(Shares(7, 3), [3, 3, 1]), (Shares(7, 7, scale=1024.0), [7])])
def test_a_batch_in_pieces_or_scaled_is_learnt_like_a_whole_one(shares: Shares, pieces: list[int]) -> None:
    recipe = Recipe(steps=4, lr=0.1, weight_decay=0.0)
    whole, parted = Rows(), Rows()
    rows, _ = fit({"net": whole.net}, whole, recipe, shares=Shares(7))
    again, _ = fit({"net": parted.net}, parted, recipe, shares=shares)
    assert (whole.asked, parted.asked) == ([7] * 4, pieces * 4)
    torch.testing.assert_close(parted.net.weight, whole.net.weight)
    assert again[-1]["loss"] == pytest.approx(rows[-1]["loss"])


def test_pieces_become_smaller_until_memory_holds_them_and_stay_so() -> None:
    recipe = Recipe(steps=2, lr=0.1)
    whole, tight = Rows(), Rows(most=2)
    fit({"net": whole.net}, whole, recipe, shares=Shares(7))
    fit({"net": tight.net}, tight, recipe, shares=Shares(7))
    assert tight.asked == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1]
    torch.testing.assert_close(tight.net.weight, whole.net.weight)


def test_no_memory_for_a_single_row_is_bad_input() -> None:
    with pytest.raises(BadInput, match="memory for a batch of one"):
        fit({"net": (tight := Rows(most=0)).net}, tight, Recipe(steps=2, lr=0.1), shares=Shares(3), what="here")


def test_no_memory_for_what_has_no_smaller_pieces_says_what_to_lower() -> None:
    with pytest.raises(BadInput, match="here: no memory for a batch; lower its `batch`"):
        fit({"net": (tight := Rows(most=0)).net}, tight, Recipe(steps=2, lr=0.1), what="here")


def test_a_loss_scale_that_overflows_is_halved_and_nothing_is_lost() -> None:
    """The gradient at scale 2^127 is infinite in float32; the step is done again, not left out."""
    recipe = Recipe(steps=3, lr=0.1)
    plain, scaled = Rows(), Rows()
    fit({"net": plain.net}, plain, recipe, shares=Shares(7))
    fit({"net": scaled.net}, scaled, recipe, shares=Shares(7, scale=2.0**130))
    assert len(scaled.asked) > 3
    torch.testing.assert_close(scaled.net.weight, plain.net.weight)


def test_moments_of_8_bits_are_bitsandbytes_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[torch.optim.Optimizer] = []
    table = torch.linspace(-1, 1, 256)

    class AdamW8bit(torch.optim.AdamW):
        """With a table of levels that all parameters share, as bitsandbytes has it."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            made.append(self)

        def step(self, closure: Any = None) -> Any:
            loss = super().step(closure)
            for state in self.state.values():
                state["qmap1"] = table
            return loss

    net, recipe, checkpoint = fresh(), replace(RECIPE, eight_bit=True), tmp_path / "checkpoint"
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    with pytest.raises(BadInput, match=r"^compute.eight_bit: bitsandbytes is not installed"):
        fit({"net": net}, loss_of(net), recipe)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=AdamW8bit)))
    fit({"net": net}, loss_of(net), recipe, checkpoint=checkpoint, every=2)
    (optimiser,) = made
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.1, 0.0]
    assert not torch.equal(net.head.weight, fresh().head.weight)
    kept = load_file(checkpoint)
    assert sum(name.endswith("qmap1") for name in kept) > 1
    again = fresh()
    fit({"net": again}, loss_of(again), recipe, checkpoint=checkpoint, every=2)  # takes up what was written
    assert torch.equal(again.head.weight, net.head.weight)


def test_log_leaves_out_the_seconds(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", [{"step": 1.0, "loss": 0.5, "seconds": 3.0}, {"step": 2.0, "loss": 0.25}])
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1.0, "loss": 0.5}, {"step": 2.0, "loss": 0.25}]


def test_evaluating_switches_modes_and_gradients_and_brings_them_back() -> None:
    one, two = nn.Linear(1, 1).train(), nn.Linear(1, 1).eval()

    def inside() -> None:
        with evaluating(one, two):
            assert not one.training
            assert not torch.is_grad_enabled()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inside()
    assert one.training
    assert not two.training
    assert torch.is_grad_enabled()


def test_torchs_own_state_is_seeded_as_torch_does() -> None:
    seed_torch(2**62 + 5)
    drawn = torch.rand(3)
    torch.manual_seed(2**62 + 5)
    assert torch.equal(torch.rand(3), drawn)
