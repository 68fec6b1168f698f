"""Data flows one way through the rooms: a module imports what is before it, never what is after."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import saadi

SOURCE = Path(saadi.__file__).parent
FLOORS = (
    # Metrics are pure functions of arrays: what critics are trained and calibrated by, they are measured by, too.
    "errors seeds records imageconfig config configfile reference files manifests team caches shares training progress "
    "runtime store preferences pairing penalties exchange workers evaluation.metrics evaluation.maps "
    "evaluation.presence",
    "worlds",
    "foundation data",
    "diffusion",
    # The eyes are one of the critics' networks, with which they find the nearest patient: they live on one floor.
    "critics features",
    # The foundation is an address, from which diffusion and critics fetch weights. Making it anew uses both and stands
    # above them; no stage of a run imports it.
    "foundation.pool foundation.autoencoder foundation.pretrain foundation.inpainting",
    "alignment",
    "evaluation",
    "report",
    "plan preflight pipeline folds inspection cards export tracking",
    "cli __main__",
)
FLOOR = {f"saadi.{name}": floor for floor, names in enumerate(FLOORS) for name in names.split()}
"""Of modules, and of rooms for what is in them."""
FLOOR["saadi"] = len(FLOORS)  # it gives out `saadi.run`

MODULES = {
    ".".join(("saadi", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def floor_of(module: str) -> int:
    """The floor of a module, by itself or by its room."""
    if module in FLOOR:
        return FLOOR[module]
    room = ".".join(module.split(".")[:2])
    assert room in FLOOR, f"{module} is new: say in FLOORS where it stands"
    return FLOOR[room]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of everything of ours that a file imports, within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in inner]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "saadi")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_is_before_it(module: str) -> None:
    upwards = [
        f"{MODULES[module].relative_to(SOURCE)}:{line} imports {name}"
        for line, name in imported(MODULES[module])
        if floor_of(name) > floor_of(module)
    ]
    assert not upwards


def test_every_name_in_the_plan_is_there() -> None:
    assert set(FLOOR) <= set(MODULES)
