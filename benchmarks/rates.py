"""How far from what the machine can do: rates of the networks beside those of plain products and convolutions.

    python benchmarks/rates.py --out FILE

Floating-point operations (a multiply-add is two) as torch counts them from shapes, over the seconds of the fastest of
some repeats, on all threads. Then, for a step of the tiny UNet's alignment, which kernels took the time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from saadi.critics.architectures import architecture
from saadi.diffusion.generator import load_generator
from saadi.diffusion.lora import add_adapter
from saadi.foundation import foundation_folder

REPEATS = 7
IMAGES = 32
"""A micro-batch of drawing, and as many as a step of stage 1 takes."""


def _seconds(call: Callable[[], object]) -> float:
    call()
    spent = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return min(spent)


def _work(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def plain(kind: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """What the networks are made of, in sizes that suit the machine, and convolutions as the tiny UNet has them."""
    a, b = torch.randn(2, 1536, 1536).to(kind)
    calls: dict[str, Callable[[], Tensor]] = {"product 1536 x 1536 x 1536": lambda: a @ b}
    for width, side in ((64, 16), (128, 8), (256, 4)):
        x = torch.randn(IMAGES, width, side, side).to(kind).to(memory_format=torch.channels_last)
        kernel = torch.randn(width, width, 3, 3).to(kind)
        calls[f"convolution 3 x 3, {width} channels, {side} x {side}"] = lambda x=x, kernel=kernel: conv2d(  # type: ignore[misc]
            x, kernel, padding=1
        )
    return calls


def networks() -> dict[str, Callable[[], object]]:
    """The steps that a run is made of."""
    unet = load_generator(foundation_folder()).unet.to(memory_format=torch.channels_last)
    side, width = int(unet.config.sample_size), int(unet.config.in_channels)
    x, t = torch.randn(IMAGES, width, side, side), torch.randint(0, 1000, (IMAGES,))
    told = torch.randn(IMAGES, 16, int(unet.config.cross_attention_dim))

    def forward(model: nn.Module) -> Tensor:
        return torch.as_tensor(model(x, t, told).sample)

    def drawing() -> Tensor:
        with torch.no_grad():
            return forward(unet)

    full = load_generator(foundation_folder()).unet.train().to(memory_format=torch.channels_last)
    adapted = load_generator(foundation_folder()).unet.to(memory_format=torch.channels_last)
    add_adapter(adapted, 16, 0)
    adapted.train()
    images, labels = torch.randn(8, 3, 64, 64), torch.randint(0, 8, (8,))
    small = architecture("small-cnn").build(8).train()

    def learn(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
        def step() -> None:
            model.zero_grad(set_to_none=True)
            torch.autograd.backward([loss()])

        return step

    return {
        "UNet, drawing": drawing,
        "UNet, all weights learn": learn(full, lambda: forward(full).square().mean()),
        "UNet, an adapter learns": learn(adapted, lambda: forward(adapted).square().mean()),
        "small-cnn learns, 8 images": learn(small, lambda: cross_entropy(small(images), labels)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, default=10, help="kernels to name")
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    arguments = parser.parse_args()
    calls: dict[str, Callable[[], object]] = dict(plain(torch.float32))
    calls |= {f"{name}, bf16": call for name, call in plain(torch.bfloat16).items()}
    steps = networks()
    rates = {name: _work(call) / _seconds(call) for name, call in (calls | steps).items()}
    best = rates["product 1536 x 1536 x 1536"]
    table = Table("what", "GFLOP/s", "of the product's rate", title=f"{torch.get_num_threads()} threads")
    for name, rate in rates.items():
        table.add_row(name, f"{rate / 1e9:.0f}", f"{rate / best:.0%}")
    with profile(activities=[ProfilerActivity.CPU]) as told:
        steps["UNet, an adapter learns"]()
    events = sorted(told.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    shares = {event.key: event.self_cpu_time_total / total for event in events}
    kernels = Table("kernel", "share of a step")
    for name in list(shares)[: arguments.top]:
        kernels.add_row(name, f"{shares[name]:.0%}")
    Console(width=120).print(table, kernels)
    if arguments.out:
        figures = {"threads": torch.get_num_threads(), "rates": rates, "kernels": shares}
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
