"""Class tables and splits of the public sets against literals: a value changed by a slip would mislabel silently."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from saadi.data.classes import ClassTable
from saadi.data.sets.abdomen import ORGANS
from saadi.data.sets.catalogue import SETS, find_view
from saadi.data.sets.cholecystectomy import PHASES, T50_TRAIN
from saadi.data.sets.eye import CATARACT_1K_IDS
from saadi.data.sets.stills import KVASIR_CLASSES, OTHER_NAMES
from saadi.records import IGNORE

ANATOMY = {0: "Pupil", 1: "Surgical Tape", 2: "Hand", 3: "Eye Retractors", 4: "Iris", 5: "Skin", 6: "Cornea"}
INSTRUMENTS = {
    7: "Hydrodissection Cannula", 8: "Viscoelastic Cannula", 9: "Capsulorhexis Cystotome", 10: "Rycroft Cannula",
    11: "Bonn Forceps", 12: "Primary Knife", 13: "Phacoemulsifier Handpiece", 14: "Lens Injector",
    15: "I/A Handpiece", 16: "Secondary Knife", 17: "Micromanipulator", 18: "I/A Handpiece Handle",
    19: "Capsulorhexis Forceps", 20: "Rycroft Cannula Handle", 21: "Phacoemulsifier Handpiece Handle",
    22: "Capsulorhexis Cystotome Handle", 23: "Secondary Knife Handle", 24: "Lens Injector Handle",
}  # fmt: skip
JOINED = {
    7: "Cannula", 8: "Cannula", 10: "Cannula", 20: "Cannula", 27: "Cannula", 32: "Cannula",
    9: "Capsulorhexis Cystotome", 22: "Capsulorhexis Cystotome", 11: "Tissue Forceps", 33: "Tissue Forceps",
    12: "Primary Knife", 28: "Primary Knife", 13: "Phacoemulsifier Handpiece", 21: "Phacoemulsifier Handpiece",
    14: "Lens Injector", 24: "Lens Injector", 15: "I/A Handpiece", 18: "I/A Handpiece", 16: "Secondary Knife",
    23: "Secondary Knife", 17: "Micromanipulator", 19: "Capsulorhexis Forceps",
}  # fmt: skip

TABLES: dict[str, dict[int, str | None]] = {
    "cholecseg8k/all": {
        50: "background", 11: "abdominal wall", 21: "liver", 13: "gastrointestinal tract", 12: "fat", 31: "grasper",
        23: "connective tissue", 24: "blood", 25: "cystic duct", 32: "L-hook electrocautery", 22: "gallbladder",
        33: "hepatic vein", 5: "liver ligament", 255: None, 0: None,
    },
    "cholecseg8k/instruments": {
        31: "grasper", 32: "L-hook electrocautery", 255: None, 0: None,
        **dict.fromkeys((50, 11, 21, 13, 12, 23, 24, 25, 22, 33, 5), "background"),
    },
    "endovis17/types": {
        0: "background", 1: "Bipolar Forceps", 2: "Prograsp Forceps", 3: "Large Needle Driver", 4: "Vessel Sealer",
        5: "Grasping Retractor", 6: "Monopolar Curved Scissors", 7: "Other",
    },
    "endovis17/parts": {0: "background", 10: "shaft", 20: "wrist", 30: "claspers"},
    "endovis17/binary": {0: "background", **dict.fromkeys(range(1, 8), "instrument")},
    "endovis18/scene": {
        0x000000: "background", 0x00FF00: "instrument shaft", 0x00FFFF: "instrument clasper",
        0x7DFF0C: "instrument wrist", 0xFF3700: "kidney parenchyma", 0x18377D: "covered kidney", 0xBB9B19: "thread",
        0x00FF7D: "clamps", 0xFFFF7D: "suturing needle", 0x7B0FAF: "suction instrument", 0x7C9B05: "small intestine",
        0x0CFF8D: "ultrasound probe",
    },
    "cadis/task-1": {**ANATOMY, **dict.fromkeys(range(7, 36), "Instrument"), 255: None},
    "cadis/task-2": {**ANATOMY, **dict.fromkeys((25, 26, 29, 30, 31, 34, 35, 255), None), **JOINED},
    "cadis/task-3": {**ANATOMY, **INSTRUMENTS, **dict.fromkeys((*range(25, 36), 255), None)},
    "kvasir-seg/polyps": {0: "background", 1: "polyp"},
}  # fmt: skip


def _read(table: ClassTable) -> dict[int, str | None]:
    return {value: None if place == IGNORE else table.names[place] for value, place in table.values.items()}


@pytest.mark.parametrize("name", TABLES)
def test_masks_mean_what_is_published(name: str) -> None:
    table = find_view(name, "segmentation")[1].table
    assert table is not None
    assert _read(table) == TABLES[name]


HELD: dict[str, dict[str, Sequence[int]]] = {
    "cholecseg8k": {"test": (12, 20, 48, 55), "val": (17, 52)},
    "cholec80": {"test": range(41, 81), "val": range(33, 41)},
    "cholect50": {"test": (6, 10, 14, 32, 42, 51, 73, 74, 80, 111), "val": (8, 12, 29, 50, 78)},
    "dsad": {"test": (2, 7, 11, 13, 14, 18, 20, 32), "val": (3, 21, 26)},
    "endovis17": {"test": (1, 3), "val": (2, 5)},
    "endovis18": {"test": (2, 5, 9, 15)},
    "cadis": {"test": (2, 12, 22), "val": (5, 7, 16)},
    "cataract-1k": {"test": (5329, 5334, 5335, 5340, 5353), "val": (5315, 5316, 5317, 5319, 5325)},
    "lapgyn4": {},
    "hyperkvasir": {},
    "kvasir-seg": {},
}


@pytest.mark.parametrize("name", SETS)
def test_the_groups_held_out_are_those_published(name: str) -> None:
    expected = {split: sorted(groups) for split, groups in HELD[name].items()}
    assert {split: sorted(groups) for split, groups in SETS[name].held.items()} == expected


def test_who_shares_videos_with_whom() -> None:
    seg8k, cholec80, t50 = (SETS[name].videos for name in ("cholecseg8k", "cholec80", "cholect50"))
    assert sorted(seg8k) == [1, 9, 12, 17, 18, 20, 24, 25, 26, 27, 28, 35, 37, 43, 48, 52, 55]
    assert seg8k < cholec80 == {*range(1, 81)}
    assert sorted(seg8k & t50) == [1, 12, 18, 25, 26, 27, 35, 43, 48, 52]
    assert (len(t50), len(T50_TRAIN)) == (50, 35)
    assert all(one.usual <= one.videos for one in SETS.values())
    assert all(not one.usual & {*one.held.get("test", ())} for one in SETS.values())


def test_names_are_those_published() -> None:
    names = {f"{one.name}/{view.name}": view.classes for one in SETS.values() for view in one.views}
    assert names["cholec80/tools"] == ("Grasper", "Bipolar", "Hook", "Scissors", "Clipper", "Irrigator", "SpecimenBag")
    assert {*PHASES} == {
        "Preparation", "CalotTriangleDissection", "ClippingCutting", "GallbladderDissection", "GallbladderRetraction",
        "CleaningCoagulation", "GallbladderPackaging",
    }  # fmt: skip
    assert [len(names[f"cholect50/{view}"]) for view in ("instruments", "verbs", "targets")] == [6, 10, 15]
    assert ORGANS == (
        "abdominal_wall", "colon", "inferior_mesenteric_artery", "intestinal_veins", "liver", "pancreas",
        "small_intestine", "spleen", "stomach", "ureter", "vesicular_glands",
    )  # fmt: skip
    assert {name.removeprefix("dsad/") for name in names if name.startswith("dsad/")} == {*ORGANS, "multilabel"}
    assert names["lapgyn4/surgical-actions"] == (
        "Coagulation", "Cutting_Cold", "Cutting_HF", "Dissection_Blunt", "Injection", "Sling_Hysterectomy",
        "Suction_Irrigation", "Suturing",
    )  # fmt: skip
    assert names["lapgyn4/anatomical-structures"] == ("Colon", "Liver", "Ovary", "Oviduct", "Uterus")
    assert names["lapgyn4/actions-on-anatomy"] == tuple(
        f"Suturing_{what}" for what in ("Other", "Ovary", "Uterus", "Vagina")
    )
    assert names["lapgyn4/instrument-count"] == ("0", "1", "2", "3")
    assert {*CATARACT_1K_IDS} >= {"Cornea", "Pupil", "Lens", "Slit Knife", "Phacoemulsification Tip", "Lens Injector"}


def test_hyperkvasirs_folders_and_what_its_lists_call_them() -> None:
    colitis = {f"ulcerative-colitis-grade-{grade}" for grade in ("0-1", "1", "1-2", "2", "2-3", "3")}
    assert {*KVASIR_CLASSES} == colitis | {
        "cecum", "ileum", "retroflex-rectum", "hemorrhoids", "polyps", "bbps-0-1", "bbps-2-3", "impacted-stool",
        "dyed-lifted-polyps", "dyed-resection-margins", "pylorus", "retroflex-stomach", "z-line", "barretts",
        "barretts-short-segment", "esophagitis-a", "esophagitis-b-d",
    }  # fmt: skip
    assert len(KVASIR_CLASSES) == 23
    eight = {
        "normal-cecum": "cecum", "normal-pylorus": "pylorus", "normal-z-line": "z-line", "hemorroids": "hemorrhoids",
        "polyp": "polyps", "oesophagitis-a": "esophagitis-a", "oesophagitis-b-d": "esophagitis-b-d",
        "short-segment-barretts": "barretts-short-segment",
    }  # fmt: skip
    assert eight.items() <= OTHER_NAMES.items()


UNVERIFIED = {
    "cholect50": ("columns", "names and order"),
    "dsad": ("seven organs",),
    "endovis17": ("licence and source", "folders"),
    "endovis18": ("licence and source",),
    "cadis": ("licence and source", "task 2"),
    "cataract-1k": ("folds", "titles"),
    "hyperkvasir": ("header",),
    "kvasir-seg": ("lists",),
}


@pytest.mark.parametrize("name", UNVERIFIED)
def test_what_is_unverified_stays_marked(name: str) -> None:
    marks = " ".join(SETS[name].unverified)
    assert all(word in marks for word in UNVERIFIED[name])
