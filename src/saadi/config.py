"""Everything a run depends on: frozen models, every field documented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from saadi.imageconfig import Count, DataConfig, Fraction, LayoutConfig, Part, Positive
from saadi.records import Task

LABEL = "{label}"
"""What stands for the class name in `base.prompt`."""


class ComputeConfig(Part):
    """How a diffusion model is computed. Between these settings results differ by rounding alone; of `kto`, whose
    reference point is of the pairs computed at once, by more."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of weights that do not learn; adapters, errors and what else learns are fp32. auto: fp32 on a "
        "CPU, bf16 on a GPU that has it, else fp16",
    )
    micro: int = Field(
        0, ge=0, description="images, or pairs, of a training step computed at once; 0: as many as the memory holds"
    )
    checkpointing: bool = Field(
        False, description="compute activations a second time rather than keep them: slower, in far less memory"
    )
    eight_bit: bool = Field(False, description="AdamW with 8-bit moments, by bitsandbytes, which has to be installed")


class BaseConfig(Part):
    """Stage 1: the diffusion model that is aligned."""

    model: str = Field(
        "tiny", description="tiny, a folder in Stable Diffusion's format, or hub:OWNER/NAME once `saadi fetch` got it"
    )
    tune: Literal["auto", "lora", "full"] = Field(
        "auto",
        description="what stage 1 trains: an adapter of the UNet, or all of UNet and text encoder; auto: all of tiny, "
        "an adapter of others",
    )
    rank: Count = Field(32, description="rank of stage 1's adapter; alpha equals it")
    from_scratch: bool = Field(
        False, description="tiny only: start from random weights, not from the shipped foundation"
    )
    steps: int = Field(300, ge=0, description="optimiser steps of fine-tuning on the real images")
    batch: Count = Field(32, description="images a step")
    lr: Positive = Field(1e-3, description="peak learning rate; cosine decay")
    balance: Fraction = Field(1.0, description="0: classes as frequent as in the data; 1: equally frequent")
    prompt: str = Field("a laparoscopic image of a {label}", description="the prompt; {label} is replaced by the class")

    @field_validator("prompt")
    @classmethod
    def _names_the_class(cls, prompt: str) -> str:
        if LABEL not in prompt:
            raise ValueError(f"must hold {LABEL}, in whose place the class name is put")
        return prompt


class SamplingConfig(Part):
    """How images are drawn, in every stage."""

    steps: Count = Field(12, description="solver steps")
    guidance: float = Field(1.5, ge=1.0, description="classifier-free guidance; 1 is off and halves the cost")
    solver: Literal["dpm++", "ddim"] = Field("dpm++", description="DPM-Solver++ 2M or DDIM")
    batch: Count = Field(32, description="images sampled together; fixed, since results depend on it in the last bit")
    strength: Positive = Field(
        1.0, le=1.0, description="1: images start from noise; less: from training images, noised to this share of the "
        "schedule: of the class, or for segmentation with objects pasted where the mask has them",
    )  # fmt: skip
    lead: float = Field(
        0.1, ge=0.0, description="how far the critic leads each solver step of what is drawn of an aligned model for "
        "others to learn from, in units of the noise left (arXiv:2310.00158); 0: not at all. Of segmentation 0.03 by "
        "default, of presence 0. A critic of few real images may lead astray: try 0 on val, too",
    )  # fmt: skip


class ClassifierConfig(Part):
    """A downstream model and how it is trained."""

    model: str = Field(
        "small-cnn",
        description="small-cnn, pretext-cnn, a timm name, a timm checkpoint folder, or package.module:factory; of "
        "segmentation small-unet (its default), pretext-unet, smp:ARCHITECTURE:ENCODER, a folder or a factory",
    )
    steps: Count = Field(300, description="optimiser steps")
    batch: Count = Field(32, description="images a step")
    lr: Positive = Field(3e-3, description="peak learning rate; one cycle")
    weight_decay: float = Field(0.05, ge=0.0)
    balance: Fraction = Field(0.5, description="0: classes as frequent as in the data; 1: equally frequent")
    augment: Literal["full", "mirror", "randaugment"] = Field(
        "full",
        description="mirror: images left to right at random; full: turned, zoomed, shifted and recoloured, too; "
        "randaugment: mirrored, and two of fourteen operations (arXiv:1909.13719), not of segmentation",
    )
    mix: Literal["none", "mixup", "cutmix"] = Field(
        "none",
        description="images of a batch blended (arXiv:1710.09412) or cut into each other (arXiv:1905.04899), and their "
        "labels with them; of classification only",
    )


