"""`--dry-run`: what a run will do, how long it will take on this machine, and how much disk it needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from saadi.config import ClassifierConfig, RunConfig
from saadi.critics.architectures import architecture
from saadi.critics.downstream import Labelled, train_network
from saadi.critics.tasks import TASKS
from saadi.data.load import list_frames
from saadi.diffusion.drawing import unet_passes
from saadi.diffusion.footprint import decoding_flops, encoded_bytes, read_footprint
from saadi.diffusion.generator import PARTS, encode_prompts
from saadi.diffusion.lessons import LAYOUTS
from saadi.diffusion.stages import open_start, start_folder, tunes_all
from saadi.evaluation.arms import real_arms
from saadi.runtime import device_of, precision_of
from saadi.workers import crew_size

_PROBE = 16
_CALLS = 5
"""The fastest counts: the first is slower, and so is one that had to wait for another program's work."""


def flops_a_second(config: RunConfig) -> float:
    """What this machine computes in a second, measured on a convolution such as Stable Diffusion has, in the precision
    of what does not learn."""
    channels, side, often = 320, 64, 4
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(device_of(config), precision_of(config))
    x = torch.randn(1, channels, side, side).to(layer.weight)
    with torch.no_grad():
        float(layer(x).sum())  # the first call is slower; a number has to be waited for
        begun = time.perf_counter()
        float(sum(layer(x).sum() for _ in range(often)))
    return often * 2 * 9 * (channels * side) ** 2 / (time.perf_counter() - begun)


def _seconds_per_pass(config: RunConfig, *, training: bool) -> float:
    """Seconds of a UNet's pass of one image, with or without gradients. The tiny one's are measured on a small batch;
    others, whose weights may fill a GPU, are counted from shapes: no weight is read, and nothing of them computed."""
    if config.base.model != "tiny":
        passes = 3 + config.compute.checkpointing if training else 1  # a backward pass is two, or, anew, three
        return passes * read_footprint(start_folder(config), config.data.size).flops / flops_a_second(config)
    generator = open_start(config, ()).to(device_of(config))
    unet = generator.unet.train(training)
    embedding = encode_prompts(generator, [""]).expand(_PROBE, -1, -1)
    side = config.data.size // generator.cell
    x = torch.randn(_PROBE, unet.config.in_channels, side, side, device=generator.device)
    t = torch.full((_PROBE,), 500, device=generator.device)
    spent = []
    with torch.set_grad_enabled(training):
        for _ in range(_CALLS):
            begun = time.perf_counter()
            out = unet(x, t, embedding).sample
            if training:
                out.square().mean().backward()
            if x.is_cuda:  # what was launched has to be waited for
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - begun)
    return min(spent) / _PROBE


def _seconds_per_image(config: RunConfig, recipe: ClassifierConfig, classes: int) -> float:
    """Seconds of one image's training of a downstream model."""
    probe, side = recipe.model_copy(update={"steps": 3}), config.data.size
    labels = np.arange(_PROBE) % classes
    targets = {
        "classification": labels,
        "segmentation": np.broadcast_to(labels[:, None, None], (_PROBE, side, side)),
        "presence": np.eye(classes, dtype=np.int64)[labels],
    }
    lesson = Labelled(np.zeros((_PROBE, side, side, 3), np.uint8), targets[config.task])
    begun = time.perf_counter()
    train_network(TASKS[config.task], probe, lesson, classes, 0, device=device_of(config))
    return (time.perf_counter() - begun) / (3 * probe.batch)


def _by_the_crew(config: RunConfig, seconds: Callable[[], float]) -> float:
    """What `seconds` measures of some work, where the crew does it side by side."""
    threads, processes = torch.get_num_threads(), crew_size(config)
    if not processes:
        return seconds()
    torch.set_num_threads(1)
    try:
        return seconds() / processes
    finally:
        torch.set_num_threads(threads)


