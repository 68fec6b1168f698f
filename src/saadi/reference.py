"""The reference of settings and of commands, written from these themselves, so that it cannot be out of date."""

from __future__ import annotations

from typing import Any

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


_COMMANDS = """# Every command

Written by `saadi commands`; a test keeps it true. Exit codes: 0; 2 for what you can mend, with one line that says what
and where; 3 for an interruption, after which the same command resumes. `torchrun ... -m saadi` starts several processes
([gpu.md](gpu.md)).
"""


def _parameter(parameter: Any) -> str:
    name = ", ".join(parameter.opts) if parameter.param_type_name == "option" else str(parameter.metavar)
    value = f" {parameter.metavar}" if parameter.param_type_name == "option" and parameter.metavar else ""
    return f"| `{name}{value}` | {parameter.help or ''} |"


def commands_reference(group: Any) -> str:
    """The commands of a typer group as Markdown."""
    parts = [_COMMANDS]
    for name, command in group.commands.items():
        said = " ".join(command.help.split())
        rows = [_parameter(parameter) for parameter in command.params]
        table = ["", "| argument | meaning |", "|---|---|", *rows] if rows else []
        parts.append("\n".join([f"## saadi {name}", "", said, *table, ""]))
    return "\n".join(parts)


def settings_reference() -> str:
    """All settings as Markdown."""
    return _HEAD + "\n".join(_section(RunConfig(), "")) + "\n"
