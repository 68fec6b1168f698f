"""Cards: what a model, or a set of images, was made from, what it is worth and what it is for, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from saadi.config import RunConfig
from saadi.configfile import HUB
from saadi.data.sets.catalogue import find_view
from saadi.diffusion.hub import folder_of
from saadi.errors import BadInput
from saadi.records import read_json, write_atomic
from saadi.report import results_table
from saadi.report.headline import headline
from saadi.report.wording import last_round, number, span

OURS = "apache-2.0"
UNSTATED = "not stated"
INTENDED = """\
## Intended use

For research in surgical data science: to train and test models that read surgical images. **Not for clinical use.** A
synthetic image may be wrong about anatomy, instruments and their use; what a model learns from it has to be tested on
real images of other patients."""


def source_licence(config: RunConfig) -> str:
    """The licence of the images a run learnt from, as far as it is known."""
    if config.data.licence:
        return config.data.licence
    if config.data.source == "phantom":
        return OURS
    if config.data.source == "set":
        return find_view(config.data.set, config.task)[0].licence
    return f"{UNSTATED}; ask whoever gave the images"


def base_licence(model: str) -> str:
    """The licence of a base model: what the card in its folder says."""
    if model == "tiny":
        return OURS
    try:
        card = folder_of(model) / "README.md"
        _, head, _ = card.read_text(encoding="utf-8").split("---", 2)
        return str(yaml.safe_load(head)["license"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, BadInput):
        return f"{UNSTATED} in its folder"


def _nameless(value: Any) -> Any:
    """Settings without the folders that files lie in, which may name a person or a patient: a path's last part."""
    if isinstance(value, Mapping):
        return {key: _nameless(one) for key, one in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _render(template: str, config: RunConfig, **values: Any) -> str:
    pages = Environment(  # Markdown, not HTML: nothing is escaped
        loader=PackageLoader("saadi", "report"), autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True
    )
    model = config.base.model
    about = {
        "source_licence": source_licence(config),
        "base_licence": base_licence(model),
        "base_model": _nameless(model).removeprefix(HUB),
        "hub": model.startswith(HUB) and model.removeprefix(HUB),
    }
    return pages.get_template(template).render(config=config, intended=INTENDED, **about, **values)


def model_card(config: RunConfig, results: Mapping[str, Any]) -> str:
    """The card of a finished run's models."""
    chosen = results["val_choices"].get("round")
    rounds = int(str(last_round(results["arms"])).removeprefix("round-"))
    last = int(str(chosen).removeprefix("round-")) if chosen else rounds
    sentence, further = headline(results)
    given_away = results["membership"].get("aligned") or results["membership"]["base"]
    inpaints = config.task == "segmentation"
    return _render(
        "model-card.md.j2",
        config,
        results=results,
        counts=results.get("train_counts", {}),
        chosen=chosen,
        rounds=rounds,
        given_away=f"{number(given_away['auc'])} % (95 % interval {span(given_away['ci95'])})",
        groups={split: len(names) for split, names in results["groups"].items()},
        sentence=sentence,
        further=further,
        table=results_table(dict(results)),
        pipeline="StableDiffusionInpaintPipeline" if inpaints else "StableDiffusionPipeline",
        adapters=[f"round-{k}" for k in range(1, last + 1)],
        scheduler="DDIMScheduler" if config.sampling.solver == "ddim" else "DPMSolverMultistepScheduler",
        yaml=yaml.safe_dump(_nameless(config.model_dump(mode="json")), sort_keys=False),
    )


def write_model_card(folder: Path, config: RunConfig) -> None:
    """Write the card of a finished run beside its page."""
    write_atomic(folder / "model-card.md", model_card(config, read_json(folder / "results.json")))


def dataset_card(config: RunConfig, facts: Mapping[str, Any]) -> str:
    """The card of a synthetic set: `facts` as `sample_run` returns them."""
    return _render("dataset-card.md.j2", config, facts=facts)
