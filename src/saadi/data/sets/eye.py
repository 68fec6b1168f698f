"""Sets of cataract surgery."""

from __future__ import annotations

from saadi.data.sets.declare import BACKGROUND, SurgicalSet, View, table_of
from saadi.data.sets.finders import Paired
from saadi.data.sets.openers import supervisely

CADIS_CLASSES = (
    "Pupil", "Surgical Tape", "Hand", "Eye Retractors", "Iris", "Skin", "Cornea", "Hydrodissection Cannula",
    "Viscoelastic Cannula", "Capsulorhexis Cystotome", "Rycroft Cannula", "Bonn Forceps", "Primary Knife",
    "Phacoemulsifier Handpiece", "Lens Injector", "I/A Handpiece", "Secondary Knife", "Micromanipulator",
    "I/A Handpiece Handle", "Capsulorhexis Forceps", "Rycroft Cannula Handle", "Phacoemulsifier Handpiece Handle",
    "Capsulorhexis Cystotome Handle", "Secondary Knife Handle", "Lens Injector Handle", "Suture Needle",
    "Needle Holder", "Charleux Cannula", "Primary Knife Handle", "Vitrectomy Handpiece", "Mendez Ring", "Marker",
    "Hydrodissection Cannula Handle", "Troutman Forceps", "Cotton", "Iris Hooks",
)  # fmt: skip
ANATOMY = 7
"""The first classes, which are no instruments, are the same in all three tasks."""

TASK_2 = {
    "Cannula": (7, 8, 10, 20, 27, 32), "Capsulorhexis Cystotome": (9, 22), "Tissue Forceps": (11, 33),
    "Primary Knife": (12, 28), "Phacoemulsifier Handpiece": (13, 21), "Lens Injector": (14, 24),
    "I/A Handpiece": (15, 18), "Secondary Knife": (16, 23), "Micromanipulator": (17,), "Capsulorhexis Forceps": (19,),
}  # fmt: skip
"""Values of the masks by class of task 2; the names are of what they join."""


def _task(number: int, instruments: dict[int, str]) -> View:
    """A task of the set: the anatomy, and of the instruments those named; the other values are ignored."""
    values: dict[int, str | None] = {}
    for value, name in enumerate(CADIS_CLASSES):
        values[value] = name if value < ANATOMY else instruments.get(value)
    return View(
        f"task-{number}",
        ("segmentation", "presence"),
        Paired(
            "Video*/Images/*.png",
            r"(?P<group>Video\d+)/Images/(?P<frame>[^/]+)\.png",
            r"\g<group>/Labels/\g<frame>.png",
        ),
        table_of("CaDIS", {**values, 255: None}),
    )


CADIS = SurgicalSet(
    name="cadis",
    title="CaDIS",
    layout="VideoNN/Images/VideoN_frameFFFFFF.png and VideoNN/Labels of the same names",
    views=(
        _task(1, dict.fromkeys(range(ANATOMY, len(CADIS_CLASSES)), "Instrument")),
        _task(2, {value: name for name, values in TASK_2.items() for value in values}),
        _task(3, {value: CADIS_CLASSES[value] for value in range(ANATOMY, 25)}),
    ),
    split="by video, published: val 05, 07, 16; test 02, 12, 22; the other 19 train",
    held={"val": (5, 7, 16), "test": (2, 12, 22)},
    licence="challenge terms, unverified",
    citation="Grammatikopoulou et al., CaDIS: cataract dataset for surgical RGB-image segmentation, MedIA 2021",
    url="https://cataracts.grand-challenge.org/CaDIS",
    unverified=("licence and source", "names of the joined classes of task 2"),
)

CATARACT_1K_IDS = {
    "cornea1": 1, "Cornea": 1, "pupil1": 2, "Pupil": 2, "Lens": 3, "Slit Knife": 4, "Gauge": 5,
    "Capsulorhexis Cystotome": 6, "Spatula": 7, "Phacoemulsification Tip": 8, "Irrigation-Aspiration": 9,
    "Lens Injector": 10, "Incision Knife": 11, "Katena Forceps": 12, "Capsulorhexis Forceps": 13,
}  # fmt: skip
"""Titles in the annotations, two of them under two spellings, the one in use last; what has a higher id lies on top."""

CATARACT_1K = SurgicalSet(
    name="cataract-1k",
    title="Cataract-1K segmentation",
    layout="case_NNNN/img/*.png or *.jpg, and case_NNNN/ann/<image's file name>.json",
    views=(
        View(
            "all",
            ("segmentation", "presence"),
            Paired(
                "case_*/img/*.*",
                r"(?P<group>case_\d+)/img/(?P<file>[^/]+\.(?:png|jpg))",
                r"\g<group>/ann/\g<file>.json",
            ),
            table_of(
                "Cataract-1K",
                {0: BACKGROUND, **{number: name for name, number in CATARACT_1K_IDS.items()}},
                supervisely(CATARACT_1K_IDS),
            ),
        ),
    ),
    split="by patient, published: val 5315, 5316, 5317, 5319, 5325; test 5329, 5334, 5335, 5340, 5353; the rest train",
    held={"val": (5315, 5316, 5317, 5319, 5325), "test": (5329, 5334, 5335, 5340, 5353)},
    licence="CC BY 4.0 by its README",
    citation="Ghamsarian et al., Cataract-1K: cataract surgery dataset for scene segmentation, Scientific Data 2024",
    url="https://www.synapse.org/Synapse:syn52540135",
    inner="Segmentation_dataset/Annotations/Images-and-Supervisely-Annotations",
    unverified=("membership of its five official folds, which are not used", "titles: from code that reads the set"),
)

SETS = (CADIS, CATARACT_1K)
