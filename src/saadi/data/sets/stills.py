"""Sets of single images, whose paths name no patient: gynaecological laparoscopy and gastrointestinal endoscopy."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from saadi.data.sets.declare import BACKGROUND, Found, SurgicalSet, View, table_of
from saadi.data.sets.finders import ClassFolders, Paired, beside, left_out, read_lines
from saadi.data.sets.openers import bright
from saadi.errors import BadInput
from saadi.records import Split

LAPGYN4_CLASSES = {
    "Surgical_Actions": (
        "Coagulation", "Cutting_Cold", "Cutting_HF", "Dissection_Blunt", "Injection", "Sling_Hysterectomy",
        "Suction_Irrigation", "Suturing",
    ),
    "Anatomical_Structures": ("Colon", "Liver", "Ovary", "Oviduct", "Uterus"),
    "Actions_on_Anatomy": ("Suturing_Other", "Suturing_Ovary", "Suturing_Uterus", "Suturing_Vagina"),
    "Instrument_Count": ("0", "1", "2", "3"),
}  # fmt: skip

CASE = r"(c_\d+)_v_\d+_f_\d+"
"""How LapGyn4's readme.txt says that files are named, except those of Instrument_Count: an operation's number first."""

LAPGYN4 = SurgicalSet(
    name="lapgyn4",
    title="LapGyn4 v1.2",
    layout=f"{', '.join(LAPGYN4_CLASSES)}, each <class>/*.jpg",
    views=tuple(
        View(
            folder.lower().replace("_", "-"), ("classification",), ClassFolders(f"{folder}/", names, CASE), names=names
        )
        for folder, names in LAPGYN4_CLASSES.items()
    ),
    split="none is published: 60/20/20 by the seed, by operation; of instrument-count, whose files do not name it, by "
    "data.groups or else by image",
    licence="CC BY-NC 4.0",
    citation="Leibetseder et al., LapGyn4: a dataset for 4 automatic content analysis problems, MMSys 2018",
    url="http://ftp.itec.aau.at/datasets/LapGyn4",
    inner="LapGyn4_v1.2",
    patients=False,
    shares={"cholec80": "some images of LapGyn4's instrument-count are of Cholec80, and no file says which"},
)

KVASIR_CLASSES = (
    "barretts", "barretts-short-segment", "bbps-0-1", "bbps-2-3", "cecum", "dyed-lifted-polyps",
    "dyed-resection-margins", "esophagitis-a", "esophagitis-b-d", "hemorrhoids", "ileum", "impacted-stool", "polyps",
    "pylorus", "retroflex-rectum", "retroflex-stomach", "ulcerative-colitis-grade-0-1", "ulcerative-colitis-grade-1",
    "ulcerative-colitis-grade-1-2", "ulcerative-colitis-grade-2", "ulcerative-colitis-grade-2-3",
    "ulcerative-colitis-grade-3", "z-line",
)  # fmt: skip
OTHER_NAMES = {
    "normal-cecum": "cecum", "normal-pylorus": "pylorus", "normal-z-line": "z-line", "hemorroids": "hemorrhoids",
    "polyp": "polyps", "oesophagitis-a": "esophagitis-a", "oesophagitis-b-d": "esophagitis-b-d",
    "short-segment-barretts": "barretts-short-segment", "ulcerative-colitis-0-1": "ulcerative-colitis-grade-0-1",
    "ulcerative-colitis-1-2": "ulcerative-colitis-grade-1-2",
    "ulcerative-colitis-2-3": "ulcerative-colitis-grade-2-3",
}  # fmt: skip
"""What split files call folders."""
FOLDS: dict[str, Split] = {"0": "train", "1": "train", "2": "train", "3": "val", "4": "test"}
SPLIT_FILE = "official_splits/5_fold_split.csv"


def _folds(path: Path) -> dict[str, tuple[str, Split]]:
    """Class, as folders call it, and split by file name."""
    rows = list(csv.reader(read_lines(path), delimiter=";"))
    splits: dict[str, tuple[str, Split]] = {}
    for row in rows[1:]:
        if len(row) != 3 or row[2].strip() not in FOLDS:
            raise BadInput(f"{path}: {';'.join(row)!r:.80} is not file-name;class-name;split-index with an index 0-4")
        file, label, fold = (cell.strip() for cell in row)
        splits[Path(file).stem] = (OTHER_NAMES.get(label, label), FOLDS[fold])
    return splits


def _hyperkvasir(root: Path) -> tuple[list[Found], list[str]]:
    """Images in class folders, split as the official folds say."""
    images, _ = ClassFolders("*-gi-tract/", KVASIR_CLASSES)(root)
    if not images:
        return [], []
    path = beside(root, SPLIT_FILE)
    splits = _folds(path)
    found = []
    for image in images:
        label, split = splits.get(Path(image.file).stem, (None, None))
        if label is not None and (label,) != image.labels:
            raise BadInput(f"{path} says {label} of {image.file}, expected the class of its folder")
        if split is not None:
            found.append(replace(image, split=split))
    return found, left_out(len(images) - len(found), found, f"{path.name} does not list them")


POLYPS = "HyperKvasir's polyps and Kvasir-SEG's come of one collection, and very likely hold the same images"

HYPERKVASIR = SurgicalSet(
    name="hyperkvasir",
    title="HyperKvasir labelled images",
    layout="labeled-images/{lower,upper}-gi-tract/<group>/<class>/*.jpg and official_splits/5_fold_split.csv",
    views=(View("findings", ("classification",), _hyperkvasir, names=KVASIR_CLASSES),),
    split="by image, of the official 5 folds we take 0, 1, 2 as train, 3 as val, 4 as test; no patient is given",
    licence="CC BY 4.0",
    citation="Borgli et al., HyperKvasir, a comprehensive multi-class image and video dataset, Scientific Data 2020",
    url="https://datasets.simula.no/hyper-kvasir and https://github.com/simula/hyper-kvasir",
    inner="labeled-images",
    patients=False,
    shares={"kvasir-seg": POLYPS},
    unverified=("the split files' header", "their spelling of ulcerative-colitis-grade: with and without `grade`"),
)


def _kvasir_seg(pairs: Callable[[Path], tuple[list[Found], list[str]]]) -> Callable[..., tuple[list[Found], list[str]]]:
    """The images that the official lists name; the second list is test."""

    def find(root: Path) -> tuple[list[Found], list[str]]:
        images, _ = pairs(root)
        if not images:
            return [], []
        splits: dict[str, Split] = {}
        lists: tuple[tuple[str, Split], ...] = (("train.txt", "train"), ("val.txt", "test"))
        for name, split in lists:
            names = [Path(line).stem for line in read_lines(beside(root, name))]
            if twice := [one for one in names if splits.get(one, split) != split]:
                raise BadInput(f"{twice[0]} is in train.txt and val.txt, expected it in one of them")
            splits |= dict.fromkeys(names, split)
        found = [replace(image, split=splits[image.group]) for image in images if image.group in splits]
        return found, left_out(len(images) - len(found), found, "train.txt and val.txt do not list them")

    return find


KVASIR_SEG = SurgicalSet(
    name="kvasir-seg",
    title="Kvasir-SEG",
    layout="images/*.jpg, masks/*.jpg of the same names, and the official train.txt and val.txt",
    views=(
        View(
            "polyps",
            ("segmentation",),
            _kvasir_seg(Paired("images/*.jpg", r"images/(?P<group>[^/]+)\.jpg", r"masks/\g<group>.jpg")),
            table_of("Kvasir-SEG", {0: BACKGROUND, 1: "polyp"}, bright),
        ),
    ),
    split="by image, official: the 120 of val.txt are test; val is drawn from the 880 of train.txt by the seed; "
    "no patient is given",
    licence="research use",
    citation="Jha et al., Kvasir-SEG: a segmented polyp dataset, MMM 2020",
    url="https://datasets.simula.no/kvasir-seg and, for the lists, "
    "https://github.com/DebeshJha/2020-MediaEval-Medico-polyp-segmentation",
    inner="Kvasir-SEG",
    patients=False,
    shares={"hyperkvasir": POLYPS},
    unverified=("where the lists lie: they are looked for in the folder and beside it",),
)

SETS = (LAPGYN4, HYPERKVASIR, KVASIR_SEG)
