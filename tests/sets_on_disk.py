"""Miniatures of public sets, laid out as they are published, quirks included."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saadi.data.sets import abdomen, cholecystectomy, eye, stills

SIZE = (48, 36)
"""Width and height of most images, pixels."""


def frame(path: Path, size: tuple[int, int] = SIZE) -> None:
    """An image that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).save(path)


def stripes(values: Sequence[int], size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Values side by side, [H, W]."""
    width, height = size
    return np.tile(np.array(values, np.uint8)[np.arange(width) * len(values) // width], (height, 1))


def mask(path: Path, values: NDArray[np.uint8], mode: str = "L") -> None:
    """A mask of values [H, W]; with colours [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "RGBA":
        image = Image.merge("RGBA", [*[image] * 3, Image.new("L", image.size, 0)])
    (image if image.mode == mode else image.convert(mode)).save(path)


def cholecseg8k(root: Path, videos: Iterable[int] = (1, 9, 12, 17), frames: int = 8) -> None:
    """Watershed masks of three channels and, every other one, a transparent fourth; a 1-px border; some unlabelled."""
    tools = ((31,), (32,), (31, 32), ())
    for video in videos:
        for place in range(frames):
            folder = root / f"video{video:02d}" / f"video{video:02d}_00080"
            stem = f"frame_{80 + place}_endo"
            frame(folder / f"{stem}.png")
            values = stripes((50, 0, 11, 21, 13, 12, 23, 24, 25, 22, 33, 5, *tools[place % 4]))
            values[[0, -1]] = values[:, [0, -1]] = 255
            mask(folder / f"{stem}_watershed_mask.png", values, ("RGBA", "RGB")[place % 2])
            for other in ("mask", "color_mask"):
                frame(folder / f"{stem}_{other}.png")


def cholec80(root: Path, videos: Iterable[int] = (1, 2, 33, 41)) -> None:
    """Frames count seconds from 1, labels frames of video from 0; the last frame is one more than the labels."""
    for video in videos:
        name = f"video{video:02d}"
        for second in range(1, 18):
            frame(root / f"frames/{name}/{name}_{second:06d}.png")
        phases = [cholecystectomy.PHASES[at // 25 % 7] for at in range(16 * 25)]
        for folder in ("phase_annotations", "tool_annotations"):
            (root / folder).mkdir(exist_ok=True)
        rows = [f"{at}\t{phase}" for at, phase in enumerate(phases)]
        (root / f"phase_annotations/{name}-phase.txt").write_text("Frame\tPhase\n" + "\n".join(rows) + "\n")
        tools = ["\t".join(map(str, (25 * at, *((at + tool) % 2 for tool in range(7))))) for at in range(16)]
        head = "\t".join(("Frame", *cholecystectomy.TOOLS))
        (root / f"tool_annotations/{name}-tool.txt").write_text("\n".join((head, *tools)) + "\n")


def cholect50(root: Path, videos: Iterable[int] = (1, 2, 8, 6, 111)) -> None:
    """Frames and labels count from 0; every instrument, verb and target is somewhere, and frame 1 shows nothing."""
    (root / "labels").mkdir()
    for video in videos:
        entries: dict[str, list[list[float]]] = {}
        for place in range(6):
            frame(root / f"videos/VID{video:02d}/{place:06d}.png")
            ids = [] if place == 1 else range(15)
            rows = [[0, one % 6, 1, 0.1, 0.1, 0.2, 0.2, one % 10, one, 1, 0.1, 0.1, 0.2, 0.2, 0] for one in ids]
            entries[str(place)] = rows or [[-1.0] * 15]
        (root / f"labels/VID{video:02d}.json").write_text(json.dumps({"annotations": entries}))


def dsad(root: Path, patients: Iterable[int] = (1, 4, 3, 2)) -> None:
    """Masks of 0 and 255, of one organ a file; the third image of a patient does not show the organ."""
    for patient in patients:
        for place in range(3):
            half = stripes((0, 255 * (place < 2)))
            for organ in abdomen.ORGANS:
                frame(root / f"{organ}/{patient:02d}/image{place:02d}.png")
                mask(root / f"{organ}/{patient:02d}/mask{place:02d}.png", half)
            folder = root / f"multilabel/{patient:02d}"
            frame(folder / f"image{place:02d}.png")
            for at, organ in enumerate(abdomen.TOGETHER):
                values = stripes([255 * (at == one) for one in range(8)])
                mask(folder / f"mask{place:02d}_{organ}.png", values)


ENDOVIS17_TOOLS = (
    "Maryland_Bipolar_Forceps_labels", "Prograsp_Forceps", "Large_Needle_Driver_Left_labels", "Right_Vessel_Sealer",
    "Left_Grasping_Retractor_labels", "Monopolar_Curved_Scissors_labels", "Other_labels",
)  # fmt: skip


def endovis17(root: Path, sets: Iterable[int] = (1, 2, 4, 6), size: tuple[int, int] = SIZE) -> None:
    """A folder of masks for each instrument, named in several ways. In full size, 1920 x 1080, frames are cut."""
    for one in sets:
        folder = root / f"instrument_dataset_{one}"
        for place in range(2):
            frame(folder / f"left_frames/frame{place:03d}.png", size)
            for at, tool in enumerate(ENDOVIS17_TOOLS):
                part = 40 if tool == "Other_labels" else (10, 20, 30)[at % 3]
                values = stripes([part * (at == row) for row in range(-3, 10)], size)
                mask(folder / f"ground_truth/{tool}/frame{place:03d}.png", values)


def endovis18(root: Path, sequences: Iterable[int] = (1, 3, 4, 2)) -> None:
    """Masks of colours; folders of the first release are named otherwise than the rest."""
    colours = np.array([[value >> 16, value >> 8 & 255, value & 255] for value in abdomen.SCENE], np.uint8)
    for one in sequences:
        release = "miccai_challenge_2018_release_1" if one < 4 else "miccai_challenge_release_2"
        for place in range(2):
            frame(root / f"{release}/seq_{one}/left_frames/frame{place:03d}.png")
            mask(root / f"{release}/seq_{one}/labels/frame{place:03d}.png", colours[stripes(range(12))], "RGB")


def cadis(root: Path, videos: Iterable[int] = (1, 3, 5, 2)) -> None:
    """The number of a video is padded in its folder, not in its files."""
    for video in videos:
        for place in range(2):
            name = f"Video{video}_frame{place:06d}.png"
            frame(root / f"Video{video:02d}/Images/{name}", (96, 54))
            mask(root / f"Video{video:02d}/Labels/{name}", stripes((*range(36), 255), (96, 54)))


def cataract_1k(root: Path, cases: Iterable[int] = (5301, 5302, 5315, 5329)) -> None:
    """Polygons: cornea and, listed before it, what lies on top of it; a hole in the cornea; two spellings."""
    base = root / "Segmentation_dataset/Annotations/Images-and-Supervisely-Annotations"
    titles = [title for title in eye.CATARACT_1K_IDS if not title.lower().startswith(("cornea", "pupil"))]
    for at, case in enumerate(cases):
        for place in range(2):
            name = f"case{case}_{place:02d}.png"
            frame(base / f"case_{case}/img/{name}")
            things = [*titles, ("Pupil", "pupil1")[at % 2], ("cornea1", "Cornea")[at % 2]]
            objects = []
            for row, title in enumerate(things):
                ring = [[3 * row, 4], [3 * row + 2, 4], [3 * row + 2, 20], [3 * row, 20]]
                hole: list[list[list[int]]] = []
                if "ornea" in title:
                    ring = [[0, 0], [47, 0], [47, 35], [0, 35]]
                    hole = [[[40, 24], [46, 24], [46, 34], [40, 34]]]
                points = {"exterior": ring, "interior": hole}
                objects.append({"classTitle": title, "geometryType": "polygon", "points": points})
            path = base / f"case_{case}/ann/{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"size": {"height": SIZE[1], "width": SIZE[0]}, "objects": objects}))


def lapgyn4(root: Path, images: int = 12) -> None:
    """Folders of classes in four parts; files of the first three are named after operation, video and frame."""
    for part, names in stills.LAPGYN4_CLASSES.items():
        for name in names:
            for place in range(images):
                case = f"p{place % 6}_{place}" if part == "Instrument_Count" else f"c_{place % 6}_v_3_f_{place}"
                frame(root / f"LapGyn4_v1.2/{part}/{name}/{case}.jpg")


def hyperkvasir(root: Path, images: int = 10) -> None:
    """Split files, separated by semicolons, call classes otherwise than the folders."""
    rows = ["file-name;class-name;split-index"]
    names = {folder: name for name, folder in stills.OTHER_NAMES.items()}
    for at, folder in enumerate(stills.KVASIR_CLASSES):
        for place in range(images):
            tract = ("lower", "upper")[at % 2]
            frame(root / f"labeled-images/{tract}-gi-tract/some-group/{folder}/{folder}-{place}.jpg")
            rows.append(f"{folder}-{place}.jpg;{names.get(folder, folder)};{place % 5}")
    (root / "official_splits").mkdir()
    (root / "official_splits/5_fold_split.csv").write_text("\n".join(rows) + "\n")


def kvasir_seg(root: Path, images: int = 20) -> None:
    """Masks are JPEG, so that their edges are blurred; the lists name files without their ending."""
    for place in range(images):
        frame(root / f"Kvasir-SEG/images/k{place}.jpg")
        path = root / f"Kvasir-SEG/masks/k{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        edges = stripes((0, 255, 0, 255, 0))  # not where JPEG's blocks end
        Image.fromarray(edges).convert("RGB").save(path, quality=30)
    for name, rows in (("train", range(images - 4)), ("val", range(images - 4, images))):
        (root / f"Kvasir-SEG/{name}.txt").write_text("\n".join(f"k{row}" for row in rows) + "\n")


BUILDERS: dict[str, Callable[[Path], None]] = {
    "cholecseg8k": cholecseg8k,
    "cholec80": cholec80,
    "cholect50": cholect50,
    "dsad": dsad,
    "endovis17": endovis17,
    "endovis18": endovis18,
    "cadis": cadis,
    "cataract-1k": cataract_1k,
    "lapgyn4": lapgyn4,
    "hyperkvasir": hyperkvasir,
    "kvasir-seg": kvasir_seg,
}
