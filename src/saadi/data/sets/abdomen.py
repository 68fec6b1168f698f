"""Sets of abdominal and robotic surgery: Dresden's organs, and the instrument challenges of 2017 and 2018."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from saadi.data.classes import ClassTable
from saadi.data.sets.declare import BACKGROUND, Found, SurgicalSet, View, table_of
from saadi.data.sets.finders import Paired, globbed
from saadi.data.sets.openers import Pixels, bright, layered, light, rgb
from saadi.errors import BadInput
from saadi.records import IGNORE

ORGANS = (
    "abdominal_wall", "colon", "inferior_mesenteric_artery", "intestinal_veins", "liver", "pancreas",
    "small_intestine", "spleen", "stomach", "ureter", "vesicular_glands",
)  # fmt: skip

TOGETHER = ("abdominal_wall", "colon", "liver", "pancreas", "small_intestine", "spleen", "stomach")
"""Those that `multilabel` has masks of, each in a file; were there others, they are ignored."""


def _spoken(organ: str) -> str:
    return organ.replace("_", " ")


def _organ(path: Path, pixels: Pixels) -> Pixels:
    """Ids of one organ's mask of several, `maskXX_<organ>.png`."""
    organ = path.stem.partition("_")[2]
    if organ not in ORGANS:
        raise BadInput(f"{path}: no organ of this set is called {organ!r:.40}; expected {', '.join(ORGANS)}")
    return (light(pixels) * (ORGANS.index(organ) + 1)).astype(np.uint8)


def _single(organ: str) -> View:
    """Binary masks of one organ. The others in the image are unlabelled, and rightly background to this question."""
    return View(
        organ,
        ("segmentation", "presence"),
        Paired(
            f"{organ}/*/image*.png",
            rf"{organ}/(?P<group>\d+)/image(?P<frame>\d+)\.png",
            rf"{organ}/\g<group>/mask\g<frame>.png",
        ),
        table_of("DSAD", {0: BACKGROUND, 1: _spoken(organ)}, bright),
    )


DSAD = SurgicalSet(
    name="dsad",
    title="DSAD (Dresden surgical anatomy)",
    layout="<organ>/<NN>/imageXX.png and maskXX.png; multilabel/<NN>/imageXX.png and maskXX_<organ>.png",
    views=(
        View(
            "multilabel",
            ("segmentation", "presence"),
            Paired(
                "multilabel/*/image*.png",
                r"multilabel/(?P<group>\d+)/image(?P<frame>\d+)\.png",
                r"multilabel/\g<group>/mask\g<frame>_*.png",
                TOGETHER,
            ),
            table_of(
                "DSAD",
                {0: BACKGROUND}
                | {place: _spoken(organ) if organ in TOGETHER else None for place, organ in enumerate(ORGANS, 1)},
                layered(_organ),
            ),
        ),
        *(_single(organ) for organ in ORGANS),
    ),
    split="by patient, published: test 02, 07, 11, 13, 14, 18, 20, 32; val 03, 21, 26; the rest of 32 train",
    held={"test": (2, 7, 11, 13, 14, 18, 20, 32), "val": (3, 21, 26)},
    licence="CC BY 4.0",
    citation="Carstens et al., The Dresden Surgical Anatomy Dataset, Scientific Data 2023",
    url="https://doi.org/10.6084/m9.figshare.21702600 (the mirror on Hugging Face has another form)",
    unverified=("the seven organs of multilabel",),
)

TYPES = (
    "Bipolar Forceps", "Prograsp Forceps", "Large Needle Driver", "Vessel Sealer", "Grasping Retractor",
    "Monopolar Curved Scissors", "Other",
)  # fmt: skip
WINDOW = (320, 28, 1280, 1024)
"""Beyond it the frames of 1920 x 1080 pixels are black."""


def _type(path: Path, pixels: Pixels) -> Pixels:
    """Ids by the folder's name, which may have Left, Right, Maryland and _labels about the type's, in any order."""
    words = re.sub(r"[^a-z]+", " ", path.parent.name.lower())
    for place, name in enumerate(TYPES, 1):
        if name.lower() in words:
            return ((pixels > 0) * place).astype(np.uint8)
    raise BadInput(f"{path.parent}: names no instrument of {', '.join(TYPES)}")


def _part(path: Path, pixels: Pixels) -> Pixels:
    """Values of parts as they are; what else there is of an instrument has no known part."""
    known = (pixels == 0) | np.isin(pixels, (10, 20, 30))
    return np.where(known, pixels, IGNORE).astype(np.uint8)


_endovis17 = partial(
    View,
    tasks=("segmentation", "presence"),
    find=Paired(
        "instrument_dataset_*/left_frames/*.png",
        r"(?P<group>instrument_dataset_[1-8])/left_frames/(?P<frame>[^/]+)\.png",
        r"\g<group>/ground_truth/*/\g<frame>.png",
    ),
)
_types = {0: BACKGROUND} | dict(enumerate(TYPES, 1))

