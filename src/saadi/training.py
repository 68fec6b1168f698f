"""The one training loop. Everything that learns here, from the autoencoder to the adapter, is a `loss_at(step)`.

A step depends on its number and on the weights alone, never on what ran before it in the process: so a run that was
killed resumes from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from saadi.errors import BadInput, Diverged
from saadi.records import write_atomic
from saadi.seeds import seed_of, seed_torch
from saadi.shares import WHOLE, Loss, Shares

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""
EXPLODED = 1000.0
"""A mean loss so many times that of the first step is not of a training that learns."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast. `warmup`: share of the steps; `ema`: decay of the averaged weights, 0 for none;
    `eight_bit`: the optimiser's moments are of 8 bits, by bitsandbytes.

    The rate rises linearly, then falls to `floor` times its peak along a cosine.
    """

    steps: int
    lr: float
    weight_decay: float = 0.0
    warmup: float = 0.05
    floor: float = 0.02
    clip: float = 1.0
    ema: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)
    eight_bit: bool = False

    def rate(self, step: int) -> float:
        """The learning rate of a step (0-based)."""
        ramp = max(1, round(self.warmup * self.steps))
        if step < ramp:
            return self.lr * (step + 1) / ramp
        share = (step - ramp) / max(1, self.steps - ramp)
        return self.lr * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * share)))


def _decayed(modules: Mapping[str, nn.Module]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices, which decay, and gains and biases, which do not."""
    every = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    return [p for p in every if p.ndim > 1], [p for p in every if p.ndim <= 1]


def eight_bit_adamw() -> Any:
    """AdamW with moments of 8 bits. Raises `BadInput` where bitsandbytes is not installed."""
    try:
        import bitsandbytes  # type: ignore[import-not-found]
    except ImportError:
        raise BadInput(
            "compute.eight_bit: bitsandbytes is not installed; pip install it, or leave the setting out"
        ) from None
    return bitsandbytes.optim.AdamW8bit


