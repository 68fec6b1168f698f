"""The configuration: what a file may say, and one clear line where it says something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from saadi.config import RunConfig
from saadi.configfile import dump_config, load_config, parse_config, set_value
from saadi.errors import BadInput


def _load(path: Path, text: str, *assignments: str) -> RunConfig:
    path.write_text(text, encoding="utf-8")
    return load_config(path, assignments)


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert _load(tmp_path / "c.yaml", "") == RunConfig()


def test_a_task_brings_what_suits_it_and_the_file_has_the_last_word(tmp_path: Path) -> None:
    found = _load(
        tmp_path / "c.yaml", "task: segmentation\ncritic: {classifier: {steps: 5}}\nsampling: {lead: 0, steps: 7}\n"
    )
    assert (found.critic.classifier.model, found.critic.classifier.steps) == ("small-unet", 5)
    assert (found.sampling.lead, found.sampling.steps, found.evaluation.drawn) == (0, 7, 1)
    assert found.preferences.criterion == "region-dice"
    assert parse_config(found.model_dump(mode="json"), "again") == found
    assert _load(tmp_path / "c.yaml", "", "task=presence").preferences.criterion == "presence-loss"
    assert RunConfig(task="segmentation").critic.judge.model.startswith("smp:")


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        RunConfig().seed = 1  # type: ignore[misc]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**40),
    lr=st.floats(1e-12, 1.0),
    mixing=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4),
    prompt=st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=20),
    patients=st.tuples(*3 * [st.integers(1, 99)]),
)
def test_dump_and_load_round_trip(
    seed: int,
    lr: float,
    mixing: list[float],
    prompt: str,
    patients: tuple[int, int, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    values: dict[str, Any] = {
        "seed": seed,
        "base": {"lr": lr, "prompt": prompt + "{label}"},
        "evaluation": {"mixing": mixing},
        "data": {"path": "/data/somewhere", "phantom": {"patients": list(patients)}},
    }
    config = parse_config(values, "test")
    assert _load(tmp_path_factory.mktemp("config") / "c.yaml", dump_config(config)) == config


def test_every_setting_is_documented() -> None:
    def undocumented(model: type[Any]) -> list[str]:
        found = []
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                found += undocumented(field.annotation)
            elif not field.description and name != "weight_decay":
                found.append(f"{model.__name__}.{name}")
        return found

    assert undocumented(RunConfig) == []


def test_a_relative_data_path_is_meant_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs/c.yaml"
    assert _load(file, "data: {path: ../images}").data.path == (tmp_path / "images").resolve()
    assert _load(file, "data: {path: /far/away}").data.path == Path("/far/away")
    assert _load(file, "", "data.path=here").data.path == (tmp_path / "configs/here").resolve()


def test_a_relative_base_model_is_meant_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs/c.yaml"
    config = _load(file, "base: {model: ../models/sd}")
    assert config.base.model == str((tmp_path / "models/sd").resolve())
    assert _load(file, "", "base.model=here").base.model == str((tmp_path / "configs/here").resolve())
    for model in ("tiny", "hub:owner/name", "/far/away"):
        assert _load(file, f"base: {{model: '{model}'}}").base.model == model
    saved = tmp_path / "run/config.yaml"  # as a run keeps it, for whoever opens it from elsewhere
    saved.parent.mkdir()
    assert _load(saved, dump_config(config)) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sead": 1}, ("unknown setting sead", "did you mean seed?")),
        ({"critic": {"judge": {"modle": "x"}}}, ("unknown setting critic.judge.modle", "did you mean model?")),
        ({"data": {"phantom": {"trian": 1}}}, ("data.phantom.trian", "did you mean train?")),
        ({"zzzzzz": 1}, ("unknown setting zzzzzz",)),
        ({1: 2}, ("1",)),
        ({"data": {"size": 65}}, ("data.size", "multiple of 8", "65")),
        ({"data": {"source": "disk"}}, ("data.source", "'phantom'", "'disk'")),
        ({"evaluation": {"mixing": []}}, ("evaluation.mixing", "at least 1 item")),
        ({"evaluation": {"mixing": [0.5, 2]}}, ("evaluation.mixing.1", "less than or equal to 1")),
        ({"base": {"lr": float("nan")}}, ("base.lr", "finite")),
        ({"base": {"prompt": "{name}"}}, ("base.prompt: must hold {label}",)),
        ("text", ("expected a mapping", "str")),
    ],
)
def test_one_line_names_the_setting(values: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as caught:
        parse_config(values, "my.yaml")
    message = str(caught.value)
    assert message.startswith("my.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_an_unlike_name_gets_no_hint() -> None:
    with pytest.raises(BadInput, match=r"unknown setting zzzzzz$"):
        parse_config({"zzzzzz": 1}, "my.yaml")


def test_assignments_are_yaml_values() -> None:
    values: dict[str, Any] = {"data": None, "seed": 0}
    for assignment in ("a.b.c=1", "a.b.d=[0.5, 1]", "data.path=x=y", "seed=", "name=true"):
        set_value(values, assignment)
    assert values == {
        "data": {"path": "x=y"}, "seed": None, "a": {"b": {"c": 1, "d": [0.5, 1]}}, "name": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("assignment", "word"), [("seed", "a.b=value"), ("=1", "a.b=value"), ("a={", "YAML"), ("seed.x=1", "not a section")]
)
def test_malformed_assignments(assignment: str, word: str) -> None:
    with pytest.raises(BadInput, match=word):
        set_value({"seed": 0}, assignment)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(BadInput, match="cannot be read"):
        load_config(tmp_path / "latin.yaml")
    with pytest.raises(BadInput, match="not valid YAML at line 3"):
        _load(tmp_path / "c.yaml", "a: 1\nb: [\n")


def test_a_folder_as_a_downstream_model_is_meant_from_the_file_or_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("configs", "backbones/imagenet", "elsewhere/nets/mine"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = "critic: {classifier: {model: ../backbones/imagenet}}\nevaluation: {strong: {model: nets/mine}}"
    config = _load(tmp_path / "configs/c.yaml", text)
    assert config.critic.classifier.model == str(tmp_path / "backbones/imagenet")
    assert config.evaluation.strong is not None
    assert config.evaluation.strong.model == str(tmp_path / "elsewhere/nets/mine")
    assert config.critic.judge == RunConfig().critic.judge
    assert config.evaluation.classifier == RunConfig().evaluation.classifier
