"""The documentation says what is true now."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from conftest import Command

from saadi.config import RunConfig
from saadi.configfile import demo_config, load_config, parse_config
from saadi.reference import settings_reference

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def test_the_settings_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == settings_reference(), "run: saadi settings > docs/configuration.md"


def test_the_commands_page_is_up_to_date(saadi: Command) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == saadi("commands").out, "run: saadi commands > docs/commands.md"


def _anchors(page: str) -> set[str]:
    """What links may name on a page: its headings, as GitHub has them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_between_pages_leads_somewhere() -> None:
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page):
            place = path.parent / target if target else path
            assert place.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in _anchors(place.read_text(encoding="utf-8")), f"{path.name}: #{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_piece_of_a_configuration_can_be_used(path: Path) -> None:
    for piece in re.findall(r"^ *```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        parse_config(yaml.safe_load(dedent(piece)), path.name)


def test_every_default_on_the_page_is_the_configurations() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", settings_reference(), re.MULTILINE)
    assert len(rows) > 60
    for name, shown in rows:
        value: Any = RunConfig()
        for key in name.split("."):
            value = getattr(value, key)
        assert shown == str(list(value) if isinstance(value, tuple) else value), name


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    load_config(path)


def test_the_demo_is_two_rounds_of_the_phantom() -> None:
    config = demo_config(7)
    assert (config.data.source, config.rounds, config.seed) == ("phantom", 2, 7)