def _optimiser(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW, with moments of 8 bits if so asked. Raises `BadInput` where bitsandbytes is not installed."""
    if not recipe.eight_bit:
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
    eight_bit: torch.optim.Optimizer = eight_bit_adamw()(groups, lr=recipe.lr, betas=recipe.betas)
    return eight_bit


class _State:
    """Weights, buffers, averages and optimiser of a training, as one safetensors file."""

    def __init__(self, modules: Mapping[str, nn.Module], recipe: Recipe) -> None:
        self.modules = modules
        decayed, rest = _decayed(modules)
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.parameters = decayed + rest
        self.optimiser = _optimiser(groups, recipe)
        self.average = [p.detach().clone() for p in self.parameters] if recipe.ema else []

    def _learnt(self) -> dict[str, Tensor]:
        """What changes: trainable parameters and buffers by name. Frozen weights are not written again."""
        out: dict[str, Tensor] = {}
        for prefix, module in self.modules.items():
            out |= {f"{prefix}.{name}": p.data for name, p in module.named_parameters() if p.requires_grad}
            out |= {f"{prefix}.{name}": b for name, b in module.named_buffers()}
        return out

    def finite(self) -> bool:
        """Whether every weight is a number: the step after which one is not may have had a finite loss."""
        return all(bool(p.isfinite().all()) for p in self.parameters)

    def save(self, path: Path, step: int, first: float, rows: list[dict[str, float]]) -> None:
        tensors = {f"weight/{name}": t for name, t in self._learnt().items()}
        for i, p in enumerate(self.parameters):  # nothing of one that the loss has not reached
            for name, value in self.optimiser.state.get(p, {}).items():
                kind = "state" if isinstance(value, Tensor) else "number"
                tensors[f"{kind}/{i}/{name}"] = torch.as_tensor(value)
        tensors |= {f"average/{i}": a for i, a in enumerate(self.average)}
        # Copies in main memory: a GPU has no room for channels_last weights and moments twice, and moments of 8 bits
        # share their tables, which safetensors refuses.
        tensors = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial, {"step": str(step), "first": repr(first), "rows": json.dumps(rows)})
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)

    def load(self, path: Path) -> tuple[int, float, list[dict[str, float]]]:
        """Take up what `save` wrote; returns its step, the first step's loss and the log. Raises `BadInput`."""
        try:
            with safe_open(path, "pt") as handle:
                metadata = handle.metadata()
            tensors = load_file(path)
        except SafetensorError as error:
            raise BadInput(f"{path}: is damaged ({error}); delete it, then the training begins anew") from None
        for name, target in self._learnt().items():
            target.copy_(tensors[f"weight/{name}"])
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind not in ("state", "number"):
                continue
            number, _, key = rest.partition("/")
            p = self.parameters[int(number)]
            value = tensor.item() if kind == "number" else tensor.to(p.device)
            if kind == "state" and tensor.shape == p.shape:
                value = torch.empty_like(p, dtype=tensor.dtype).copy_(tensor)  # in the order of p's memory
            self.optimiser.state[p][key] = value
        for i, average in enumerate(self.average):
            average.copy_(tensors[f"average/{i}"])
        return int(metadata["step"]), float(metadata["first"]), json.loads(metadata["rows"])

    def differentiate(self, loss_at: Loss, step: int, shares: Shares, seed: int, what: str) -> tuple[float, Shares]:
        """The loss of a step's whole batch and, on the parameters, its gradient; and the shares that memory allows."""
        while True:
            seed_torch(seed)
            self.optimiser.zero_grad(set_to_none=True)
            try:
                value = self._accumulate(loss_at, step, shares)
                break
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
            smaller = shares.smaller()
            if smaller is None:
                if shares is WHOLE:
                    raise BadInput(f"{what}: no memory for a batch; lower its `batch`, or use a smaller model")
                raise BadInput(f"{what}: no memory for a batch of one; use a smaller model, data.size or precision")
            shares = smaller
        total = torch.tensor([value], dtype=torch.float64)
        if shares.team.size > 1:
            reached = torch.tensor([p.grad is not None for p in self.parameters], dtype=torch.float64)
            shares.team.add([total, reached])
            for p, somewhere in zip(self.parameters, reached.tolist(), strict=True):
                if somewhere and p.grad is None:
                    p.grad = torch.zeros_like(p)
            shares.team.add([p.grad for p in self.parameters if p.grad is not None])
        for p in self.parameters:
            if p.grad is not None and shares.scale != 1:
                p.grad.div_(shares.scale)
        return float(total) / shares.scale, shares

    @staticmethod
    def _accumulate(loss_at: Loss, step: int, shares: Shares) -> float:
        value = 0.0
        for rows in shares.pieces():
            loss = loss_at(step, rows) * (shares.scale * (rows.stop - rows.start) / shares.batch)
            loss.backward()
            value += float(loss.detach())
        return value

    def snapshot(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    def restore(self, kept: list[Tensor]) -> None:
        for p, value in zip(self.parameters, kept, strict=True):
            p.data.copy_(value)

    def adopt_average(self) -> None:
        for p, a in zip(self.parameters, self.average, strict=True):
            p.data.copy_(a)


def fit(
    modules: Mapping[str, nn.Module],
    loss_at: Loss,
    recipe: Recipe,
    *,
    shares: Shares = WHOLE,
    seed: int = 0,
    what: str = "training",
    checkpoint: Path | None = None,
    every: int = 100,
    progress: Progress | None = None,
    watch: Callable[[int], dict[str, float]] | None = None,
    stop: Callable[[dict[str, float]], str | None] | None = None,
) -> tuple[list[dict[str, float]], str]:
    """Train the parameters of `modules` that require gradients, in place; averaged weights are adopted at the end.

    `loss_at(step, rows)` is the mean loss over some rows of the step's batch; `shares` says who computes which, and
    pieces become smaller where memory runs out. Global random state is seeded by (`seed`, step). Every `every` steps:
    `watch(step)` adds figures to the log row, `stop(row)` may end the training with a reason, upon which the weights of
    the check before return, and `checkpoint`, if given, is written; where it exists, training resumes from it.
    Returns the log and why it ended. Raises `BadInput` when loss, gradient or a weight is not a number, when the loss
    has exploded, and where there is no memory for a single row; the checkpoint then holds the last good weights.
    """
    state, step, first, rows = _State(modules, recipe), 0, 0.0, list[dict[str, float]]()
    if checkpoint is not None and checkpoint.exists():
        step, first, rows = state.load(checkpoint)

    def diverged(why: str) -> Diverged:
        return Diverged(f"{what}: {why} at step {step}; lower the learning rate (now {recipe.lr:g})")

    accepted = state.snapshot() if stop is not None else []
    total, seen, begun = 0.0, 0, time.monotonic()
    while step < recipe.steps:
        for group in state.optimiser.param_groups:
            group["lr"] = recipe.rate(step)
        value, shares = state.differentiate(loss_at, step, shares, seed_of(seed, step), what)
        norm = nn.utils.clip_grad_norm_(state.parameters, recipe.clip)
        if not (math.isfinite(value) and math.isfinite(norm)):
            if shares.scale > 1:  # too large a number for fp16
                shares = replace(shares, scale=shares.scale / 2)
                continue
            raise diverged("the loss or its gradient is not a number")
        state.optimiser.step()
        for average, p in zip(state.average, state.parameters, strict=False):
            average.lerp_(p.data, 1 - min(recipe.ema, (step + 1) / (step + 10)))
        first = value if step == 0 else first
        step, total, seen = step + 1, total + value, seen + 1
        if progress is not None:
            progress(step, recipe.steps)
        if step % every == 0 or step == recipe.steps:
            if not state.finite():
                raise diverged("a weight is not a number")
            row = {"step": float(step), "loss": total / seen, "seconds": time.monotonic() - begun}
            row |= watch(step) if watch is not None else {}
            rows.append(row)
            total, seen = 0.0, 0
            verdict = stop(row) if stop is not None else None
            if verdict is not None:
                state.restore(accepted)
                return rows, f"{verdict}; the weights of step {step - _since(rows)} were kept"
            if abs(row["loss"]) > EXPLODED * abs(first) > 0:
                raise diverged(f"the loss has exploded from {first:.3g} to {row['loss']:.3g}")
            accepted = state.snapshot() if stop is not None else []
            if checkpoint is not None and shares.team.leads:
                state.save(checkpoint, step, first, rows)
    if recipe.ema:
        state.adopt_average()
    return rows, "all steps done"


def _since(rows: list[dict[str, float]]) -> int:
    """Steps between the last two rows of a log."""
    return int(rows[-1]["step"] - (rows[-2]["step"] if len(rows) > 1 else 0))


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """Write a training log as JSON Lines; the seconds, which differ from run to run, are left out."""
    kept = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; the modes return afterwards."""
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
