"""The command `saadi`: thin. Every command reads its arguments, calls the library and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from saadi.errors import BadInput

app = typer.Typer(
    name="saadi",
    help="Surgical application-aligned diffusion: your downstream model chooses what the diffusion model learns.\n\n"
    "Start with `saadi demo`. For own images: write a config (see configs/), `saadi check` it, then `saadi run` it. "
    "For research; not for clinical use.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file; examples in configs/")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="override one setting; repeatable")
]
OutFolder = Annotated[Path | None, typer.Option("--out", help="the run's folder [default: one in runs/, by name]")]
AsJson = Annotated[bool, typer.Option("--json", help="print facts as JSON")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="print the plan with estimates of time and disk, and do nothing")
]
Final = Annotated[
    bool, typer.Option("--final", help="read the test set, once; without it results are on val, and final ones stay")
]
Redo = Annotated[
    list[str] | None, typer.Option("--redo", metavar="STAGE", help="make this stage and what follows anew; repeatable")
]


def _execute(config: Any, out: Path, *, final: bool, dry: bool, as_json: bool, redo: list[str] | None) -> None:
    from saadi.plan import estimate, render_plan

    if dry:
        from saadi.preflight import preflight
        from saadi.runtime import prepare_runtime

        prepare_runtime(config)
        preflight(config, out, redo or ())
        plan = estimate(config)
        typer.echo(json.dumps(plan, indent=1) if as_json else render_plan(plan))
        return
    from saadi.pipeline import run
    from saadi.progress import Terminal
    from saadi.report import results_table
    from saadi.report.headline import headline

    with Terminal() as terminal:
        results = run(config, out, final=final, begin=terminal.begin, redo=redo or ())
    if not results:  # of several processes only the first has them
        return
    if results["final"] and not final:
        kept = out / "results.json"
        typer.echo(f"{kept}: holds final results, read on test; they stay, and no val results were written", err=True)
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    else:
        sentence, _ = headline(results)
        typer.echo(f"\n{results_table(results)}\n\n{sentence}\nThe page: {out / 'report.html'}")


@app.command()
def demo(
    out: OutFolder = None,
    task: Annotated[str, typer.Option(help="classification, or segmentation: instruments painted into frames")] = (
        "classification"
    ),
    seed: Annotated[int, typer.Option(help="another seed is another phantom: other patients, other images")] = 0,
    assignments: Assignments = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    redo: Redo = None,
) -> None:
    """Run the whole method on the built-in phantom, two rounds, on a laptop. Run again to resume."""
    from saadi.configfile import demo_config

    config = demo_config(seed, tuple(assignments or ()), task)
    folder = out or Path("runs") / (f"demo-{task}" if seed == 0 else f"demo-{task}-seed-{seed}")
    _execute(config, folder, final=True, dry=dry_run, as_json=as_json, redo=redo)


@app.command("run")
def run_command(
    config: ConfigFile,
    out: OutFolder = None,
    final: Final = False,
    assignments: Assignments = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    redo: Redo = None,
) -> None:
    """Run the method on your labelled images. Killed or stopped, the same command resumes."""
    from saadi.configfile import load_config

    loaded = load_config(config, tuple(assignments or ()))
    _execute(loaded, out or Path("runs") / config.stem, final=final, dry=dry_run, as_json=as_json, redo=redo)


@app.command()
def folds(
    config: ConfigFile,
    parts: Annotated[
        int | None, typer.Option("--parts", help="deal the groups into so many folds [default: each is one]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="the folder of all folds [default: one in runs/]")] = None,
    assignments: Assignments = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    redo: Redo = None,
) -> None:
    """Test every patient or video once: a final run with each of them, or each part of them, left out; read together.

    The fold before is val, or the nearest before that leaves every class to learn from. Killed or stopped, the same
    command resumes. Each fold has a page of its own.
    """
    from saadi.configfile import load_config
    from saadi.folds import checked_folds, folds_table, run_folds
    from saadi.plan import estimate, render_plan
    from saadi.progress import Terminal
    from saadi.report import results_table

    loaded, folder = load_config(config, tuple(assignments or ())), out or Path("runs") / f"{config.stem}-folds"
    if dry_run:
        planned, _, _ = checked_folds(loaded, folder, parts, redo or ())
        plan = estimate(next(iter(planned.values())))
        said = {"folds": len(planned), "each": plan}
        typer.echo(json.dumps(said, indent=1) if as_json else f"{len(planned)} folds, of each:\n{render_plan(plan)}")
        return
    with Terminal() as terminal:
        results = run_folds(loaded, folder, parts, begin=terminal.begin, redo=redo or ())
    if not results:  # another of torchrun's processes has them
        return
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    else:
        typer.echo(f"\n{results_table(results)}\n\n{folds_table(results)}\n\nThe folds: {folder}")


@app.command()
def check(config: ConfigFile, assignments: Assignments = None, as_json: AsJson = False) -> None:
    """Look at a config's data before anything runs: counts, unreadable images, duplicates, leaks between splits."""
    from saadi.configfile import load_config
    from saadi.data.audit import audit, render_audit
    from saadi.preflight import too_few

    loaded = load_config(config, tuple(assignments or ()))
    found = audit(loaded.data, loaded.seed, loaded.task)
    if found.groups and found.counted:
        train, val = ([group.get(split, 0) for group in found.groups.values()] for split in ("train", "val"))
        found.errors.extend(too_few(loaded, sum(map(bool, train)), sum(val), len(found.classes)))
    typer.echo(json.dumps(found.to_json(), indent=1) if as_json else render_audit(found))
    if found.errors:
        raise typer.Exit(2)


