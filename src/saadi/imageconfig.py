"""What a run's images are: the sections `data` and `layouts` of its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1)]
Drawn = Annotated[int, Field(ge=1, le=1_000_000)]  # a slip of the finger must not fill the memory
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


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
    set: str | None = Field(
        None, description="set only: its name, or name/view, as `saadi datasets` lists them; without a view, the first"
    )
    every: Count = Field(1, description="set only: every n-th frame of a video or patient")
    leave_out: tuple[str, ...] = Field(
        (),
        description="set only: classes left out; of masks their pixels are ignored, of one class an image its images",
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

    @model_validator(mode="after")
    def _of_its_source(self) -> DataConfig:
        """What another source would ignore is a mistake."""
        sources = {"set": ("set",), "every": ("set",), "leave_out": ("set",), "groups": ("folders", "set")}
        for name, served in sources.items():
            if self.source not in served and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of source {' or '.join(served)}; this one is {self.source}: leave it out")
        return self


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
