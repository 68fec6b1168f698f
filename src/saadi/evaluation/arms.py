"""Stage 4: the ways of using images that are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from saadi.config import EvaluationConfig
from saadi.records import Sample


@dataclass(frozen=True)
class Arm:
    """One way of using images. `generated`: images drawn to get the set, with pools; `passes`: UNet passes behind it.

    `inputs`: the stages the set came from. `recipe`: how its trainings differ from `evaluation.classifier`.
    """

    name: str
    samples: tuple[Sample, ...] = ()
    generated: int = 0
    passes: int = 0
    inputs: tuple[str, ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)


RIVALS: dict[str, dict[str, Any]] = {
    "randaugment": {"augment": "randaugment"},
    "mixup": {"mix": "mixup"},
    "cutmix": {"mix": "cutmix"},
}
"""By the names of `evaluation.rivals` that need no diffusion model, how their trainings differ."""


def real_arms(config: EvaluationConfig, *, dense: bool) -> list[Arm]:
    """`real`, and what else can be had without a synthetic image: what the configuration names, and two that are always
    there.

    The pretext world's backbone, or none where all arms start from it: the generator has seen that world, so a
    classifier that has not is at a disadvantage no synthetic image should be praised for making up. And, where the arms
    do without, full augmentation.
    """
    kind, classifier = "unet" if dense else "cnn", config.classifier
    arms = [Arm("real")]
    if classifier.augment != "full":
        arms.append(Arm("real-augmented", recipe={"augment": "full"}))
    arms += [Arm(f"real-{name}", recipe=RIVALS[name]) for name in config.rivals]
    if config.strong:
        arms.append(Arm("real-strong", recipe=config.strong.model_dump()))
    if classifier.model == f"pretext-{kind}":
        return [*arms, Arm("real-scratch", recipe={"model": f"small-{kind}"})]
    return [*arms, Arm("real-pretrained", recipe={"model": f"pretext-{kind}"})]