@app.command()
def datasets(as_json: AsJson = False) -> None:
    """List the public sets that `data.source: set` reads: tasks, classes, split, licence, citation."""
    from saadi.data.sets.catalogue import describe, render_sets

    typer.echo(json.dumps(describe(), indent=1) if as_json else render_sets())


@app.command()
def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Say which stages of a run are done, how long they took, and the result if there is one."""
    from saadi.inspection import render_status, run_status

    facts = run_status(run)
    typer.echo(json.dumps(facts, indent=1) if as_json else render_status(facts))


@app.command()
def pairs(
    run: RunFolder,
    export: Annotated[Path | None, typer.Option("--export", metavar="FILE", help="write them as CSV")] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="take pairs from CSV: round, label, winner, loser")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="in place of the critic's, not beside them")] = False,
    as_json: AsJson = False,
) -> None:
    """Preference pairs out of a run, or into one: a surgeon's, or another model's.

    What is imported counts once the rounds' pairs are made anew, as the command says.
    """
    from saadi.exchange import export_pairs, import_pairs
    from saadi.inspection import require_run

    folder = require_run(run)
    if (export is None) == (import_ is None):
        raise BadInput("pairs: give one of --export FILE and --import FILE")
    if export is not None:
        count = export_pairs(folder, export)
        facts: dict[str, Any] = {"run": str(run), "file": str(export), "pairs": count}
        typer.echo(json.dumps(facts, indent=1) if as_json else f"{count} pairs: {export}")
        return
    assert import_ is not None
    taken = import_pairs(folder, import_, "replace" if replace else "add")
    redo = " ".join(f"--redo round-{number}/pairs" for number in taken)
    facts = {"run": str(run), "imported": taken, "redo": [f"round-{number}/pairs" for number in taken]}
    told = "; ".join(f"{count} pairs for round {number}" for number, count in taken.items())
    line = f"{told}. They count after: saadi run CONFIG --out {run} {redo}"
    typer.echo(json.dumps(facts, indent=1) if as_json else line)


@app.command()
def sample(
    run: RunFolder,
    label: Annotated[str, typer.Option("--class", metavar="NAME", help="the class to show")],
    out: Annotated[Path, typer.Option("--out", help="a new folder for images, labels.csv and metadata.jsonl")],
    count: Annotated[int, typer.Option("-n", min=1, help="how many images")] = 16,
    round_: Annotated[
        int | None, typer.Option("--round", min=0, help="0: unaligned; default: the round chosen on val")
    ] = None,
    seed: Annotated[int, typer.Option(help="another seed gives other images")] = 0,
    keep_copies: Annotated[
        bool, typer.Option("--keep-copies", help="also write near-copies of training images")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Draw new labelled images from a run's aligned model. Near-copies of a patient's image are held back."""
    from saadi.inspection import sample_run

    facts = sample_run(run, label, out, count, round_, seed, keep_copies)
    short = f" of {count}" if facts["written"] < count else ""
    line = f"{facts['written']}{short} images of {label} (round {facts['round']}) in {out}"
    typer.echo(json.dumps(facts, indent=1) if as_json else f"{line}; {facts['held_back']} near-copies held back")


@app.command()
def report(run: RunFolder, as_json: AsJson = False) -> None:
    """Write a run's page anew from its files."""
    from saadi.inspection import require_run
    from saadi.report import write_page

    page = write_page(require_run(run))
    typer.echo(json.dumps({"run": str(run), "page": str(page)}, indent=1) if as_json else f"The page: {page}")


@app.command()
def settings() -> None:
    """Print every setting of a config with its default and meaning, as Markdown."""
    from saadi.reference import settings_reference

    typer.echo(settings_reference(), nl=False)


@app.command()
def commands() -> None:
    """Print every command with its arguments, as Markdown."""
    from saadi.reference import commands_reference

    typer.echo(commands_reference(typer.main.get_command(app)), nl=False)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="a Stable Diffusion model on the Hugging Face hub")],
    as_json: AsJson = False,
) -> None:
    """Download a model, safetensors only, for `base.model: hub:OWNER/NAME`. Nothing else reaches the network."""
    from saadi.configfile import HUB
    from saadi.diffusion.hub import fetch

    folder = fetch(name)
    facts = {"model": f"{HUB}{name}", "folder": str(folder)}
    typer.echo(
        json.dumps(facts, indent=1) if as_json else f"{name}: {folder}\nIn a config: base: {{model: {HUB}{name}}}"
    )


@app.command()
def foundation(
    work: Annotated[
        Path, typer.Option("--work", help="where the pool, the caches and the checkpoints live; resumes from there")
    ],
    passes: Annotated[int, typer.Option(help="image passes of the UNet in all")] = 1_500_000,
    out: Annotated[Path | None, typer.Option(help="where to put the finished weights [default: in WORK]")] = None,
    inpainting: Annotated[
        bool,
        typer.Option("--inpainting", help="the twin that paints into frames, for segmentation; starts from the other"),
    ] = False,
    from_shipped: Annotated[bool, typer.Option("--from-shipped", help="go on from the installed weights")] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="fuse the UNet first; needs a C++ compiler")] = False,
) -> None:
    """Make the tiny preset's foundation anew, on the pretext world. Hours; resumable; for developers of saadi."""
    from saadi.config import RunConfig
    from saadi.foundation.pretrain import pretrain
    from saadi.progress import Terminal
    from saadi.runtime import prepare_runtime

    prepare_runtime(RunConfig())
    finished = out or work / ("weights-inpainting" if inpainting else "weights")
    with Terminal() as terminal:
        pretrain(
            work, finished, passes, terminal.begin,
            inpainting=inpainting, from_shipped=from_shipped, compiled=compiled,
        )  # fmt: skip
    typer.echo(f"The foundation: {finished}")
