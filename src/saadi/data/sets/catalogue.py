"""All public sets by name, and how they are listed (`saadi datasets`)."""

from __future__ import annotations

import difflib
from typing import Any

from saadi.data.sets import abdomen, cholecystectomy, eye, stills
from saadi.data.sets.declare import SurgicalSet, View
from saadi.errors import BadInput
from saadi.records import Task

SETS: dict[str, SurgicalSet] = {
    one.name: one for family in (cholecystectomy, abdomen, eye, stills) for one in family.SETS
}


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, 1, 0.4)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def find_view(name: str | None, task: Task) -> tuple[SurgicalSet, View]:
    """The set and the view that `data.set` names, `set` or `set/view`; without a view the first that serves the task.

    Raises `BadInput` with the nearest name for an unknown one, and for a view that does not serve the task.
    """
    if not name:
        raise BadInput(f"data.set is not set; source set needs one of {', '.join(SETS)}")
    first, _, second = name.partition("/")
    if first not in SETS:
        raise BadInput(f"data.set: no set is called {first!r}; {_nearest(first, list(SETS))}")
    chosen = SETS[first]
    views = {view.name: view for view in chosen.views}
    if second and second not in views:
        raise BadInput(f"data.set: {first} has no view {second!r}; {_nearest(second, list(views))}")
    serving = [view for view in (views[second],) if task in view.tasks] if second else []
    serving = serving or [view for view in chosen.views if not second and task in view.tasks]
    if not serving:
        tasks = dict.fromkeys(one for view in ([views[second]] if second else chosen.views) for one in view.tasks)
        raise BadInput(f"task: {name} serves {' and '.join(tasks)}, not {task}")
    return chosen, serving[0]


def describe() -> list[dict[str, Any]]:
    """Every set as values that `json.dumps` takes."""
    return [
        {
            "name": one.name,
            "title": one.title,
            "views": [
                {"name": view.name, "tasks": list(view.tasks), "classes": list(view.classes)} for view in one.views
            ],
            "layout": one.layout,
            "split": one.split,
            "licence": one.licence,
            "citation": one.citation,
            "url": one.url,
            "unverified": list(one.unverified),
        }
        for one in SETS.values()
    ]


def render_sets() -> str:
    """The sets as plain text."""
    lines: list[str] = []
    for one in describe():
        lines.append(f"{one['name']}: {one['title']}")
        lines += [
            f"  {one['name']}/{view['name']} ({', '.join(view['tasks'])}): {', '.join(view['classes'])}"
            for view in one["views"]
        ]
        lines += [f"  {key}: {one[key]}" for key in ("split", "licence", "citation", "url")]
        lines += [f"  unverified: {what}" for what in one["unverified"]]
        lines.append("")
    return "\n".join([*lines, "In a config: data: {source: set, set: NAME or NAME/VIEW, path: FOLDER}"])
