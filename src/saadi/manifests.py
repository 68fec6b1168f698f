"""What a finished stage says of itself, whether that still holds, and whether a run may go on in its folder."""

from __future__ import annotations

import difflib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from saadi.config import RunConfig
from saadi.configfile import differences
from saadi.errors import BadInput
from saadi.files import SCAFFOLD, UNFINISHED, file_digest
from saadi.records import read_json

MANIFEST = "manifest.json"
REDO = "redo.json"
"""In a run's folder while stages are made anew: those asked for, and which of them are still to be begun."""
BEFORE = (".lock", "config.yaml.partial")
"""What a run's folder holds before it is one: a kill, or another process, may be in the midst of that."""
TRAININGS = "evaluation/trainings/"
"""What the names of downstream trainings begin with."""


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


def is_whole(stage: str, folder: Path) -> bool:
    """Whether a stage, if it was finished, still has the files it made."""
    try:
        if (folder / MANIFEST).is_file():
            verify(stage, folder, read_manifest(folder / MANIFEST, stage)["outputs"])
    except BadInput:
        return False
    return True


def read_redo(folder: Path) -> tuple[set[str], set[str]]:
    """The stages of a redo that has not reached its end: those asked for, and those still to be begun. Raises
    `BadInput` for a file that was damaged."""
    kept = read_json(folder / REDO)
    try:
        return set(map(str, kept.get("asked", ()))), set(map(str, kept.get("left", ())))
    except TypeError:
        raise BadInput(f"{folder / REDO}: is damaged; delete it, and give --redo for what is to be made anew") from None


def check_folder(folder: Path, config: RunConfig, redo: Sequence[str] = ()) -> None:
    """Raise `BadInput` where a run of `config` may neither begin nor go on in `folder`. Nothing is written."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir():
        raise BadInput(f"{folder}: {'' if place == folder else f'{place} '}is a file; choose another folder with --out")
    made = inputs_of(folder)
    begun = {str(file.parent.relative_to(folder)) for file in folder.rglob(UNFINISHED)}
    stages = begun.union(read_redo(folder)[0], made, *made.values())
    if unknown := sorted({*redo} - stages):
        raise BadInput(f"--redo {unknown[0]}: no such stage in {folder}; {_stages_told(unknown[0], stages)}")
    path = folder / "config.yaml"
    if path.exists():
        old, new = _yaml(path), config.model_dump(mode="json")
        changed = differences(_lasting(old), _lasting(new)) if isinstance(old, dict) else ["all of it"]
        if changed and not redo:
            raise BadInput(
                f"{folder}: was begun with another configuration: {'; '.join(changed[:3])}; "
                "use a new --out, or --redo STAGE to make that stage and what follows anew"
            )
    elif folder.exists() and any(entry.name not in BEFORE for entry in folder.iterdir()):
        raise BadInput(f"{folder}: is not empty and not a run of saadi; choose another --out")


def _stages_told(name: str, stages: Collection[str]) -> str:
    """The stage that was meant, maybe, and those that there are; of trainings, which are many, how many."""
    near = difflib.get_close_matches(name, sorted(stages), 1)
    told = sorted(stage for stage in stages if not stage.startswith(TRAININGS))
    if trainings := len(stages) - len(told):
        told.append(f"{trainings} in {TRAININGS}")
    return f"{f'did you mean {near[0]}? ' if near else ''}there are: {', '.join(told) or 'none yet'}"


def _lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """What stages depend on: not where and in how much memory they are computed, nor who follows them."""
    return {key: value for key, value in config.items() if key not in ("compute", "device", "tracking")}


def _yaml(path: Path) -> Any:
    """What a YAML file holds; nothing that is a mapping where it was damaged."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
