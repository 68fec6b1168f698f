"""A configuration from a YAML file and back: unknown keys are refused with the nearest name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from saadi.config import ClassifierConfig, RunConfig
from saadi.errors import BadInput

AnyPart = TypeVar("AnyPart", bound=BaseModel)

HUB = "hub:"
"""What `base.model` begins with where a name on the Hugging Face hub follows."""


def _fields(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    for key in path:
        annotation = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


class _Once(yaml.SafeLoader):
    """Refuses a name that stands twice in a mapping: YAML's own loader keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise BadInput(f"{key.value} is given twice, again at line {key.start_mark.line + 1}; put both in one")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def parse_config(values: Any, source: str) -> RunConfig:
    """Check a nested mapping. `source` names it in errors. Raises `BadInput` with one line."""
    if not isinstance(values, dict):
        raise BadInput(f"{source}: expected a mapping of settings, found {type(values).__name__}")
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), _fields(RunConfig, first["loc"][:-1]), 1, 0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BadInput(f"{source}: unknown setting {where}{hint}") from None
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "tuple_type":
            reason = "should be a list; put it in brackets, [ ]"
        elif first["type"] == "string_type" and isinstance(first.get("input"), (int, float)):
            reason = "should be text; put it in quotes"
        # Aliases can make a few lines of YAML a value of any size
        found = reprlib.repr(first.get("input"))
        raise BadInput(f"{source}: {where}: {reason} (found {found:.80})") from None


def set_value(values: dict[str, Any], assignment: str) -> None:
    """Apply one `a.b=c` to a nested mapping, in place; the value is read as YAML."""
    key, sign, text = assignment.partition("=")
    if not sign or not key:
        raise BadInput(f"--set {assignment}: expected a.b=value")
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:  # an empty section is null in YAML
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise BadInput(f"--set {assignment}: {parent} is a value, not a section")
    try:
        values[last] = yaml.safe_load(text)
    except Exception:  # whatever PyYAML's constructors happen to meet
        raise BadInput(f"--set {assignment}: {text!r} is not a YAML value") from None


def load_config(path: Path, assignments: tuple[str, ...] = ()) -> RunConfig:
    """Read a YAML file. Relative paths (`data.path`, a folder as a model) are meant from the file's folder. Raises
    `BadInput`."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Once) or {}
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; `saadi run CONFIG` takes a YAML file (examples: configs/)") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: cannot be read: it is a folder; give a YAML file that names it as data.path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except Exception as error:  # PyYAML's constructors raise what they happen to meet, as on `!!int ""`
        line = f" at line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""  # type: ignore[attr-defined]
        raise BadInput(f"{path}: not valid YAML{line}") from None
    if isinstance(values, dict):
        for assignment in assignments:
            set_value(values, assignment)
    config = parse_config(values, str(path))
    data, base = config.data, config.base
    if data.path is not None and not data.path.is_absolute():
        data = data.model_copy(update={"path": _resolved(path, "data.path", data.path)})
    if base.model != "tiny" and not base.model.startswith(HUB) and not Path(base.model).is_absolute():
        base = base.model_copy(update={"model": str(_resolved(path, "base.model", Path(base.model)))})
    critic, evaluation = _with_folders(path, config.critic), _with_folders(path, config.evaluation)
    return config.model_copy(update={"data": data, "base": base, "critic": critic, "evaluation": evaluation})


def _with_folders(source: Path, part: AnyPart) -> AnyPart:
    """The section with its downstream models' folders as they are meant in the file `source`."""
    recipes = {name: one for name, one in part if isinstance(one, ClassifierConfig)}
    found = {name: one.model_copy(update={"model": _folder(source, one.model)}) for name, one in recipes.items()}
    return part.model_copy(update=found)


def _folder(source: Path, model: str) -> str:
    """A folder, a name with a slash, as an absolute path: from that of the file `source`, or else from where the
    command was called. Other names as they are."""
    for place in (source.parent, Path()) if "/" in model else ():
        with suppress(OSError):  # a name that is too long, say: `architecture` tells
            if (place / model).is_dir():
                return str((place / model).resolve())
    return model


def _resolved(source: Path, setting: str, path: Path) -> Path:
    """A path as it is meant in the file `source`. Raises `BadInput`."""
    try:
        return (source.parent / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a zero byte
        raise BadInput(f"{source}: {setting}: {str(path)!r:.80} is no path ({error})") from None


def demo_config(seed: int = 0, assignments: tuple[str, ...] = (), task: str = "classification") -> RunConfig:
    """The demo's configuration; another seed is another phantom. Raises `BadInput` for a task without a demo."""
    path = Path(str(files("saadi") / "demos" / f"{task}.yaml"))
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in path.parent.glob("*.yaml")))
        raise BadInput(f"--task {task}: has no demo; one of {known}")
    return load_config(path, (f"seed={seed}", *assignments))


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings in which two nested mappings differ."""
    found: list[str] = []
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} ({a} before, {b} now)")
    return found
