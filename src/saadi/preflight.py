"""What can be known to be wrong before long work begins: one line each, and nothing written."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from saadi.alignment.objectives import OBJECTIVES
from saadi.config import RunConfig
from saadi.critics.architectures import architecture, penultimate
from saadi.critics.tasks import TASKS
from saadi.data.load import list_frames
from saadi.diffusion.base import prompt_table
from saadi.diffusion.lessons import prompt_of
from saadi.diffusion.stages import open_start
from saadi.errors import BadInput
from saadi.evaluation.fidelity import NEIGHBOURS
from saadi.foundation import foundation_folder
from saadi.manifests import MANIFEST, check_folder
from saadi.pairing import PAIRINGS
from saadi.penalties import PENALTIES
from saadi.plan import disk_bytes
from saadi.preferences import CRITERIA, taken_for
from saadi.records import Frame, LabelSpace
from saadi.runtime import device_of
from saadi.tracking import check_trackers
from saadi.training import eight_bit_adamw
from saadi.workers import crew_size

PREDICTIONS = ("epsilon", "v_prediction")


def preflight(config: RunConfig, folder: Path, redo: Sequence[str] = ()) -> None:
    """Check everything that a run of `config` in `folder` needs, short of opening the images and of locking the folder.

    Data and base model are left out where the base is finished: resuming needs them no more. Raises `BadInput`.
    """
    check_settings(config)
    check_folder(folder, config, redo)
    if (folder / "base" / MANIFEST).is_file():
        return
    space, frames, _ = list_frames(config.data, config.seed, config.task)
    held = [frame.split for frame in frames]
    groups = {frame.group for frame in frames if frame.split == "train"}
    for problem in too_few(config, len(groups), held.count("val"), len(space.asked)):
        raise BadInput(problem)
    _check_base(config, space, frames)
    _check_place(folder, disk_bytes(config, len(frames), len(space.asked)))


def check_settings(config: RunConfig) -> None:
    """Check what holds of a configuration whatever its data and its folder are. Raises `BadInput`."""
    _check_preferences(config)
    _known("alignment.objective", config.alignment.objective, OBJECTIVES)
    device_of(config)
    check_trackers(config)
    if config.compute.eight_bit:
        eight_bit_adamw()
    foundation_folder()
    models = check_models(config)
    _check_gradients(config)
    _check_lead(config)
    _check_variations(config)
    _check_judge(models)
    _check_mixing(config)


def check_models(config: RunConfig) -> dict[str, str]:
    """Build every downstream model that `config` names, and give their names by section. Raises `BadInput`."""
    models = {
        "critic.classifier": config.critic.classifier.model,
        "critic.judge": config.critic.judge.model,
        "evaluation.classifier": config.evaluation.classifier.model,
    }
    if config.evaluation.strong:
        models["evaluation.strong"] = config.evaluation.strong.model
    for model in dict.fromkeys(models.values()):
        where = next(key for key, name in models.items() if name == model)
        _check_network(f"{where}.model", model, config.data.size, dense=TASKS[config.task].dense)
    return models


def _check_judge(models: Mapping[str, str]) -> None:
    """The judge reports on what the critic chose, so it must see with other eyes."""
    family = {"pretext-cnn": "small-cnn", "pretext-unet": "small-unet"}
    judge, critic = (models[key] for key in ("critic.judge", "critic.classifier"))
    if family.get(judge, judge) == family.get(critic, critic):
        raise BadInput(
            f"critic.judge.model: {judge} is of the critic's architecture ({critic}); "
            f"choose another, such as {'smp:FPN:resnet18' if 'unet' in critic else 'test_resnet'}"
        )


def _check_lead(config: RunConfig) -> None:
    """The critic is shown the clean image that a solver expects, and only one keeps it."""
    if config.sampling.lead and config.sampling.solver != "dpm++":
        raise BadInput(f"sampling.lead: needs sampling.solver dpm++, not {config.sampling.solver}; or set it to 0")


def _check_variations(config: RunConfig) -> None:
    """Ways of varying training images that fit the task: some move no mask along, and sets of classes do not mix."""
    if config.task == "classification":
        return
    parts = {
        "critic.classifier": config.critic.classifier,
        "critic.judge": config.critic.judge,
        "evaluation.classifier": config.evaluation.classifier,
        "evaluation.strong": config.evaluation.strong or config.evaluation.classifier,
    }
    for where, part in parts.items():
        if part.augment == "randaugment" and TASKS[config.task].dense:
            raise BadInput(f"{where}.augment: randaugment moves no masks along; for {config.task}: full or mirror")
        if part.mix != "none":
            raise BadInput(f"{where}.mix: {part.mix} is for classification; for {config.task}: none")
    for rival in config.evaluation.rivals:
        if rival != "randaugment" or TASKS[config.task].dense:
            raise BadInput(f"evaluation.rivals: {rival} is not for {config.task}; leave it out")


def _check_mixing(config: RunConfig) -> None:
    """Every share of a batch leaves at least one synthetic and one real image in it."""
    batch = config.evaluation.classifier.batch
    for share in config.evaluation.mixing:
        if not 1 <= round(batch * share) < batch:
            raise BadInput(
                f"evaluation.mixing: {share:g} of a batch of {batch} is {round(batch * share)} synthetic images; "
                f"choose between {1 / batch:g} and {1 - 1 / batch:g}"
            )


def _known(field: str, name: str, registry: Mapping[str, object]) -> None:
    if name not in registry:
        near = difflib.get_close_matches(name, registry, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(registry))}"
        raise BadInput(f"{field}: unknown {name!r}; {hint}")


def _check_preferences(config: RunConfig) -> None:
    """Penalties and a rule of pairing that exist, and a criterion of the task."""
    for name in config.preferences.penalties:
        _known("preferences.penalties", name, PENALTIES)
    _known("preferences.pairing", config.preferences.pairing, PAIRINGS)
    name = config.preferences.criterion
    _known("preferences.criterion", name, CRITERIA)
    if CRITERIA[name].task != config.task:
        fitting = ", ".join(sorted(key for key, one in CRITERIA.items() if one.task == config.task))
        raise BadInput(f"preferences.criterion: {name} is for {CRITERIA[name].task}; for {config.task}: {fitting}")
    home = CRITERIA[name].values.__module__
    if crew_size(config) and not home.startswith("saadi."):
        raise BadInput(f"preferences.criterion: {name}: worker processes do not import {home}; set threads: 1")


def _check_gradients(config: RunConfig) -> None:
    """For a criterion of gradients: one member of a fold, with a last layer that is known."""
    name, critic = config.preferences.criterion, config.critic
    if not CRITERIA[name].gradients:
        return
    if critic.copies > 1:
        raise BadInput(f"critic.copies: {critic.copies}; {name} is of one member's last layer: set it to 1")
    made = architecture(critic.classifier.model)
    try:
        with torch.no_grad():
            penultimate(made.build(2).eval(), made.prepared(torch.zeros(2, 3, config.data.size, config.data.size)))
    except BadInput as error:
        raise BadInput(f"preferences.criterion: {name}: {critic.classifier.model}: {error}") from None


def _check_network(field: str, name: str, size: int, *, dense: bool) -> None:
    """Build a downstream model for two classes and show it two images of the run's size."""
    try:
        made = architecture(name, dense=dense)
        with torch.no_grad():
            logits = made.build(2).eval()(made.prepared(torch.zeros(2, 3, size, size)))
    except BadInput as error:
        raise BadInput(f"{field}: {error}") from None
    except Exception as error:  # whatever somebody else's code raises, it is the setting that has to change
        raise BadInput(
            f"{field}: {name} fails on images of {size} px: {type(error).__name__}: {error}; choose another model"
        ) from None
    wanted = (2, 2, size, size) if dense else (2, 2)
    if tuple(logits.shape) != wanted:
        found = f"{name} made for 2 classes gives {list(logits.shape)} for 2 images"
        raise BadInput(f"{field}: {found}, not {list(wanted)}")


