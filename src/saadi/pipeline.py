"""The whole method on one screen (Venkatesh and Speidel, arXiv:2509.18796).

real images -> base model -> [candidates -> scores -> pairs -> adapter] x rounds -> sets -> trainings -> results -> page
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saadi.alignment.stages import align_round, passes_of, train_on_winners
from saadi.cards import write_model_card
from saadi.config import RunConfig
from saadi.critics.leading import LedSampler
from saadi.critics.stages import draw_candidates, fit_critics, pair_candidates, score_candidates
from saadi.data.stages import prepare_data
from saadi.diffusion.drawing import unet_passes
from saadi.diffusion.painting import Sampler
from saadi.diffusion.stages import train_base
from saadi.evaluation.arms import Arm, real_arms
from saadi.evaluation.choices import is_over, shares_of
from saadi.evaluation.images import measure_images
from saadi.evaluation.membership import audit_membership
from saadi.evaluation.results import write_results
from saadi.evaluation.rivals import copy_paste, reconstructed
from saadi.evaluation.sets import final_set, unpicked
from saadi.evaluation.trainings import stage_of, train_arms
from saadi.files import digest
from saadi.preflight import preflight
from saadi.records import Sample
from saadi.report import write_page
from saadi.runtime import prepare_runtime
from saadi.store import Begin, Run, silent
from saadi.team import join_team
from saadi.tracking import tracked


def run(
    config: RunConfig, folder: Path | None = None, *, final: bool = False, begin: Begin = silent,
    redo: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Run or resume the method in `folder`; returns the results. `final` reads the test set; else val is reported, or
    what an earlier final run found. Of several processes that torchrun started, the first writes and returns them.

    Without a folder it is `runs/<the configuration's digest>`, so that the same configuration resumes. Raises
    `BadInput` for anything the user can mend.
    """
    folder = folder or Path("runs") / digest(config.model_dump(mode="json"))
    prepare_runtime(config)
    team = join_team(cpu=config.device == "cpu")
    if team.leads:
        preflight(config, folder, redo)
    with Run(folder, config, begin=begin, redo=redo, team=team) as open_run, tracked(open_run) as trackers:
        arms = _arms(open_run)
        results = write_results(open_run, *arms, final=final) if team.leads else {}
        trackers.results(results)
    if team.leads:
        write_page(folder)
        write_model_card(folder, config)
    return results


def _arms(run: Run) -> tuple[Any, list[Arm]]:
    config = run.config
    data = prepare_data(run)
    train_base(run, data)  # 1. SSD: the base model
    critic = fit_critics(run, data)  # 2. the downstream model as judge

    # 4. what images are worth: equally many of each arm; rejection picks from as many as all rounds have drawn
    asked = len(data.space.asked)
    per_class = -(-config.evaluation.synthetic // asked)
    size, segments = per_class * asked, config.task == "segmentation"
    several = config.evaluation.drawn * size
    adapters: list[str] = []
    pools, sets, passes = list[Sequence[Sample]](), [Sampler(run, data.space, [], 0)], [0]
    own, student = real_arms(config.evaluation, dense=segments), None
    if config.evaluation.pick == "hard":  # what real images alone have not taught the downstream model
        train_arms(run, [(own[0], 0.0, 0)])
        student = stage_of(own[0].name, 0.0, 0)

    def drawn_by(k: int) -> int:
        return sum(map(len, pools[:k]))

    def arm(
        name: str, sampler: Sampler, budget: int, *, before: int = 0, training: int = 0,
        pool: Sequence[Sample] = (), inputs: Sequence[str] = (), noise: str = "set", student: str | None = None,
    ) -> Arm:  # fmt: skip
        stages = ["base", *sampler.adapters, *inputs]
        used = final_set(
            run, sampler, critic, name, per_class, stages, budget=budget, pool=pool, noise=noise, student=student
        )
        cost = unet_passes(before + budget, config.sampling) + training
        return Arm(name, tuple(used), before + budget, cost, (f"evaluation/sets/{name}",))

    def aligned(name: str, k: int, budget: int, *, led: bool) -> Arm:
        sampler = LedSampler(run, data.space, sets[k].adapters, k) if led else sets[k]
        inputs = ["critic"] * led
        return arm(name, sampler, budget, before=drawn_by(k), training=passes[k], inputs=inputs, student=student)

    unaligned, lead = arm("unaligned", sets[0], size), config.sampling.lead > 0
    rounds = list[Arm]()
    for k in range(1, config.rounds + 1):
        samples = draw_candidates(run, sets[-1], critic, k, ["base", "critic", *adapters])
        scores = score_candidates(run, samples, critic, k)
        pairs = pair_candidates(run, samples, scores, critic.train.counts(), k)
        if k == 1 and config.evaluation.controls:
            winners = train_on_winners(run, data, samples, pairs)  # the rival: only the preferred images
        adapters.append(align_round(run, data, critic, samples, scores, pairs, k))  # 3. direct preference optimisation
        pools.append(samples)
        sets.append(Sampler(run, data.space, adapters, k))
        passes.append(passes[-1] + passes_of(run, adapters[-1]))
        rounds.append(aligned(f"round-{k}", k, several, led=lead))
        if is_over(run, data, unaligned, rounds):  # val no longer rises
            break

    rivals, controls = list[Arm](), list[Arm]()
    if config.evaluation.controls:
        if segments:  # real objects pasted where the sets have theirs, and the autoencoder's own mark
            train, places = data.split("train"), [sample.condition for sample in unaligned.samples]
            rivals += [copy_paste(run, train, places), reconstructed(run, train, places)]
        if lead:  # the same lead and pick without alignment, and alignment without either
            rivals.append(aligned("feedback", 0, several, led=True))
            controls.append(aligned("unled", len(rounds), size, led=False))
        if several > size:  # what the pick is worth
            controls.append(unpicked(run, rounds[-1], size))
        known, theirs = [*pools[0], *unaligned.samples], ["round-1/samples", "evaluation/sets/unaligned"]
        as_many, tuned = drawn_by(len(rounds)) + several, Sampler(run, data.space, [winners], 1)
        rivals += [
            arm("rejection", sets[0], as_many, pool=known, inputs=theirs, noise="set-rejection"),
            arm("winners", tuned, size, before=drawn_by(1), training=passes_of(run, winners)),
        ]
    arms = [*own, unaligned, *rivals, *rounds, *controls]
    seeds = range(config.evaluation.seeds)
    train_arms(run, [(one, share, seed) for seed in seeds for one in arms for share in shares_of(run, one)])
    measure_images(run, data, [one for one in arms if one.samples], critic)
    audit_membership(run, data, adapters)
    return data, arms