class JudgeConfig(ClassifierConfig):
    """The judge: of another architecture than the critic's."""

    model: str = Field(
        "test_resnet",
        description="as the critic's, but of another architecture; of segmentation smp:FPN:tu-test_resnet by default",
    )


class CriticConfig(Part):
    """Stage 2: who judges. The critic is cross-fitted by group; the judge learnt otherwise and has no say in pairs."""

    classifier: ClassifierConfig = ClassifierConfig()
    folds: int = Field(3, ge=2, description="shares of the training groups; a member has not seen one of them")
    copies: Count = Field(
        1, description="members without each share, from seeds of their own; the mean of their logits judges"
    )
    judge: JudgeConfig = JudgeConfig()


class PreferenceConfig(Part):
    """Stage 2: which images are preferred."""

    criterion: str = Field(
        "critic-loss",
        description="a registered criterion (saadi.preferences.CRITERIA); of segmentation region-dice by default, of "
        "presence presence-loss",
    )
    penalties: dict[str, Annotated[float, Field(ge=0.0)]] = Field(
        {},
        description="weights of registered penalties (saadi.penalties.PENALTIES); with any above 0, they and the "
        "criterion count as ranks from -1 to 1 within a condition",
    )
    pairing: str = Field(
        "best-worst", description="a registered rule (saadi.pairing.PAIRINGS); random and reversed are controls"
    )
    candidates: int = Field(24, ge=2, description="samples a class and round, at first")
    max_candidates: int = Field(48, ge=2, description="samples a class and round, where winners are few")
    draws: int = Field(
        4, ge=2, description="samples of one condition, among which pairs are made, where a class has many conditions"
    )
    pairs: Count = Field(16, description="pairs a class and round, at most")
    rare_power: float = Field(
        0.0, ge=0.0, description="a class may have (n_max / n)^this times as many, of its n training images; 0: no more"
    )
    rare_cap: float = Field(3.0, ge=1.0, description="times pairs that a rare class may have, at most")
    margin: float = Field(
        0.5,
        ge=0.0,
        description="least difference of scores within a pair: of the criterion's values; with penalties, of ranks. "
        "0.05 by default of segmentation, 0.1 of presence",
    )
    held_out: Fraction = Field(0.2, gt=0.0, description="share of the pairs kept for watching, never trained on")


class AlignmentConfig(Part):
    """Stage 3: the preference objective."""

    objective: str = Field(
        "dpo", description="dpo, sdpo, ipo, kto, mapo or sft: what each is and what beta means to it is in method.md"
    )
    beta: Positive = Field(
        0.1, description="of errors summed over the latent, whatever the objective; of Diffusion-DPO without its T"
    )
    weighting: Literal["epsilon", "v"] = Field(
        "v", description="whose errors are compared: v's weigh heavy noise more, where it is decided what is seen"
    )
    earliest: Fraction = Field(
        0.3, lt=1.0, description="share of the schedule, at its quiet end, that is left out: there only grain differs"
    )
    focus: Literal["none", "saliency"] = Field(
        "none", description="where in an image its error counts more: nowhere, or where a pixel moves the critic's loss"
    )
    reference: Literal["base", "previous"] = Field("previous", description="what the policy is held to")
    prompts: bool = Field(
        True, description="learn also which prompt fits an image better: its own, or the class it was taken for"
    )
    anchors: int = Field(
        24, ge=0, description="real training images a class that teach a round their prompts, too; 0: none"
    )
    rank: Count = Field(16, description="LoRA rank; alpha equals it")
    steps: Count = Field(120, description="optimiser steps a round, at most")
    pairs: Count = Field(24, description="pairs a step, of two images or of two prompts")
    lr: Positive = Field(5e-4, description="peak learning rate")
    sft: float = Field(1.0, ge=0.0, description="weight of the winner's denoising error beside the preference loss")
    extrapolation: float = Field(
        3.0,
        ge=1.0,
        description="how many times as far the adapter goes as it was trained, at most; see stop_rise. Of "
        "segmentation 1 by default",
    )
    bank: Count = Field(4, description="fixed (timestep, noise) draws for each held-out pair")
    stop_rise: float = Field(
        0.01, ge=0.0, description="stop when the held-out winners' error is this share above the reference's"
    )


