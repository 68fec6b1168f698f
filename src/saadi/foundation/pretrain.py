"""Makes the foundation: pool, autoencoder, latents, UNet and text encoder, resumably, from one command."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from saadi.config import ClassifierConfig
from saadi.critics.downstream import Labelled, train_network
from saadi.critics.tasks import TASKS
from saadi.diffusion.base import train_denoiser
from saadi.diffusion.drawing import encode_images
from saadi.diffusion.generator import Generator, build_tiny, load_generator, save_generator
from saadi.diffusion.objective import Clean
from saadi.diffusion.presets import INPAINTING_CHANNELS, LATENT_CHANNELS, STEEL_CHANNELS
from saadi.errors import BadInput
from saadi.files import versions
from saadi.foundation import PROVENANCE, backbone_path, foundation_folder
from saadi.foundation.autoencoder import HELD_OUT, set_encoder, train_decoder, train_finder
from saadi.foundation.inpainting import inpainting_lesson, set_linear_encoder, start_inpainting
from saadi.foundation.pool import TOOLS, Lesson, Pool, pretext_tools, render_pool
from saadi.records import write_atomic
from saadi.store import Begin
from saadi.training import Progress, Recipe, write_log
from saadi.worlds.pretext import pretext_prompt, world_hash

SCENES = 96_000
FINDER_STEPS = 1200
DECODER_STEPS = 2000
BACKBONE_STEPS = 3000
BATCH = 64
FOCUS = 8.0
"""The error of a cell in which the tool's tip is seen weighs this much more: that is where the class is."""


def _autoencoder(generator: Generator, folder: Path, pool: Pool, begin: Begin) -> None:
    """Give `generator` the autoencoder in `folder`, made there if need be."""
    done = folder / "vae"
    if not done.exists():
        if generator.inpaints:
            facts = set_linear_encoder(generator.vae, pool)
        else:
            finder = train_finder(pool, FINDER_STEPS, folder / "finder.safetensors", begin("finder"))
            facts = set_encoder(generator.vae, pool, finder)
        latents = cache_latents(generator, pool.images, folder / "latents.npy", begin("latents"))
        log = train_decoder(
            generator.vae,
            pool,
            lambda index: torch.from_numpy(latents[index].astype(np.float32)),
            DECODER_STEPS,
            folder / "decoder.safetensors",
            begin("decoder"),
        )
        generator.vae.save_pretrained(folder / "vae-partial")
        write_log(folder / "decoder.jsonl", [row | facts for row in log])
        (folder / "vae-partial").rename(done)
    generator.vae = AutoencoderTiny.from_pretrained(done, use_safetensors=True)


def latents_of(generator: Generator) -> str:
    """What the channels of a tiny model mean. If that has changed, a new autoencoder begins with the old decoder."""
    if generator.inpaints:
        return f"{INPAINTING_CHANNELS} principal components of {generator.cell}x{generator.cell} pixels"
    return f"{LATENT_CHANNELS} principal components, the last {STEEL_CHANNELS} with the instrument"


def train_backbone(images: NDArray[np.uint8], folder: Path, progress: Progress) -> None:
    """Train the small CNN to name the pretext world's tools on all but the last `HELD_OUT` scenes; log its accuracy."""
    path = backbone_path(folder)
    if path.exists():
        return
    labels = np.arange(len(images), dtype=np.int64) % TOOLS
    recipe = ClassifierConfig(steps=BACKBONE_STEPS, batch=64, lr=4e-3, balance=0.0)
    lesson = Labelled(images[:-HELD_OUT], labels[:-HELD_OUT])
    model = train_network(TASKS["classification"], recipe, lesson, TOOLS, 0x5AAD1, progress=progress)
    right = model.logits(np.array(images[-HELD_OUT:])).argmax(1) == labels[-HELD_OUT:]
    write_atomic(
        folder / "backbone.json", json.dumps({"steps": BACKBONE_STEPS, "held_out_accuracy": float(right.mean())})
    )
    partial = path.with_name("partial-" + path.name)
    save_file({name: tensor.contiguous() for name, tensor in model.net.state_dict().items()}, partial)
    partial.rename(path)


def cache_latents(
    generator: Generator, images: NDArray[np.uint8], path: Path, progress: Progress
) -> NDArray[np.float16]:
    """Latents [N, C, h, w] float16 of a pool, computed once and mapped from disk."""
    if not path.exists():
        first = encode_images(generator, images[:1])
        partial = path.with_name("partial-" + path.name)
        out = np.lib.format.open_memmap(partial, "w+", np.float16, (len(images), *first.shape[1:]))
        for start in range(0, len(images), 2000):
            out[start : start + 2000] = encode_images(generator, images[start : start + 2000]).numpy()
            progress(min(start + 2000, len(images)), len(images))
        out.flush()
        partial.rename(path)
    latents: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    return latents


def text_lesson(generator: Generator, pool: Pool, folder: Path, progress: Progress) -> Lesson:
    """What the UNet of text to image learns: cached latents, in which a cell counts the more the more it shows."""
    latents = cache_latents(generator, pool.images, folder / "latents.npy", progress)
    tools = pretext_tools()

    def pick(index: NDArray[np.int64], _: np.random.Generator) -> Clean:
        focus = 1 + FOCUS * torch.from_numpy(pool.visible[index].astype(np.float32) / 255)[:, None]
        return replace(Clean.whole(torch.from_numpy(latents[index].astype(np.float32))), weight=focus)

    labels = np.arange(len(latents), dtype=np.int64) % len(tools)
    return Lesson(pick, labels, [pretext_prompt(tool) for tool in tools])


