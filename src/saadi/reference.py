"""The configuration reference, written from the models themselves, so that it cannot be out of date."""

from __future__ import annotations

from pydantic import BaseModel

from saadi.config import RunConfig

_HEAD = """# Every setting

Written by `saadi settings`; a test keeps it true. A config is one YAML file; what it leaves out has the default. \
`--set a.b=c` overrides one
setting on the command line. An unknown name is refused.
"""


def _section(part: BaseModel, path: str) -> list[str]:
    """A part's settings and those of the parts in it; defaults are its own, since two parts of a kind may differ."""
    rows: list[str] = []
    inner: list[str] = []
    for name, field in type(part).model_fields.items():
        default = getattr(part, name)
        if isinstance(default, BaseModel):
            inner += _section(default, f"{path}{name}.")
            continue
        shown = list(default) if isinstance(default, tuple) else default
        rows.append(f"| `{path}{name}` | `{shown}` | {field.description or ''} |")
    head = [
        f"\n## {path.rstrip('.') or 'the run'}\n",
        (part.__doc__ or "").strip(),
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    return [*head, *rows, *inner]


def settings_reference() -> str:
    """All settings as Markdown."""
    return _HEAD + "\n".join(_section(RunConfig(), "")) + "\n"