class EvaluationConfig(Part):
    """Stage 4: what the images are worth."""

    classifier: ClassifierConfig = ClassifierConfig()
    seeds: Count = Field(3, description="trainings of each arm")
    synthetic: Count = Field(320, description="synthetic images in each arm that has any, balanced over the classes")
    drawn: Count = Field(
        3,
        description="images drawn of an aligned model for each that is used: the best are picked; 1: all are used, the "
        "default of segmentation",
    )
    pick: Literal["sure", "hard"] = Field(
        "hard",
        description="which of them: sure, the critic's best; hard, the default of classification, of the half that it "
        "is surest of, those that a model of real images alone expects least. rejection: always its best",
    )
    rivals: tuple[Literal["randaugment", "mixup", "cutmix"], ...] = Field(
        (),
        description="further arms: strong ways of training on real images alone. Not of segmentation",
    )
    strong: ClassifierConfig | None = Field(
        None,
        description="a further arm: another model, pretrained for one, trained on real images alone by a recipe of its "
        "own; settings as those of evaluation.classifier",
    )
    controls: bool = Field(
        True, description="train also the rivals and controls that need images of their own; false: only real images "
        "alone, unaligned ones and each round's",
    )  # fmt: skip
    mixing: tuple[Fraction, ...] = Field((0.25, 0.5), min_length=1, description="shares of a batch; chosen on val")
    bootstrap: Count = Field(2000, description="resamples behind every interval")


OF_TASK: dict[str, dict[str, Any]] = {
    "segmentation": {
        "sampling": {"lead": 0.03},
        "critic": {"classifier": {"model": "small-unet"}, "judge": {"model": "smp:FPN:tu-test_resnet"}},
        "preferences": {"criterion": "region-dice", "margin": 0.05},
        "alignment": {"extrapolation": 1.0},
        "evaluation": {"classifier": {"model": "small-unet"}, "drawn": 1, "pick": "sure"},
    },
    "presence": {
        "sampling": {"lead": 0.0},
        "preferences": {"criterion": "presence-loss", "margin": 0.1},
        "evaluation": {"drawn": 2, "pick": "sure"},
    },
}
"""What a task's defaults are where they are not those of classification: what suits it, and needs no download."""


def _filled(values: Any, defaults: Any) -> Any:
    """Nested `values` as they are, and `defaults` where they say nothing."""
    if not isinstance(values, Mapping) or not isinstance(defaults, Mapping):
        return values
    return {**defaults, **{key: _filled(value, defaults.get(key)) for key, value in values.items()}}


class RunConfig(Part):
    """Everything a run depends on."""

    @model_validator(mode="before")
    @classmethod
    def _of_task(cls, values: Any) -> Any:
        task = values.get("task") if isinstance(values, Mapping) else None
        return _filled(values, OF_TASK.get(task, {}) if isinstance(task, str) else {})

    task: Task = Field(
        "classification",
        description="what the downstream model says of an image: its one class (classification), the class of each "
        "pixel (segmentation), or which classes it shows (presence)",
    )
    seed: int = Field(0, ge=0, description="the run's seed; all others derive from it")
    rounds: int = Field(2, ge=1, le=9, description="rounds of judging, pairing and aligning, at most")
    patience: int = Field(
        1, ge=0, description="rounds in a row no better on val than any before that end the loop; 0: all are done"
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads; 0: all. Results are equal only for equal threads")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    compute: ComputeConfig = ComputeConfig()
    tracking: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        (),
        description="where curves and results go, too: tensorboard, into the run's folder, or wandb, over the network",
    )
    data: DataConfig = DataConfig()
    layouts: LayoutConfig = LayoutConfig()
    base: BaseConfig = BaseConfig()
    sampling: SamplingConfig = SamplingConfig()
    critic: CriticConfig = CriticConfig()
    preferences: PreferenceConfig = PreferenceConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
