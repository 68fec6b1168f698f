"""What is left of a run that was disturbed: whether a file is torn, and whether anything is not as in another run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from saadi.files import file_digest
from saadi.manifests import MANIFEST

EQUAL = ("arms", "gains", "synthetic", "val_choices", "critic", "hashes")
"""Of results, what has to be the same."""


def torn(folder: Path) -> list[str]:
    """Files that a resumed run would take as whole, and are not: all of finished stages, and in the others images,
    checkpoints and what was laid into place at once."""
    done = {path.parent for path in folder.rglob(MANIFEST)}

    def trusted(path: Path) -> bool:
        return not done.isdisjoint(path.parents) or path.suffix == ".png" or path.name == "checkpoint.safetensors"

    def candidates() -> Iterator[Path]:
        for path in folder.rglob("*"):
            hidden = path.name.startswith(".tmp") or path.suffix == ".partial" or ".parts" in path.parts
            if path.is_file() and not hidden and (path.parent == folder or trusted(path)):
                yield path

    return [str(path.relative_to(folder)) for path in candidates() if not _whole(path)]


def _whole(path: Path) -> bool:
    try:
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix in (".npy", ".npz"):
            np.load(path, allow_pickle=False)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except Exception:  # whatever a reader says of half a file
        return False
    return True


def made(folder: Path) -> dict[str, str]:
    """The hash of every weight, image, array and record; of weights the tensors, as headers come in any order."""
    hashes: dict[str, str] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            hashes |= {
                f"{name}/{key}": hashlib.sha256(tensor.tobytes()).hexdigest() for key, tensor in load_file(path).items()
            }
        elif "-final-" in name:
            continue  # results that a --redo set aside
        elif path.suffix in (".png", ".npy", ".npz", ".jsonl") and path.name not in ("log.jsonl", "test-reads.jsonl"):
            hashes[name] = file_digest(path)
    return hashes


def differs(folder: Path, undisturbed: Path) -> list[str]:
    """What of a run is not as in another: parts of the results, and files by content or by name."""
    one, other = (json.loads((at / "results.json").read_text(encoding="utf-8")) for at in (folder, undisturbed))
    found = [f"results.json: {part}" for part in EQUAL if one[part] != other[part]]
    mine, theirs = made(folder), made(undisturbed)
    found += sorted(name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name))
    names = [{str(path.relative_to(at)) for path in at.rglob("*")} for at in (folder, undisturbed)]
    return found + sorted(names[0] ^ names[1])