def _images_drawn(config: RunConfig, classes: int, candidates: int) -> tuple[int, int]:
    """Synthetic images of a whole run: pools of `candidates` a class, sets, and what rejection draws beyond these. And
    how many of them the critic leads."""
    sets = classes * -(-config.evaluation.synthetic // classes)
    pools = config.rounds * classes * candidates
    several = config.evaluation.drawn * sets
    led = config.rounds * several
    drawn = pools + sets + led
    if config.evaluation.controls:
        more = max(0, pools + several - pools // config.rounds - sets)  # what rejection draws beyond a pool and a set
        drawn += more + sets + (config.sampling.lead > 0) * (several + sets)  # winners; feedback and unled
        led += several
    return drawn, led * (config.sampling.lead > 0)


def _decodings(config: RunConfig) -> float:
    """What leading an image takes beside its critics, in UNet passes: at each step but the last it is decoded, and the
    gradient comes back, which is two decodings more."""
    start, size = start_folder(config), config.data.size
    return 3 * (config.sampling.steps - 1) * decoding_flops(start, size) / read_footprint(start, size).flops


def _trainings(config: RunConfig) -> int:
    """Downstream trainings: arms of real images once, those with synthetic ones with every share."""
    evaluation, dense = config.evaluation, TASKS[config.task].dense
    controls = 2 + (evaluation.drawn > 1) + 2 * (config.sampling.lead > 0) + 2 * dense
    plain = len(real_arms(evaluation, dense=dense))
    arms = config.rounds + 1 + evaluation.controls * controls
    return evaluation.seeds * (plain + len(evaluation.mixing) * arms)


def _parameters(folder: Path) -> int:
    """Numbers in the weights of a model's parts, by the headers of their files; variants are not opened."""
    total = 0
    for path in (path for part in PARTS for path in (folder / part).glob("*.safetensors")):
        if path.name.count(".") > 1:  # such as .fp16.
            continue
        with safe_open(path, "pt") as handle:
            total += sum(math.prod(handle.get_slice(name).get_shape()) for name in handle.keys())  # noqa: SIM118
    return total


def disk_bytes(config: RunConfig, images: int, classes: int) -> int:
    """The disk a run of so many real images and classes fills at most, about: images, models in float32, and, while it
    is made, stage 1's latents and its checkpoint, which holds weights, two moments and an average."""
    dense = TASKS[config.task].dense
    drawn, _ = _images_drawn(config, classes, config.preferences.max_candidates)
    made = drawn + 2 * dense * config.evaluation.synthetic
    pixels = (images + 2 * made) * (3 + dense) * config.data.size**2
    lessons = max(LAYOUTS, images * (1 + classes)) if dense else images
    latents = lessons * encoded_bytes(start_folder(config), config.data.size)
    evaluation = config.evaluation
    recipes = (config.critic.classifier, config.critic.judge, evaluation.classifier)
    critic, judge, downstream, strong = (
        sum(p.numel() for p in architecture(one.model, dense=dense).build(classes).parameters())
        for one in (*recipes, evaluation.strong or evaluation.classifier)
    )
    start = start_folder(config)
    ranks = config.base.rank + config.rounds * config.alignment.rank
    adapters = ranks * read_footprint(start, config.data.size).adapter
    # All weights with moments and a mean, twice while the next checkpoint is written; of adapters likewise
    numbers = _parameters(start) * (1 + 8 * tunes_all(config)) + 8 * adapters
    numbers += config.critic.folds * config.critic.copies * critic + judge
    numbers += _trainings(config) * downstream + evaluation.seeds * (strong - downstream)
    return pixels + latents + 4 * numbers + 10_000_000


def memory_bytes(config: RunConfig) -> dict[str, int]:
    """The most memory that stages 1 and 3 take for the UNet, with all of a step at once, and with one image or pair."""
    shape, compute = read_footprint(start_folder(config), config.data.size), config.compute
    each = torch.finfo(precision_of(config)).bits // 8
    how = partial(shape.training, bytes_each=each, checkpointing=compute.checkpointing, eight_bit=compute.eight_bit)
    micro = compute.micro or max(config.base.batch, config.alignment.pairs)
    base, pairs = min(micro, config.base.batch), min(micro, config.alignment.pairs)
    rank = 0 if tunes_all(config) else config.base.rank
    return {
        "base": how(base, rank=rank),
        "alignment": how(2 * pairs, rank=config.alignment.rank),
        "least": how(2, rank=config.alignment.rank),
    }


def estimate(config: RunConfig) -> dict[str, Any]:
    """Stages with their work and seconds, and the disk in bytes. Reads the data's table, not the images."""
    space, frames, _ = list_frames(config.data, config.seed, config.task)
    images, classes = len(frames), len(space.asked)
    rendered = images + (config.data.phantom.oracle if config.data.source == "phantom" else 0)
    training = _seconds_per_pass(config, training=True)
    forward = _by_the_crew(config, lambda: _seconds_per_pass(config, training=False))
    alignment, evaluation, critic = config.alignment, config.evaluation, config.critic
    recipes = [critic.classifier, critic.judge, evaluation.classifier, *filter(None, [evaluation.strong])]
    of = {one.model: one for one in recipes}
    image = {name: _by_the_crew(config, partial(_seconds_per_image, config, one, classes)) for name, one in of.items()}

    def taught(recipe: ClassifierConfig | None, times: int = 1) -> float:
        return times * recipe.steps * recipe.batch * image[recipe.model] if recipe else 0.0

    drawn, led = _images_drawn(config, classes, config.preferences.candidates)
    steps = 2 * alignment.pairs * alignment.steps * (config.rounds + evaluation.controls)
    trainings = _trainings(config)
    members = critic.folds * critic.copies
    critics = members * critic.classifier.steps * critic.classifier.batch
    judge = critic.judge.steps * critic.judge.batch
    judging = (config.sampling.steps - 1) * members * image[critic.classifier.model]
    leading = _decodings(config) * forward + judging if led else 0.0
    stages = {
        "data": {"images": rendered, "seconds": 0.008 * rendered},
        "base": {
            "passes": config.base.steps * config.base.batch,
            "seconds": config.base.steps * config.base.batch * training,
        },
        "critic and judge": {
            "images": critics + judge,
            "seconds": taught(critic.classifier, members) + taught(critic.judge),
        },
        "drawing": {
            "images": drawn,
            "led": led,
            "seconds": unet_passes(drawn, config.sampling) * forward + led * leading,
        },
        "alignment": {"passes": steps, "seconds": steps * training * 4 / 3},  # the reference's passes forward, too
        "downstream": {
            "trainings": trainings,
            "seconds": taught(evaluation.classifier, trainings - evaluation.seeds * bool(evaluation.strong))
            + taught(evaluation.strong, evaluation.seeds),
        },
    }
    return {
        "stages": stages,
        "memory": memory_bytes(config),
        "seconds": sum(stage["seconds"] for stage in stages.values()),
        "disk": disk_bytes(config, images, classes),
        "classes": classes,
    }


def render_plan(plan: dict[str, Any]) -> str:
    """A plan as text."""
    lines = ["The plan (estimates for this machine; candidates up to the budget of rare classes come on top):"]
    for name, stage in plan["stages"].items():
        work = ", ".join(f"{value:,} {key}" for key, value in stage.items() if key != "seconds")
        lines.append(f"  {name:<18} {work:<24} {stage['seconds']:8.0f} s")
    lines.append(f"  {'in all':<18} {'':<24} {plan['seconds']:8.0f} s, {plan['disk'] / 1e6:,.0f} MB of disk")
    base, alignment, least = (plan["memory"][key] / 2**30 for key in ("base", "alignment", "least"))
    lines.append(
        f"  the UNet's training takes {base:.1f} GiB in stage 1 and {alignment:.1f} GiB in alignment, "
        f"{least:.1f} GiB with one pair at once (compute.micro)"
    )
    return "\n".join(lines)
