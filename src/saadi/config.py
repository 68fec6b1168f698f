"""Everything a run depends on: frozen models, every field documented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from saadi.records import Task

Count = Annotated[int, Field(ge=1)]
Drawn = Annotated[int, Field(ge=1, le=1_000_000)]  # a slip of the finger must not fill the memory
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
LABEL = "{label}"
"""What stands for the class name in `base.prompt`."""


class Part(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class PhantomConfig(Part):
    """The built-in renderer as a data set."""

    train: Drawn = Field(400, description="training images in all, shared out by the long tail")
    val: Drawn = Field(320, description="validation images, balanced, from other patients")
    test: Drawn = Field(1600, description="test images, balanced, from patients seen nowhere else")
    patients: tuple[Drawn, Drawn, Drawn] = Field((12, 8, 20), description="patients in train, val and test")
    tail: Positive = Field(0.15, le=1.0, description="rarest class as a share of the most frequent one")
    oracle: int = Field(0, ge=0, le=1_000_000, description="images, a patient each, for the judge; 0: it has train's")


class DataConfig(Part):
    """Where the labelled images come from."""

    source: Literal["phantom", "table", "folders", "set"] = Field(
        "table",
        description="phantom: rendered; table: images + labels.csv; folders: one folder per class; set: a public one",
    )
    path: Path | None = Field(None, description="the data folder (table, folders, set)")
    set: str | None = Field(None, description="set only: its name, or name/view, as `saadi datasets` lists them")
    every: Count = Field(1, description="set only: every n-th frame of a video or patient")
    leave_out: tuple[str, ...] = Field(
        (), description="set only: classes left out; of masks their pixels are ignored, of one class an image, it"
    )
    groups: str | None = Field(
        None,
        description="folders: a CSV (file,group[,split]) or a regular expression whose first group is the patient; "
        "set: such an expression, for sets that name no patient",
    )
    size: int = Field(64, ge=32, le=2048, multiple_of=8, description="side of the square images, pixels")
    square: Literal["pad", "crop"] = Field("pad", description="how an image becomes square: the same for all images")
    val: tuple[str, ...] = Field(
        (),
        description="groups (quote numbers) that are val in place of the table's, which go to train; none: as it says",
    )
    test: tuple[str, ...] = Field(
        (), description="groups that are test in place of the table's, which go to train; none: as it says"
    )
    licence: str | None = Field(
        None, description="of the images; what is made from them inherits it. None: a public set's own, else unknown"
    )
    phantom: PhantomConfig = PhantomConfig()


class ComputeConfig(Part):
    """How a diffusion model is computed. Between these settings results differ by rounding alone."""

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


class LayoutConfig(Part):
    """Inpainting: where a synthetic frame is to show what. Lengths are shares of the image's side."""

    rim: tuple[Positive, Positive] = Field(
        (0.03, 0.12), description="how far the blank region reaches beyond an object, at least and at most"
    )
    feather: float = Field(0.025, ge=0.0, description="width of the blend from old pixels to new ones, within the rim")
    decoys: Fraction = Field(0.5, description="how often a place where nothing is asked for is painted anew, too")
    moved: Fraction = Field(
        0.75, description="share of layouts with an object of another group moved onto the frame; 0: only its own"
    )
    shift: Fraction = Field(0.15, description="how far an object is moved, at most")
    scale: float = Field(1.25, ge=1.0, description="how many times larger or smaller it becomes, at most")
    turn: float = Field(20.0, ge=0.0, le=180.0, description="how far it is turned, degrees, at most")
    things: tuple[str, ...] = Field(
        (), description="classes that may be moved, and are replaced where another is; none named: all but background"
    )
    outside: Fraction = Field(0.1, description="weight of the denoising error outside the region; 1 inside")

    @field_validator("rim")
    @classmethod
    def _least_first(cls, rim: tuple[float, float]) -> tuple[float, float]:
        if rim[0] > rim[1]:
            raise ValueError("the least comes first, then the most")
        return rim


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


class ClassifierConfig(Part):
    """A downstream model and how it is trained."""

    model: str = Field(
        "small-cnn",
        description="small-cnn, pretext-cnn, a timm name, a timm checkpoint folder, or package.module:factory",
    )
    steps: Count = Field(300, description="optimiser steps")
    batch: Count = Field(32, description="images a step")
    lr: Positive = Field(3e-3, description="peak learning rate; one cycle")
    weight_decay: float = Field(0.05, ge=0.0)
    balance: Fraction = Field(0.5, description="0: classes as frequent as in the data; 1: equally frequent")
    augment: Literal["full", "mirror"] = Field(
        "full", description="mirror: images left to right at random; full: turned, zoomed, shifted and recoloured, too"
    )


class JudgeConfig(ClassifierConfig):
    """The judge: of another architecture than the critic's."""

    model: str = Field("test_resnet", description="as the critic's, but of another architecture")


class CriticConfig(Part):
    """Stage 2: who judges. The critic is cross-fitted by group; the judge learnt otherwise and has no say in pairs."""

    classifier: ClassifierConfig = ClassifierConfig()
    folds: int = Field(3, ge=2, description="shares of the training groups; a member has not seen one of them")
    copies: Count = Field(1, description="members without each share, of seeds of their own; their mean logits judge")
    judge: JudgeConfig = JudgeConfig()


class PreferenceConfig(Part):
    """Stage 2: which images are preferred."""

    criterion: str = Field("critic-loss", description="a registered criterion (saadi.preferences.CRITERIA)")
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
    draws: int = Field(4, ge=2, description="samples of one condition, to be paired, where a class has many conditions")
    pairs: Count = Field(16, description="pairs a class and round, at most")
    rare_power: float = Field(
        0.0, ge=0.0, description="a class may have (n_max / n)^this times as many, of its n training images; 0: no more"
    )
    rare_cap: float = Field(3.0, ge=1.0, description="times pairs that a rare class may have, at most")
    margin: float = Field(
        0.5,
        ge=0.0,
        description="least difference of scores in a pair: of the criterion's values; with penalties, ranks",
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
        3.0, ge=1.0, description="how many times as far the adapter goes as it was trained, at most; see stop_rise"
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
        2, description="images drawn of an aligned model for each that is used, besides its rounds' candidates; the "
        "critic picks; 1: all are used, and no candidates",
    )  # fmt: skip
    mixing: tuple[Fraction, ...] = Field((0.25, 0.5), min_length=1, description="shares of a batch; chosen on val")
    bootstrap: Count = Field(2000, description="resamples behind every interval")


class RunConfig(Part):
    """Everything a run depends on."""

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
