"""The ways that `speed.py` compares: each builds its models, warms up, is timed, and says what it found.

`ordinary` is how a public script does it; `ours` calls what the stages call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import CLIPTextConfig, CLIPTextModel

from saadi.alignment.objectives import dpo
from saadi.alignment.pairs import PairBatch
from saadi.alignment.train import Bank, bank_errors, bank_timesteps, make_bank
from saadi.config import ClassifierConfig, SamplingConfig
from saadi.critics import downstream
from saadi.critics.augmentation import AUGMENTATIONS, augment
from saadi.critics.tasks import TASKS
from saadi.diffusion.drawing import draw, encode_images, solver
from saadi.diffusion.generator import Generator, encode_prompts, load_generator, token_ids
from saadi.diffusion.lora import add_adapter
from saadi.diffusion.objective import Clean, noised, target
from saadi.diffusion.presets import build_tokenizer
from saadi.foundation import foundation_folder

PAIRS, STEPS, VISITS = 8, 4, 8
"""Pairs a step, timed steps, and how often a round comes back to a pair: what caches cost is shared by so many."""
PROMPT = "a laparoscopic image"
BETA = 0.1


@dataclass
class Figures:
    """`seconds` of one unit (a pair, an image), by what was counted; `peak`: bytes above the weights; `losses`."""

    seconds: dict[str, float]
    peak: int = 0
    losses: list[float] = field(default_factory=list)


def _memory(key: str) -> int:
    return int(re.findall(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))[0]) * 1024


@contextmanager
def _peak_of(figures: Figures) -> Iterator[None]:
    """Writes into `figures` by how much this process grew inside, at most."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    before = _memory("VmRSS")
    yield
    figures.peak = _memory("VmHWM") - before


def quarter_stable() -> Generator:
    """Stable Diffusion 1.5's modules and layers with a quarter of its width, random weights, for 256-pixel images."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=768, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=tokenizer.model_max_length, projection_dim=192,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, latent_channels=4, sample_size=256,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, block_out_channels=(80, 160, 320, 320), norm_num_groups=16,
        cross_attention_dim=192, attention_head_dim=8,
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return Generator(vae, CLIPTextModel(text).eval(), tokenizer, unet, scheduler)


def _model(name: str) -> tuple[Generator, int]:
    """A model and the side of its images."""
    return (load_generator(foundation_folder()), 64) if name == "tiny" else (quarter_stable(), 256)


def _pair_images(size: int) -> np.ndarray:
    """Winners, then losers [2 P, S, S, 3]: noise will do, since nothing here depends on what is shown."""
    return np.random.default_rng(0).integers(0, 256, (2 * PAIRS, size, size, 3), dtype=np.uint8)


def _train(generator: Generator, loss_at: Callable[[int], Tensor]) -> tuple[list[float], float]:
    """Losses of a warming step and `STEPS` more, and the seconds of one of these."""
    learns = [p for p in generator.unet.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learns, lr=1e-4, fused=True)
    losses, seconds = [], []
    for step in range(1 + STEPS):
        begun = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        loss = loss_at(step)
        torch.autograd.backward([loss])
        optimiser.step()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - begun)
    return losses, median(seconds[1:])


def _draws(step: int) -> tuple[Tensor, Tensor]:
    return torch.arange(PAIRS), torch.full((PAIRS,), step)


def preference_ordinary(name: str) -> Figures:
    """Every step encodes its images and prompts, asks the policy, then the reference: the policy without adapter."""
    generator, size = _model(name)
    images, schedule, figures = _pair_images(size), generator.schedule, Figures({})
    add_adapter(generator.unet, 16, 0)
    generator.unet.train()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    ids = token_ids(generator, [PROMPT] * PAIRS)
    plan = bank_timesteps(PAIRS, 1 + STEPS, len(schedule.alpha_bar), 0)
    drawn = Bank(plan, 0, "epsilon", plan, plan)  # for its noise alone

    def loss_at(step: int) -> Tensor:
        with torch.no_grad():
            encoded = generator.vae.encode(pixels)
            x0 = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
            x0 = x0 * generator.vae.config.scaling_factor
            told = generator.text_encoder(ids)[0].repeat(2, 1, 1)
        t, noise = plan[:, step].repeat(2), drawn.noise(*_draws(step), x0.shape[1:]).repeat(2, 1, 1, 1)
        seen, wanted = noised(schedule, x0, noise, t), target(schedule, x0, noise, t)

        def errors() -> Tensor:
            squares: Tensor = (generator.unet(seen, t, told).sample - wanted).square().flatten(1).sum(1)
            return squares if schedule.prediction == "epsilon" else squares * schedule.signal(t).flatten()

        winner, loser = errors().chunk(2)
        generator.unet.disable_adapters()
        with torch.no_grad():
            reference_winner, reference_loser = errors().chunk(2)
        generator.unet.enable_adapters()
        return -logsigmoid(BETA * ((loser - reference_loser) - (winner - reference_winner))).mean()

    with _peak_of(figures):
        figures.losses, seconds = _train(generator, loss_at)
    figures.seconds = dict.fromkeys(("with caches", "steps alone"), seconds / PAIRS)
    return figures


def preference_ours(
    name: str, micro: int = PAIRS, precision: torch.dtype = torch.float32, *, checkpointing: bool = False
) -> Figures:
    """Latents, prompts and the reference's errors once; a step asks the policy alone, `micro` pairs at a time."""
    generator, size = _model(name)
    images, figures, schedule = _pair_images(size), Figures({}), generator.schedule
    generator.to(torch.device("cpu"), precision).unet.to(memory_format=torch.channels_last)
    if checkpointing:
        generator.unet.enable_gradient_checkpointing()
    with _peak_of(figures):
        begun = time.perf_counter()
        latents = encode_images(generator, images)
        told = encode_prompts(generator, [PROMPT]).expand(PAIRS, -1, -1)
        pairs = PairBatch(Clean.whole(latents[:PAIRS]), Clean.whole(latents[PAIRS:]), told, told)
        encoding = time.perf_counter() - begun
        begun = time.perf_counter()
        bank = make_bank(generator.unet, schedule, pairs, 1 + STEPS, 0)
        stated = time.perf_counter() - begun
        add_adapter(generator.unet, 16, 0)
        generator.unet.train()

        def loss_at(step: int) -> Tensor:
            total = torch.zeros(())
            for start in range(0, PAIRS, micro):
                errors = bank_errors(generator.unet, schedule, pairs, bank, *_draws(step), slice(start, start + micro))
                loss = dpo(errors, BETA).sum() / PAIRS
                if start + micro < PAIRS:
                    torch.autograd.backward([loss])
                    loss = loss.detach()
                total = total + loss
            return total

        figures.losses, seconds = _train(generator, loss_at)
    # A pair is encoded once, and comes back VISITS times, each time to a draw of its own.
    caches = encoding / (PAIRS * VISITS) + stated / (PAIRS * (1 + STEPS))
    figures.seconds = {"with caches": seconds / PAIRS + caches, "steps alone": seconds / PAIRS}
    return figures


