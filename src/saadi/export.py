"""A synthetic set on disk: as saadi reads data, as `load_dataset("imagefolder")` does, and as COCO, with a card."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from saadi.cards import dataset_card
from saadi.config import RunConfig
from saadi.diffusion.painting import save_png
from saadi.exchange import safe_cell
from saadi.records import IGNORE, Frame, LabelSpace, Sample, Task, write_atomic

Images = NDArray[np.uint8]


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run-length encoding of a mask [H, W]: runs down the columns, that of 0 first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    return [int(n) for n in np.diff([0, *edges, mask.size])]


def coco(names: Sequence[str], masks: Sequence[Images], space: LabelSpace) -> dict[str, Any]:
    """Id maps [H, W] as COCO's object detection format has them: each connected piece of a class is an object."""
    annotations: list[dict[str, Any]] = []
    for number, mask in enumerate(masks):
        for label in sorted(set(np.unique(mask).tolist()) - {0, IGNORE}):
            pieces, count = ndimage.label(mask == label, np.ones((3, 3)))
            for piece, (rows, columns) in enumerate(ndimage.find_objects(pieces, count), 1):
                inside = pieces == piece
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number + 1,
                        "category_id": label,
                        "segmentation": {"size": list(mask.shape), "counts": run_lengths(inside)},
                        "area": int(inside.sum()),
                        "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                        "iscrowd": 0,
                    }
                )
    return {
        "images": [
            {"id": number + 1, "file_name": name, "height": mask.shape[0], "width": mask.shape[1]}
            for number, (name, mask) in enumerate(zip(names, masks, strict=True))
        ],
        "annotations": annotations,
        "categories": [{"id": space.id(name), "name": name} for name in space.asked],
    }


def _stem(label: str) -> str:
    """A class as the beginning of a file's name, which may have 255 bytes."""
    return label.replace("/", "-").encode()[:200].decode(errors="ignore")


def _sources(sample: Sample, frames: Sequence[Frame], task: Task) -> dict[str, Frame]:
    """The training frames that an image has something of, first the one it has its scene of."""
    condition = sample.condition
    if task == "segmentation":
        into, mask = condition.place
        return {"painted_into": frames[into], "mask_from": frames[mask]}
    return {} if condition.start is None else {"started_from": frames[condition.start]}


def write_set(
    folder: Path,
    config: RunConfig,
    space: LabelSpace,
    samples: Sequence[Sample],
    images: Sequence[Images],
    masks: Sequence[Images],
    facts: Mapping[str, Any],
    frames: Sequence[Frame] = (),
) -> None:
    """Samples in the form that saadi reads as data of the task, with a table for `load_dataset`, masks also as COCO,
    and a card.

    `frames`: the training frames that some are painted into, or started from. Of such an image much is that frame, so
    it stays in the frame's group: whoever splits the data anew must not have a patient in two splits. Others are a
    group of their own.
    """
    task = config.task
    sources = [_sources(sample, frames, task) for sample in samples]
    names = [f"{_stem(sample.label)}-{i:05d}.png" for i, sample in enumerate(samples)]
    for kind, pixels in (("images", images), ("masks", masks)):
        if pixels:
            (folder / kind).mkdir()
        for name, image in zip(names, pixels, strict=bool(pixels)):
            save_png(folder / kind / name, image)
    columns = {"file": [f"images/{name}" for name in names]}
    if task == "classification":
        columns["label"] = [safe_cell(sample.label) for sample in samples]
    if task == "segmentation":
        columns["mask"] = [f"masks/{name}" for name in names]
        write_atomic(folder / "classes.json", json.dumps(dict(enumerate(space.names)), indent=1) + "\n")
        write_atomic(folder / "coco.json", json.dumps(coco(columns["file"], masks, space)) + "\n")
    own = f"synthetic-round-{facts['round']}"
    columns["group"] = [safe_cell(next(iter(one.values())).group) if one else own for one in sources]
    columns["split"] = ["train"] * len(names)
    if task == "presence":
        shown = [sample.condition.labels for sample in samples]
        columns |= {f"has_{name}": [str(int(name in labels)) for labels in shown] for name in space.names}
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([tuple(columns), *zip(*columns.values(), strict=True)])
    write_atomic(folder / "labels.csv", table.getvalue())
    rows = [
        {"file_name": file, "label": sample.label}
        | ({"labels": list(sample.condition.labels)} if task == "presence" else {})
        | {key: frame.file for key, frame in source.items()}
        for file, sample, source in zip(columns["file"], samples, sources, strict=True)
    ]
    write_atomic(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_atomic(folder / "README.md", dataset_card(config, facts))