def _known_things(config: RunConfig, space: LabelSpace) -> None:
    """The classes that may be moved are classes."""
    for name in config.layouts.things if config.task == "segmentation" else ():
        if name not in space.asked:
            raise BadInput(f"layouts.things: unknown class {name!r}; one of {', '.join(space.asked)}")


def too_few(config: RunConfig, groups: int, val: int, classes: int) -> list[str]:
    """Why a run with these settings wants more training groups, images in val or synthetic images, one line each."""
    least, problems = NEIGHBOURS + 1, list[str]()
    if config.critic.folds > groups:
        problems.append(f"critic.folds: {config.critic.folds} folds of {groups} training groups; set it lower")
    if val < least:
        problems.append(f"data: {val} images in val; {least} or more are needed to compare synthetic images with")
    if classes and classes * -(-config.evaluation.synthetic // classes) < least:
        problems.append(f"evaluation.synthetic: {config.evaluation.synthetic}; {least} or more are needed")
    return problems


def _check_place(folder: Path, need: int) -> None:
    """Permission to write and free space, where the run's folder is or will be."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        raise BadInput(f"{folder}: no permission to write in {place}; choose another folder with --out")
    free = shutil.disk_usage(place).free
    if free < need:
        raise BadInput(
            f"{folder}: the disk has {free / 1e6:,.0f} MB free, about {need / 1e6:,.0f} MB are needed; "
            "free some, or choose another folder with --out"
        )


def _prompts(config: RunConfig, space: LabelSpace, frames: Sequence[Frame]) -> list[str]:
    """All that a run tells its model: single classes; of presence, the sets that train or val shows, and as these may
    be taken for."""
    sets: list[tuple[str, ...]] = [(name,) for name in space.names]
    if config.task == "presence":
        shown = {frame.labels for frame in frames if frame.split != "test"}
        taken = {taken_for(config.task, labels, rival) for labels in shown for rival in space.asked}
        sets = sorted({tuple(sorted(labels)) for labels in shown | taken})
    return [prompt_of(config, labels) for labels in sets]


def _check_base(config: RunConfig, space: LabelSpace, frames: Sequence[Frame]) -> None:
    """Open the start model, and see that it tells the prompts apart and knows the settings of sampling."""
    if config.base.from_scratch and config.base.model != "tiny":
        raise BadInput(f"base.from_scratch: is for tiny only, and base.model is {config.base.model}; unset one of them")
    generator = open_start(config, space.names)
    if generator.inpaints != (config.task == "segmentation"):
        kind = "an inpainting" if generator.inpaints else "a text-to-image"
        raise BadInput(
            f"base.model: {config.base.model} is {kind} model; segmentation paints masks into frames and needs one of "
            "nine input channels, the other tasks need one of text to image"
        )
    _known_things(config, space)
    prompt_table(generator, _prompts(config, space, frames))
    total, kind = len(generator.schedule.alpha_bar), generator.schedule.prediction
    if int(config.sampling.steps * config.sampling.strength) < 1:
        short = f"{config.sampling.strength:g} leaves none of {config.sampling.steps} steps"
        raise BadInput(f"sampling.strength: {short}; raise it or sampling.steps")
    if config.sampling.steps > total:
        raise BadInput(f"sampling.steps: {config.sampling.steps}, but the model's schedule has {total} steps")
    if kind not in PREDICTIONS:
        raise BadInput(f"{config.base.model}: predicts {kind}; use a model that predicts {' or '.join(PREDICTIONS)}")