def drawing_ordinary() -> Figures:
    """A plain pipeline, called for each image with its prompt."""
    generator, _ = _model("tiny")
    pipe, config = generator.pipeline(), SamplingConfig()
    pipe.scheduler = solver(generator, config.solver)

    def images(count: int) -> None:
        for seed in range(count):
            pipe(
                PROMPT, num_inference_steps=config.steps, guidance_scale=1.5,
                generator=torch.Generator().manual_seed(seed), output_type="np",
            )  # fmt: skip

    return _timed(images, 8)


def drawing_ours() -> Figures:
    """Prompts encoded once, images in the default batches."""
    generator, _ = _model("tiny")
    generator.unet.to(memory_format=torch.channels_last)
    config = SamplingConfig(guidance=1.5)

    def images(count: int) -> None:
        told, blank = torch.split(encode_prompts(generator, [PROMPT, ""]), 1)
        list(draw(generator, told.expand(count, -1, -1), blank, range(count), config))

    return _timed(images, 64)


def _timed(images: Callable[[int], None], count: int) -> Figures:
    figures = Figures({})
    images(2)
    with _peak_of(figures):
        begun = time.perf_counter()
        images(count)
        figures.seconds = {"an image": (time.perf_counter() - begun) / count}
    return figures


def downstream_parts() -> Figures:
    """A step of a classifier's training, and of it what comes before the network: choosing, loading, augmenting."""
    rng = np.random.default_rng(0)
    real = downstream.Labelled(rng.integers(0, 256, (300, 64, 64, 3), dtype=np.uint8), rng.integers(0, 8, 300))
    config = ClassifierConfig(steps=200, batch=16)
    spent = [0.0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            begun = time.perf_counter()
            try:
                return function(*args, **more)
            finally:
                spent[0] += time.perf_counter() - begun

        return call

    for name in ("_tensor", "numpy_rng", "torch_rng"):
        setattr(downstream, name, counted(getattr(downstream, name)))
    AUGMENTATIONS["full"] = counted(augment)
    torch.set_num_threads(1)
    begun = time.perf_counter()
    downstream.train_network(TASKS["classification"], config, real, 8, 0)
    total = time.perf_counter() - begun
    return Figures({"a step": total / config.steps, "before the network": spent[0] / config.steps})


WAYS: dict[str, Callable[[], Figures]] = {
    f"preference/{name}/{way}": call
    for name in ("tiny", "quarter")
    for way, call in (
        ("ordinary", lambda name=name: preference_ordinary(name)),
        ("ours", lambda name=name: preference_ours(name)),
        ("ours, 2 at a time", lambda name=name: preference_ours(name, micro=2)),
        ("ours, checkpointing", lambda name=name: preference_ours(name, checkpointing=True)),
        ("ours, bf16", lambda name=name: preference_ours(name, precision=torch.bfloat16)),
    )
}
WAYS |= {"drawing/ordinary": drawing_ordinary, "drawing/ours": drawing_ours, "downstream/parts": downstream_parts}