ENDOVIS17 = SurgicalSet(
    name="endovis17",
    title="EndoVis 2017 instruments",
    layout="instrument_dataset_{1-8}/left_frames/*.png and ground_truth/<tool>*/*.png",
    views=(
        _endovis17("types", table=table_of("EndoVis17", _types, layered(_type, WINDOW))),
        _endovis17(
            "parts",
            table=table_of(
                "EndoVis17", {0: BACKGROUND, 10: "shaft", 20: "wrist", 30: "claspers"}, layered(_part, WINDOW)
            ),
        ),
        _endovis17(
            "binary",
            table=table_of(
                "EndoVis17", {0: BACKGROUND} | dict.fromkeys(range(1, 8), "instrument"), layered(_type, WINDOW)
            ),
        ),
    ),
    split="by sequence, of the four usual folds [1,3], [2,5], [4,8], [6,7] the first is test, the second val",
    held={"test": (1, 3), "val": (2, 5)},
    licence="challenge terms, unverified",
    citation="Allan et al., 2017 robotic instrument segmentation challenge, arXiv:1902.06426",
    url="https://endovissub2017-roboticinstrumentsegmentation.grand-challenge.org",
    unverified=(
        "licence and source",
        "names of the tools' folders",
        "values of parts in the masks of Other: whatever is not 10, 20 or 30 is ignored",
    ),
    window=WINDOW,
)

SCENE: dict[int, str | None] = {
    (red << 16) + (green << 8) + blue: name
    for (red, green, blue), name in {
        (0, 0, 0): BACKGROUND,
        (0, 255, 0): "instrument shaft",
        (0, 255, 255): "instrument clasper",
        (125, 255, 12): "instrument wrist",
        (255, 55, 0): "kidney parenchyma",
        (24, 55, 125): "covered kidney",
        (187, 155, 25): "thread",
        (0, 255, 125): "clamps",
        (255, 255, 125): "suturing needle",
        (123, 15, 175): "suction instrument",
        (124, 155, 5): "small intestine",
        (12, 255, 141): "ultrasound probe",
    }.items()
}
REPAIRS = 7
"""Masks that the challenge has corrected since: frames 042, 043, 044 and 073 of seq_1, 135, 137 and 138 of seq_4."""
INSTRUMENT = ("instrument shaft", "instrument clasper", "instrument wrist")


def _scene(values: dict[int, str | None]) -> ClassTable:
    return table_of("EndoVis18", values, rgb, colours=True)


_ENDOVIS18 = Paired(
    "**/miccai_challenge_*/seq_*/left_frames/*.png",  # each archive unpacked in place, or in a folder of its name
    r"(?P<release>(?:(?!__MACOSX)[^/]+/)*miccai_challenge_[^/]+)/(?P<group>seq_\d+)/left_frames/(?P<frame>[^/.]+)\.png",
    r"\g<release>/\g<group>/labels/\g<frame>.png",
)


def _mended(root: Path) -> tuple[list[Found], list[str]]:
    """The frames, with the challenge's corrections of seven masks of the first release, `repairs/seq_N_frameFFF.png`,
    where they are there."""
    found, notes = _ENDOVIS18(root)
    repairs = {Path(file).stem: file for file in globbed(root, "**/repairs/seq_*.png") if "__MACOSX" not in file}
    made = [replace(one, mask=repairs.get(f"{one.group}_{Path(one.file).stem}", one.mask)) for one in found]
    count = sum(one.mask in repairs.values() for one in made)
    if found and count < REPAIRS:
        notes = [*notes, f"{count} of the challenge's {REPAIRS} corrected masks (repairs.zip) are there and used"]
    return made, notes


_endovis18 = partial(View, tasks=("segmentation", "presence"), find=_mended)

ENDOVIS18 = SurgicalSet(
    name="endovis18",
    title="EndoVis 2018 scenes",
    layout="miccai_challenge_2018_release_1, miccai_challenge_release_{2,3,4}: seq_N/{left_frames,labels}/*.png",
    views=(
        _endovis18("scene", table=_scene(SCENE)),
        _endovis18(
            "parts",
            table=_scene({value: name if name in INSTRUMENT else BACKGROUND for value, name in SCENE.items()}),
        ),
    ),
    split="by sequence: test 2, 5, 9, 15, which others call val; val is drawn from the rest by the seed",
    held={"test": (2, 5, 9, 15)},
    licence="challenge terms, unverified",
    citation="Allan et al., 2018 robotic scene segmentation challenge, arXiv:2001.11190",
    url="https://endovissub2018-roboticscenesegmentation.grand-challenge.org",
    unverified=("licence and source",),
)

SETS = (DSAD, ENDOVIS17, ENDOVIS18)
