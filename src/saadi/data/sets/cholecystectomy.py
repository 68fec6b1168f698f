"""Sets of laparoscopic cholecystectomy. They share videos, numbered alike: all of CholecSeg8k's are Cholec80's."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saadi.data.sets.declare import Found, SurgicalSet, View, table_of
from saadi.data.sets.finders import Paired, globbed, left_out, read_lines
from saadi.errors import BadInput

SEG8K_VIDEOS = (1, 9, 12, 17, 18, 20, 24, 25, 26, 27, 28, 35, 37, 43, 48, 52, 55)
SEG8K_TEST, SEG8K_VAL = (12, 20, 48, 55), (17, 52)

WATERSHED: dict[int, str | None] = {
    50: "background", 11: "abdominal wall", 21: "liver", 13: "gastrointestinal tract", 12: "fat", 31: "grasper",
    23: "connective tissue", 24: "blood", 25: "cystic duct", 32: "L-hook electrocautery", 22: "gallbladder",
    33: "hepatic vein", 5: "liver ligament", 0: None, 255: None,
}  # fmt: skip
"""Grey values of the watershed masks. 255 is a frame one pixel wide, 0 was not labelled."""

INSTRUMENTS: dict[int, str | None] = {
    value: name if name in ("grasper", "L-hook electrocautery", None) else "background"
    for value, name in WATERSHED.items()
}

_seg8k = Paired(
    "video*/video*/*_endo.png",
    r"(?P<group>video\d+)/(?P<clip>[^/]+)/(?P<name>frame_\d+_endo)\.png",
    r"\g<group>/\g<clip>/\g<name>_watershed_mask.png",
)

CHOLECSEG8K = SurgicalSet(
    name="cholecseg8k",
    title="CholecSeg8k",
    layout="videoVV/videoVV_FFFFF/frame_N_endo.png and frame_N_endo_watershed_mask.png",
    views=(
        View(
            "instruments",
            ("segmentation", "classification", "presence"),
            _seg8k,
            table_of("CholecSeg8k", INSTRUMENTS),
        ),
        View("all", ("segmentation", "presence"), _seg8k, table_of("CholecSeg8k", WATERSHED)),
    ),
    split="by video, none is official: test 12, 20, 48, 55 and val 17, 52, both published, though not together",
    held={"test": SEG8K_TEST, "val": SEG8K_VAL},
    licence="CC BY-NC-SA 4.0",
    citation="Hong et al., CholecSeg8k: a semantic segmentation dataset for laparoscopic cholecystectomy, 2020",
    url="https://www.kaggle.com/datasets/newslab/cholecseg8k",
    videos=frozenset(SEG8K_VIDEOS),
    usual=frozenset(SEG8K_VIDEOS) - {*SEG8K_TEST, *SEG8K_VAL},
)

TOOLS = ("Grasper", "Bipolar", "Hook", "Scissors", "Clipper", "Irrigator", "SpecimenBag")
PHASES = (
    "Preparation", "CalotTriangleDissection", "ClippingCutting", "GallbladderDissection", "GallbladderRetraction",
    "CleaningCoagulation", "GallbladderPackaging",
)  # fmt: skip
"""By name: their numbers differ between sources."""
FPS = 25
"""Frames of video a second; labels count these from 0, extracted frames count seconds from 1."""

Labels = dict[int, tuple[str, ...]]
"""What is labelled, by frame of the video from 0."""


def _phases(path: Path) -> Labels:
    rows = [re.split(r"\t", line) for line in read_lines(path)[1:]]
    if bad := [row for row in rows if len(row) != 2 or not row[0].isdigit() or row[1] not in PHASES]:
        raise BadInput(f"{path}: {' '.join(bad[0])!r:.60} is not a frame and one of {', '.join(PHASES)}")
    return {int(frame): (phase,) for frame, phase in rows}


def _tools(path: Path) -> Labels:
    rows = list(csv.DictReader(read_lines(path), delimiter="\t"))
    columns = {"Frame", *TOOLS}
    if bad := [row for row in rows if set(row) != columns or not str(row["Frame"]).isdigit()]:
        raise BadInput(f"{path}: expected the columns Frame, {', '.join(TOOLS)}, found {', '.join(map(str, bad[0]))}")
    return {int(row["Frame"]): tuple(tool for tool in TOOLS if row[tool].strip() == "1") for row in rows}


def _cholec80(table: str, read: Callable[[Path], Labels]) -> Callable[[Path], tuple[list[Found], list[str]]]:
    """Frames at 1 a second with what `table`, the path of a video's labels, says of them."""

    def find(root: Path) -> tuple[list[Found], list[str]]:
        found, unlabelled = list[Found](), 0
        labels: dict[str, Labels] = {}
        for file in globbed(root, "frames/video*/video*_*.*"):
            match = re.fullmatch(r"frames/(video\d+)/video\d+_(\d+)\.(?:png|jpg)", file)
            if not match:
                continue
            video, second = match[1], int(match[2]) - 1
            if second < 0:
                raise BadInput(f"{file} is frame 0, expected frames that are counted from 1, one a second")
            if video not in labels:
                labels[video] = read(root / table.format(video))
            if second * FPS in labels[video]:
                found.append(Found(file, video, labels[video][second * FPS]))
            else:
                unlabelled += 1
        if not found and globbed(root, "videos/*.mp4"):
            raise BadInput("expected frames/videoNN/videoNN_000001.png, found videos: extract one frame a second")
        return found, left_out(unlabelled, found, "the labels end before them")

    return find


