"""Segmentation's rivals that need no diffusion: the real object pasted, and real frames through the autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saadi.data import Dataset
from saadi.data.conditions import layout_of
from saadi.data.layouts import picture
from saadi.data.starts import paste
from saadi.diffusion.drawing import decode_latents, encode_images
from saadi.diffusion.painting import save_png
from saadi.diffusion.stages import model_at
from saadi.evaluation.arms import Arm
from saadi.records import Condition, Sample, read_records, write_records
from saadi.store import Run
from saadi.training import Progress

Images = NDArray[np.uint8]


def pasted(run: Run, train: Dataset, condition: Condition) -> tuple[Images, Images]:
    """The donor's object where the condition's layout has it: image [S, S, 3] and ids [S, S].

    The frame's own things stay where they are not covered. Where nothing is moved it is the frame as it is.
    """
    assert train.masks is not None
    row, donor = condition.place
    layout = layout_of(run.config, train, condition, 1)
    box = picture(np.asarray(train.masks[donor]))
    image = paste(np.asarray(train.images[row]), np.asarray(train.images[donor]), layout, box)
    return image, np.where(layout.pasted, layout.target, np.asarray(train.masks[row])).astype(np.uint8)


def _arm(
    run: Run,
    name: str,
    conditions: Sequence[Condition],
    inputs: Sequence[str],
    make_images: Callable[[], Sequence[tuple[Images, Images]]],
) -> Arm:
    def make(folder: Path, progress: Progress) -> None:
        samples = []
        for number, (condition, (image, ids)) in enumerate(zip(conditions, make_images(), strict=True)):
            files = [folder / f"{number:05d}{end}.png" for end in ("", "-mask")]
            for file, pixels in zip(files, (image, ids), strict=True):
                save_png(file, pixels)
            image_file, mask = (str(file.relative_to(run.folder)) for file in files)
            samples.append(Sample(f"set-{name}-{number:05d}", condition, 0, 0, image_file, mask))
            progress(number + 1, len(conditions))
        write_records(folder / "samples.jsonl", samples)

    settings = [[one.id for one in conditions], run.config.layouts.model_dump(mode="json"), run.config.seed]
    folder = run.stage(f"evaluation/sets/{name}", make, settings=settings, inputs=inputs)
    return Arm(name, tuple(read_records(folder / "samples.jsonl", Sample)), inputs=(f"evaluation/sets/{name}",))


def copy_paste(run: Run, train: Dataset, conditions: Sequence[Condition]) -> Arm:
    """The rival to beat: real objects at the placements that the synthetic sets have."""
    return _arm(run, "copy-paste", conditions, ["data"], lambda: [pasted(run, train, one) for one in conditions])


def reconstructed(run: Run, train: Dataset, conditions: Sequence[Condition]) -> Arm:
    """A control: the donors' frames, real but for the autoencoder, whose texture all synthetic pixels have.

    What is asked of them is their own mask, where it is.
    """
    own = [replace(one, frame=one.place[1], donor=one.place[1]) for one in conditions]

    def frames() -> list[tuple[Images, Images]]:
        assert train.masks is not None
        rows = [one.place[1] for one in own]
        generator = model_at(run.folder, run.config, [])
        images = decode_latents(generator, encode_images(generator, train.images[rows]))
        return list(zip(images, np.asarray(train.masks[rows]), strict=True))

    return _arm(run, "reconstructed", own, ["data", "base"], frames)
