"""What a finished stage says of itself: what it was made from, and the hash of every file it made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saadi.errors import BadInput
from saadi.files import SCAFFOLD, file_digest
from saadi.records import read_json

MANIFEST = "manifest.json"


def read_manifest(path: Path, stage: str) -> dict[str, Any]:
    """The manifest of a stage. Raises `BadInput` where it was damaged."""
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(manifest["key"]["inputs"], dict) and isinstance(manifest["outputs"], dict):
            return dict(manifest)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise BadInput(f"{path}: is damaged; --redo {stage} makes the stage anew, with what follows")


def manifest_paths(folder: Path) -> Iterator[tuple[str, Path]]:
    """Stage names and manifests under a run's folder, oldest first."""
    for path in sorted(folder.rglob(MANIFEST), key=lambda path: path.stat().st_mtime_ns):
        yield str(path.parent.relative_to(folder)), path


def read_manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifests under a run's folder, by stage name, oldest first. Raises `BadInput` for one that was damaged."""
    return {name: read_manifest(path, name) for name, path in manifest_paths(folder)}


def inputs_of(folder: Path) -> dict[str, set[str]]:
    """By finished stage the stages it was made from; of a damaged manifest nothing is known."""
    found: dict[str, set[str]] = {}
    for name, path in manifest_paths(folder):
        try:
            found[name] = set(read_manifest(path, name)["key"]["inputs"])
        except BadInput:
            found[name] = set()
    return found


def hash_outputs(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a stage has made. What a kill in the midst of writing left is removed first."""
    for half in (*folder.rglob("*.partial"), *folder.rglob(".tmp*")):  # ours, and that of safetensors
        if half.is_file():
            half.unlink()
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not set(SCAFFOLD) & set(path.relative_to(folder).parts)
    }


def sweep(folder: Path) -> None:
    """Remove what a stage needed until its manifest was there: a kill before has cost nothing."""
    for name in SCAFFOLD:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def verify(stage: str, folder: Path, outputs: Mapping[str, str]) -> None:
    """Raise `BadInput` that names the first file of a finished stage which is gone or was changed."""
    for file, expected in outputs.items():
        path = folder / file
        if not path.is_file():
            raise BadInput(f"{path}: is missing, though stage {stage} was finished; --redo {stage} makes it anew")
        if file_digest(path) != expected:
            raise BadInput(f"{path}: was changed after stage {stage} wrote it; --redo {stage} makes it anew")


def retire_results(folder: Path) -> None:
    """Take away a run's results and page, which are true of the stages they were made from only.

    What was read on `test` is never lost: final results, and the predictions behind them, are kept under other names.
    """
    for told in ("report.html", "model-card.md"):
        (folder / told).unlink(missing_ok=True)
    results, predictions = folder / "results.json", folder / "evaluation" / "predictions-test.npz"
    if not read_json(results).get("final"):
        results.unlink(missing_ok=True)
        return
    number = len(list(folder.glob("results-final-*.json"))) + 1
    if predictions.is_file():
        predictions.replace(predictions.with_name(f"predictions-final-{number}.npz"))
    results.replace(folder / f"results-final-{number}.json")  # last: a kill before it is made good
