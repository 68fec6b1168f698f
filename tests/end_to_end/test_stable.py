"""Stable Diffusion in its four forms through every stage, on stand-ins of its true module classes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import Command, call, read_json, write_table
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from segmented import write
from small_stable import FORMS, clip_tokenizer, save_stable
from torch import Tensor

from saadi.alignment.objectives import Errors, dpo
from saadi.alignment.pairs import PairBatch
from saadi.alignment.train import bank_errors, make_bank
from saadi.configfile import parse_config
from saadi.data.stages import prepare_data
from saadi.diffusion.generator import load_generator
from saadi.diffusion.lora import NAME, add_adapter
from saadi.diffusion.objective import Clean
from saadi.diffusion.stages import train_base
from saadi.store import Run

SETTINGS: dict[str, Any] = {
    "threads": 1,
    "device": "cpu",
    "rounds": 2,
    "patience": 0,
    "data": {"size": 64},
    "base": {"steps": 3, "batch": 2, "rank": 4, "lr": 0.01},
    "sampling": {"steps": 2, "batch": 8},
    "critic": {"classifier": {"steps": 8, "batch": 4}, "judge": {"steps": 2, "batch": 4}, "folds": 2},
    "preferences": {"candidates": 8, "max_candidates": 8, "pairs": 4, "margin": 0.0},
    "alignment": {"steps": 3, "pairs": 2, "anchors": 2, "bank": 1, "rank": 2, "lr": 0.01, "stop_rise": 10.0},
    "evaluation": {"classifier": {"steps": 2, "batch": 4}, "seeds": 1, "synthetic": 8, "mixing": [0.5], "bootstrap": 9},
}
MASKED: dict[str, Any] = {
    "task": "segmentation",
    "layouts": {"moved": 0.0},  # where classes always are, so that a critic that has learnt this finds some right
    "critic": {
        "classifier": {"model": "small-unet", "steps": 60, "batch": 4, "lr": 0.01},
        "judge": {"model": "smp:FPN:resnet18", "steps": 2, "batch": 4},
        "folds": 2,
    },
}


@dataclass(frozen=True)
class Ran:
    """A finished run, and the model it started from."""

    form: str
    start: Path
    folder: Path

    def pipe(self, folder: Path) -> StableDiffusionPipeline | StableDiffusionInpaintPipeline:
        """A stock pipeline from a folder."""
        kind = StableDiffusionInpaintPipeline if self.form.endswith("inpainting") else StableDiffusionPipeline
        pipe = kind.from_pretrained(folder, use_safetensors=True, local_files_only=True, safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def drawn(self, pipe: StableDiffusionPipeline | StableDiffusionInpaintPipeline) -> NDArray[np.float32]:
        """One image of a stock pipeline."""
        given: dict[str, Any] = {}
        if self.form.endswith("inpainting"):
            mask = Image.new("L", (64, 64))
            mask.paste(255, (16, 16, 48, 48))
            given = {"image": Image.new("RGB", (64, 64), "red"), "mask_image": mask}
        rng = torch.Generator().manual_seed(3)
        out: NDArray[np.float32] = pipe(
            "a laparoscopic image of a hook", num_inference_steps=2, guidance_scale=2.0, generator=rng,
            output_type="np", height=64, width=64, **given,
        ).images  # fmt: skip
        return out


@pytest.fixture(scope="module", params=FORMS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    form: str = request.param
    place = tmp_path_factory.mktemp(form)
    start, masked = save_stable(form, place / "start"), form.endswith("inpainting")
    data = write(place / "data", each=6) if masked else write_table(place / "data")
    values = {**SETTINGS, **(MASKED if masked else {})}
    values["data"] = {**values["data"], "path": str(data)}
    values["base"] = {**values["base"], "model": str(start)}
    values["compute"] = {"precision": "bf16", "micro": 1, "checkpointing": True} if form == "sd-2.1" else {}
    if masked:
        values["preferences"] = {**values["preferences"], "criterion": "region-dice"}
        values["evaluation"] = {**values["evaluation"], "classifier": {"model": "small-unet", "steps": 2, "batch": 4}}
    config = place / "config.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    outcome = call("run", config, "--out", place / "run", "--final")
    assert outcome.code == 0, outcome.err
    return Ran(form, start, place / "run")


def test_every_stage_runs_and_the_adapters_learn(ran: Ran) -> None:
    assert (
        read_json(ran.folder / "base/model/unet/config.json")["sample_size"] == 8
    )  # the run's, not what it was made for
    results = read_json(ran.folder / "results.json")
    assert {"real", "unaligned", "rejection", "winners", "round-1", "round-2"} <= set(results["arms"])
    assert (ran.folder / "report.html").is_file()
    for stage in ("base/adapter", "round-1/adapter", "round-2/adapter", "winners/adapter"):
        with safe_open(ran.folder / stage / "pytorch_lora_weights.safetensors", "pt") as handle:
            outer = [handle.get_tensor(name) for name in handle.keys() if "lora_B" in name]  # noqa: SIM118
            assert "lora_alpha" in str(handle.metadata())
        assert outer, stage
        assert max(float(one.abs().max()) for one in outer) > 0, stage
        assert {one.dtype for one in outer} == {torch.float32}


def test_stage_1_is_the_start_with_its_adapter_and_stock_diffusers_agrees(ran: Ran) -> None:
    ours = ran.drawn(ran.pipe(ran.folder / "base/model"))
    theirs = ran.pipe(ran.start)
    plain = ran.drawn(theirs)
    theirs.load_lora_weights(ran.folder / "base/adapter", use_safetensors=True)
    assert np.abs(ran.drawn(theirs) - ours).max() < 2e-3
    assert np.abs(plain - ours).max() > 1e-2


def test_stage_3_switched_off_is_stage_1_to_the_bit(ran: Ran) -> None:
    pipe = ran.pipe(ran.folder / "base/model")
    stage_1 = ran.drawn(pipe)
    pipe.load_lora_weights(ran.folder / "round-1/adapter", adapter_name=NAME, use_safetensors=True)
    assert np.abs(ran.drawn(pipe) - stage_1).max() > 1e-4
    pipe.disable_lora()
    np.testing.assert_array_equal(ran.drawn(pipe), stage_1)
    pipe.unload_lora_weights()
    np.testing.assert_array_equal(ran.drawn(pipe), stage_1)


@pytest.mark.parametrize(("tune", "precision"), [("full", "fp32"), ("lora", "fp16")])
def test_stage_1_may_train_all_weights_and_compute_in_fp16(tune: str, precision: str, tmp_path: Path) -> None:
    start, folder = save_stable("sd-1.5", tmp_path / "start"), tmp_path / "run"
    values = {
        **SETTINGS,
        "data": {**SETTINGS["data"], "path": str(write_table(tmp_path / "data"))},
        "base": {**SETTINGS["base"], "steps": 2, "model": str(start), "tune": tune},
        "compute": {"precision": precision},
    }
    with Run(folder, parse_config(values, "a test")) as run:
        train_base(run, prepare_data(run))
    before, after = load_generator(start), load_generator(folder / "base/model")
    for part, learns in (("unet", True), ("text_encoder", tune == "full"), ("vae", False)):
        old, new = (getattr(one, part).state_dict() for one in (before, after))
        assert all(bool(value.isfinite().all()) for value in new.values())
        assert any(not torch.equal(old[name], value) for name, value in new.items()) == learns, part
    assert (folder / "base/adapter").exists() == (tune == "lora")
    assert {p.dtype for p in after.unet.parameters()} == {torch.float32}


def _plain_dpo(
    policy: torch.nn.Module, reference: torch.nn.Module, alpha_bar: Tensor, prediction: str, pairs: PairBatch,
    noises: Tensor, timesteps: Tensor, beta: float,
) -> Tensor:  # fmt: skip
    """Equation 14 of Diffusion-DPO, pair by pair and image by image, as one would write it down."""
    total = torch.zeros(())
    for i in range(len(pairs)):
        a = alpha_bar[timesteps[i]].sqrt()
        s = (1 - alpha_bar[timesteps[i]]).sqrt()
        errors = {}
        for name, side, embedding in (
            ("w", pairs.winner, pairs.embedding), ("l", pairs.loser, pairs.loser_embedding)
        ):  # fmt: skip
            x = a * side.latents[i : i + 1] + s * noises[i : i + 1]
            seen = torch.cat([x, side.given[i : i + 1]], 1)
            for who, net in (("theta", policy), ("ref", reference)):
                out = net(seen, timesteps[i : i + 1], embedding[i : i + 1]).sample
                epsilon = out if prediction == "epsilon" else a * out + s * x
                errors[name, who] = ((noises[i : i + 1] - epsilon) ** 2).sum()
        inside = (errors["w", "theta"] - errors["w", "ref"]) - (errors["l", "theta"] - errors["l", "ref"])
        total = total - torch.log(torch.sigmoid(-beta * inside))
    return total / len(pairs)


@pytest.mark.parametrize("form", FORMS)
def test_a_step_equals_the_plain_equation(form: str, tmp_path: Path) -> None:
    generator = load_generator(save_stable(form, tmp_path / form))
    generator.unet.eval()
    rng = torch.Generator().manual_seed(1)

    def side() -> Clean:
        whole = Clean.whole(torch.randn(3, 4, 8, 8, generator=rng))
        given = torch.randn(3, generator.unet.config.in_channels - 4, 8, 8, generator=rng)
        return Clean(whole.latents, given, whole.weight)

    embedding = torch.randn(3, 77, 32, generator=rng)
    pairs = PairBatch(side(), side(), embedding, embedding)
    reference = deepcopy(generator.unet)
    schedule, beta = generator.schedule, 0.05
    bank = make_bank(reference, schedule, pairs, 2, seed=5)
    add_adapter(generator.unet, 2, seed=1)
    learns = [p for p in generator.unet.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in learns:
            p.add_(0.05 * torch.randn(p.shape, generator=rng))
    p, k = torch.arange(3), torch.tensor([0, 1, 0])
    errors: Errors = bank_errors(generator.unet, schedule, pairs, bank, p, k)
    ours = dpo(errors, beta).mean()
    gradients = torch.autograd.grad(ours, learns)
    plain = _plain_dpo(
        generator.unet, reference, schedule.alpha_bar, schedule.prediction, pairs,
        bank.noise(p, k, pairs.winner.latents.shape[1:]), bank.timesteps[p, k], beta,
    )  # fmt: skip
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    for found, expected in zip(gradients, torch.autograd.grad(plain, learns), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-4)
    assert max(float(one.abs().max()) for one in gradients) > 1e-2


def test_clips_true_vocabulary_spells_class_names_apart() -> None:
    tokenizer = clip_tokenizer()
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    names = ("hook", "bipolar forceps", "L-hook electrocautery", "clipper", "irrigator")
    assert len({tuple(tokenizer(name).input_ids) for name in names}) == len(names)


def test_a_model_that_was_not_fetched_is_refused(
    saadi: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_table(tmp_path / "data")
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump({"data": {"path": str(data)}, "critic": {"folds": 2}, "base": {"model": "hub:nobody/nothing"}}),
        encoding="utf-8",
    )
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    saadi("run", config, "--out", tmp_path / "run").refused("hub:nobody/nothing", "saadi fetch nobody/nothing")