def pretrain_unet(
    generator: Generator, lesson: Lesson, passes: int, checkpoint: Path, seed: int, progress: Progress | None = None
) -> list[dict[str, float]]:
    """Train a UNet for `passes` image passes at a constant rate, averaging the weights; the rest as `train_denoiser`.

    The text encoder stays as it is, as Stable Diffusion's does: its random features tell the names apart, and trained
    along, it let them run together, since at first no name helps. Stage 1 trains both.

    A constant rate has no planned end: any sitting can go on where the last one stopped, with a larger `passes`.
    """
    generator.text_encoder.requires_grad_(False)
    steps = passes // BATCH
    return train_denoiser(
        generator,
        lesson.images,
        lesson.labels,
        lesson.prompts,
        Recipe(steps=steps, lr=1e-3, warmup=min(0.05, 200 / steps), floor=1.0, ema=0.999, weight_decay=0.01),
        batch=BATCH,
        balance=0.0,
        seed=seed,
        checkpoint=checkpoint,
        every=100,
        progress=progress,
    )


def export(generator: Generator, folder: Path, out: Path, facts: dict[str, Any]) -> None:
    """Write the weights in half precision (the text encoder in full: transformers would keep it half), with origin."""
    save_generator(generator, out)
    for part in ("unet", "vae"):
        path = out / part / "diffusion_pytorch_model.safetensors"
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    if not generator.inpaints:
        shutil.copy(backbone_path(folder), backbone_path(out))
        facts |= {"backbone": json.loads((folder / "backbone.json").read_text(encoding="utf-8"))}
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)
    facts |= {
        "scenes": SCENES,
        "world": world_hash(pretext_tools()),
        "classes": TOOLS,
        "latents": latents_of(generator),
        "decoder": json.loads((folder / "decoder.jsonl").read_text(encoding="utf-8").splitlines()[-1]),
        "commit": _commit(),
        "versions": versions(),
    }
    write_atomic(out / PROVENANCE, json.dumps(facts, indent=1) + "\n")


def _commit() -> str | None:
    """The commit of the checkout this runs from; None for an installed package."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def _shipped(folder: Path, *, inpainting: bool) -> tuple[Generator, dict[str, Any]]:
    """A shipped foundation and its provenance, its autoencoder and backbone laid into `folder` as if made there."""
    shipped = foundation_folder(inpainting=inpainting)
    provenance = json.loads((shipped / PROVENANCE).read_text(encoding="utf-8"))
    generator, fresh = load_generator(shipped), build_tiny(inpainting=inpainting)
    if generator.tokenizer.get_vocab() != fresh.tokenizer.get_vocab():
        # The prompts have changed since: what hears them begins anew.
        generator.tokenizer, generator.text_encoder = fresh.tokenizer, fresh.text_encoder
        generator.unet.add_embedding = fresh.unet.add_embedding
    if not inpainting and not backbone_path(folder).exists():
        shutil.copy(backbone_path(shipped), backbone_path(folder))
        write_atomic(folder / "backbone.json", json.dumps(provenance["backbone"]))
    if provenance.get("latents") == latents_of(fresh) and not (folder / "vae").exists():
        generator.vae.save_pretrained(folder / "vae")
        write_log(folder / "decoder.jsonl", [provenance["decoder"]])
    return generator, provenance


def pretrain(
    work: Path,
    out: Path,
    passes: int,
    begin: Begin,
    *,
    inpainting: bool = False,
    from_shipped: bool = False,
    compiled: bool = False,
) -> None:
    """Make a whole foundation in `work` and export it to `out`; run again with more `passes` to go on.

    The `inpainting` twin learns from the same pool, and starts from the shipped foundation of text to image.
    `from_shipped` begins with the installed weights, whose passes count towards `passes`: for going on where the caches
    of an earlier sitting are lost, with the optimiser's state. `compiled` has torch.compile fuse the UNet, which
    asks for a C++ compiler and two minutes and saves a few per cent. Raises `BadInput` if nothing is left to do.
    """
    folder = work / "inpainting" if inpainting else work
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0x5AAD1)
    origin: dict[str, Any] = {}
    if from_shipped:
        generator, earlier = _shipped(folder, inpainting=inpainting)
        origin = {"inherited": earlier["inherited"]} if inpainting else {}
    else:
        earlier = {}
        generator = build_tiny()
        if inpainting:
            generator, inherited = start_inpainting()
            origin = {"inherited": inherited}
    before = int(earlier.get("passes", 0))
    if passes <= before:
        raise BadInput(f"--passes {passes}: the shipped foundation has seen {before} already; ask for more")
    pool = render_pool(work, SCENES, begin("pool"))
    _autoencoder(generator, folder, pool, begin)
    if inpainting:
        lesson = inpainting_lesson(generator, pool, folder, begin("layouts"))
    else:
        train_backbone(pool.images, folder, begin("backbone"))
        lesson = text_lesson(generator, pool, folder, begin("latents"))
    if compiled:
        generator.unet.compile()
    else:
        generator.unet.to(memory_format=torch.channels_last)
    checkpoint = folder / (f"unet-from-{before}.safetensors" if before else "unet.safetensors")
    log = pretrain_unet(generator, lesson, passes - before, checkpoint, 0x5AAD1 + before, begin("unet"))
    options = " --inpainting" * inpainting + " --from-shipped" * from_shipped
    command = f"saadi foundation --work DIR --passes {passes}{options}"
    rows = log[:: max(1, len(log) // 40)]
    loss = [[before + int(row["step"]) * BATCH, round(row["loss"], 5)] for row in rows]
    history = (
        [*earlier.get("history", []), {k: earlier[k] for k in ("command", "commit", "passes", "loss")}]
        if before
        else []
    )
    facts = {"command": command, "passes": passes, "began_at": before, "loss": loss, "history": history}
    export(generator, folder, out, facts | origin)