CHOLEC80 = SurgicalSet(
    name="cholec80",
    title="Cholec80",
    layout="frames/videoNN/videoNN_000001.png (one a second), phase_annotations/videoNN-phase.txt and "
    "tool_annotations/videoNN-tool.txt",
    views=(
        View("tools", ("presence",), _cholec80("tool_annotations/{}-tool.txt", _tools), names=TOOLS),
        View("phases", ("classification",), _cholec80("phase_annotations/{}-phase.txt", _phases), names=PHASES),
    ),
    split="by video, published: train 1-32, val 33-40, test 41-80",
    held={"val": range(33, 41), "test": range(41, 81)},
    licence="CC BY-NC-SA 4.0, on request",
    citation="Twinanda et al., EndoNet: a deep architecture for recognition tasks on laparoscopic videos, TMI 2017",
    url="http://camma.u-strasbg.fr/datasets",
    videos=frozenset(range(1, 81)),
    usual=frozenset(range(1, 41)),
)

T50_INSTRUMENTS = ("grasper", "bipolar", "hook", "scissors", "clipper", "irrigator")
T50_VERBS = (
    "grasp", "retract", "dissect", "coagulate", "clip", "cut", "aspirate", "irrigate", "pack", "null_verb",
)  # fmt: skip
T50_TARGETS = (
    "gallbladder", "cystic_plate", "cystic_duct", "cystic_artery", "cystic_pedicle", "blood_vessel", "fluid",
    "abdominal_wall_cavity", "liver", "adhesion", "omentum", "peritoneum", "gut", "specimen_bag", "null_target",
)  # fmt: skip
T50_TRAIN = (
    1, 2, 4, 5, 13, 15, 18, 22, 23, 25, 26, 27, 31, 35, 36, 40, 43, 47, 48, 49, 52, 56, 57, 60, 62, 65, 66, 68, 70, 75,
    79, 92, 96, 103, 110,
)  # fmt: skip
T50_VAL, T50_TEST = (8, 12, 29, 50, 78), (6, 10, 14, 32, 42, 51, 73, 74, 80, 111)
ROW = 15
"""Numbers in a row of labels: triplet; instrument, probability, box; verb; target, probability, box; phase."""


def _rows(path: Path, column: int, names: tuple[str, ...]) -> Labels:
    """What is in a column of a video's rows, by frame; -1 is nothing."""
    try:
        entries: dict[str, list[list[Any]]] = json.loads("\n".join(read_lines(path)))["annotations"]
        for rows in entries.values():
            if any(len(row) != ROW for row in rows):
                raise ValueError(f"a row of other than {ROW} numbers")
        shown = {int(frame): {int(row[column]) for row in rows} for frame, rows in entries.items()}
        return {frame: tuple(names[one] for one in sorted(ids) if one >= 0) for frame, ids in shown.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"{path}: not the labels of a video ({error!r:.80})") from None


def _cholect50(column: int, names: tuple[str, ...]) -> Callable[[Path], tuple[list[Found], list[str]]]:
    """Frames, counted from 0 as their labels are, with what a column of the labels says of them."""

    def find(root: Path) -> tuple[list[Found], list[str]]:
        found, unlabelled = list[Found](), 0
        labels: dict[str, Labels] = {}
        for file in globbed(root, "videos/VID*/*.png"):
            match = re.fullmatch(r"videos/(VID\d+)/(\d+)\.png", file)
            if not match:
                continue
            if match[1] not in labels:
                labels[match[1]] = _rows(root / f"labels/{match[1]}.json", column, names)
            if (shown := labels[match[1]].get(int(match[2]))) is None:
                unlabelled += 1
            else:
                found.append(Found(file, match[1], shown))
        return found, left_out(unlabelled, found, "no labels are given for them")

    return find


CHOLECT50 = SurgicalSet(
    name="cholect50",
    title="CholecT50",
    layout="videos/VIDnn/000000.png and labels/VIDnn.json",
    views=(
        View("instruments", ("presence",), _cholect50(1, T50_INSTRUMENTS), names=T50_INSTRUMENTS),
        View("verbs", ("presence",), _cholect50(7, T50_VERBS), names=T50_VERBS),
        View("targets", ("presence",), _cholect50(8, T50_TARGETS), names=T50_TARGETS),
    ),
    split="by video, published (Rendezvous, the list `cholect50` of its data loader): 35 train, 5 val, 10 test",
    held={"val": T50_VAL, "test": T50_TEST},
    licence="CC BY-NC-SA 4.0, on request",
    citation="Nwoye et al., Rendezvous: attention mechanisms for the recognition of action triplets, MedIA 2022",
    url="https://github.com/CAMMA-public/cholect50",
    unverified=(
        "columns of the rows",
        "names and order of instruments, verbs and targets",
        "video numbers above 80 are not of Cholec80",
    ),
    videos=frozenset({*T50_TRAIN, *T50_VAL, *T50_TEST}),
    usual=frozenset(T50_TRAIN),
)

SETS = (CHOLECSEG8K, CHOLEC80, CHOLECT50)
