"""What one of several processes does in the tests of a team."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from small_diffusion import HELD_OUT, TRAIN, small_generator

from saadi.alignment.train import align
from saadi.config import AlignmentConfig
from saadi.configfile import load_config
from saadi.critics.stages import draw_candidates, fit_critics, score_candidates
from saadi.data.stages import prepare_data
from saadi.diffusion.base import train_denoiser
from saadi.diffusion.painting import Sampler
from saadi.diffusion.stages import train_base
from saadi.runtime import prepare_runtime
from saadi.shares import Resources
from saadi.store import Run
from saadi.team import Team
from saadi.training import Recipe


def draw(team: Team, folder: Path) -> None:
    """Draw and judge round 1's candidates in a run's folder whose base and critic are done."""
    config = load_config(folder / "config.yaml")
    prepare_runtime(config)
    with Run(folder, config, team=team) as run:
        data = prepare_data(run)
        train_base(run, data)
        critic = fit_critics(run, data)
        samples = draw_candidates(run, Sampler(run, data.space, [], 0), critic, 1, ["base", "critic"])
        score_candidates(run, samples, critic, 1)


def learn(team: Team, out: Path) -> None:
    """Three steps of the base's training and three of an alignment; the weights they end with."""
    torch.set_num_threads(1)
    generator = small_generator()
    recipe = Recipe(3, 1e-3, ema=0.9)
    train_denoiser(
        generator, lambda index, _: TRAIN.winner.take(torch.from_numpy(index) % 4), torch.arange(8).numpy() % 2,
        ["one", "two"], recipe, batch=6, balance=0.0, seed=1, resources=Resources(team),
    )  # fmt: skip
    config = AlignmentConfig(steps=3, pairs=3, bank=2, rank=2, extrapolation=1.0, stop_rise=10.0, beta=0.5)
    align(generator.unet, generator.unet, generator.schedule, TRAIN, HELD_OUT, config, 1, resources=Resources(team))
    if team.leads:
        save_file({name: tensor.contiguous() for name, tensor in generator.unet.state_dict().items()}, out)


DUTIES: dict[str, Callable[[Team, Path], None]] = {"draw": draw, "learn": learn}
