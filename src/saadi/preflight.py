"""What can be known to be wrong before long work begins: one line each, and nothing written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from saadi.alignment.objectives import OBJECTIVES
from saadi.config import RunConfig
from saadi.critics.architectures import architecture
from saadi.data.load import list_frames
from saadi.diffusion.base import prompt_table
from saadi.diffusion.stages import open_start, prompts_of
from saadi.errors import BadInput
from saadi.evaluation.fidelity import NEIGHBOURS
from saadi.foundation import foundation_folder
from saadi.plan import disk_bytes
from saadi.preferences import CRITERIA
from saadi.records import Frame, LabelSpace
from saadi.runtime import device_of
from saadi.store import MANIFEST

PREDICTIONS = ("epsilon", "v_prediction")


def preflight(config: RunConfig, folder: Path) -> None:
    """Check everything that a run of `config` in `folder` needs, short of opening the images.

    Data and base model are left out where the base is finished: resuming needs them no more. Raises `BadInput`.
    """
    _known("preferences.criterion", config.preferences.criterion, CRITERIA)
    _known("alignment.objective", config.alignment.objective, OBJECTIVES)
    device_of(config)
    foundation_folder()
    models = {
        "critic.classifier": config.critic.classifier.model,
        "critic.judge": config.critic.judge.model,
        "evaluation.classifier": config.evaluation.classifier.model,
    }
    for model in dict.fromkeys(models.values()):
        where = next(key for key, name in models.items() if name == model)
        _check_classifier(f"{where}.model", model, config.data.size)
    _check_judge(models)
    _check_mixing(config)
    if (folder / "base" / MANIFEST).is_file():
        return
    space, frames, _ = list_frames(config.data, config.seed)
    _check_folds(config, frames)
    _check_enough(config, frames, len(space))
    _check_base(config, space)
    _check_place(folder, disk_bytes(config, len(frames), len(space)))


def _check_judge(models: Mapping[str, str]) -> None:
    """The judge reports on what the critic chose, so it must see with other eyes."""
    family = {"pretext-cnn": "small-cnn"}
    judge, critic = (models[key] for key in ("critic.judge", "critic.classifier"))
    if family.get(judge, judge) == family.get(critic, critic):
        raise BadInput(
            f"critic.judge.model: {judge} is of the critic's architecture ({critic}); "
            "choose another, such as test_resnet"
        )


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
        raise BadInput(f"{field}: unknown {name!r}; one of {', '.join(sorted(registry))}")


def _check_classifier(field: str, name: str, size: int) -> None:
    """Build a downstream model for two classes and show it two images of the run's size."""
    try:
        with torch.no_grad():
            logits = architecture(name).build(2).eval()(torch.zeros(2, 3, size, size))
    except BadInput as error:
        raise BadInput(f"{field}: {error}") from None
    except Exception as error:  # whatever somebody else's code raises, it is the setting that has to change
        raise BadInput(
            f"{field}: {name} fails on images of {size} px: {type(error).__name__}: {error}; choose another model"
        ) from None
    if tuple(logits.shape) != (2, 2):
        raise BadInput(f"{field}: {name} made for 2 classes gives {list(logits.shape)} for 2 images, not [2, 2]")


def _check_folds(config: RunConfig, frames: list[Frame]) -> None:
    groups = {frame.group for frame in frames if frame.split == "train"}
    if config.critic.folds > len(groups):
        raise BadInput(f"critic.folds: {config.critic.folds} folds of {len(groups)} training groups; set it lower")


def _check_enough(config: RunConfig, frames: list[Frame], classes: int) -> None:
    """Images enough to be compared by their nearest neighbours."""
    least = NEIGHBOURS + 1
    val = sum(frame.split == "val" for frame in frames)
    if val < least:
        raise BadInput(f"data: {val} images in val; {least} or more are needed to compare synthetic images with")
    if classes * -(-config.evaluation.synthetic // classes) < least:
        raise BadInput(f"evaluation.synthetic: {config.evaluation.synthetic}; {least} or more are needed")


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


def _check_base(config: RunConfig, space: LabelSpace) -> None:
    """Open the start model, and see that it tells the prompts apart and knows the settings of sampling."""
    if config.base.from_scratch and config.base.model != "tiny":
        raise BadInput(f"base.from_scratch: is for tiny only, and base.model is {config.base.model}; unset one of them")
    generator = open_start(config, space.names)
    prompt_table(generator, prompts_of(config, space))
    total, kind = len(generator.schedule.alpha_bar), generator.schedule.prediction
    if config.sampling.steps > total:
        raise BadInput(f"sampling.steps: {config.sampling.steps}, but the model's schedule has {total} steps")
    if kind not in PREDICTIONS:
        raise BadInput(f"{config.base.model}: predicts {kind}; use a model that predicts {' or '.join(PREDICTIONS)}")
