"""Preference alignment. Each pitfall that others fell into has a test that bears its name."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_diffusion import SHAPE, TRAIN, errors_of, every_draw, normal, small_generator, stir
from torch import Tensor, nn

from saadi.alignment.objectives import OBJECTIVES, Errors, dpo, implicit_margin, sft
from saadi.alignment.pairs import PairBatch, PairTable, between_prompts
from saadi.alignment.train import bank_errors, make_bank, pair_errors
from saadi.diffusion.generator import Generator
from saadi.diffusion.lora import add_adapter
from saadi.diffusion.objective import Clean, Schedule


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def schedule(generator: Generator) -> Schedule:
    return generator.schedule


class Plain(nn.Module):
    """A stand-in for the UNet that keeps what it was shown."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.mix = nn.Conv2d(4, 4, 3, padding=1)
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, embedding: Tensor) -> SimpleNamespace:
        self.seen.append((x, t, embedding))
        said = self.mix(x) + embedding.mean((1, 2)).view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1) / 1000
        return SimpleNamespace(sample=said)


# The loss


def test_dpo_is_ln_2_at_step_0(generator: Generator) -> None:
    unet = deepcopy(generator.unet)
    bank = make_bank(unet, generator.schedule, TRAIN, 2, seed=1)
    add_adapter(unet, 2, seed=2)
    loss = dpo(bank_errors(unet, generator.schedule, TRAIN, bank, *every_draw(4, 2)), 5.0)
    torch.testing.assert_close(loss, torch.full((8,), math.log(2)), rtol=0, atol=1e-4)


def test_loss_is_taken_per_pair_not_on_batch_means() -> None:
    """Margins of +10 and -10: the mean loss is about 5; the loss of the mean margin would be ln 2."""
    errors = errors_of([0.0, 10.0], [10.0, 0.0])
    losses = dpo(errors, 1.0)
    torch.testing.assert_close(losses, torch.tensor([math.log1p(math.exp(-10)), math.log1p(math.exp(10))]))
    assert float(losses.mean()) == pytest.approx(5 + math.log1p(math.exp(-10)), rel=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("weighting", ["epsilon", "v"])
def test_value_and_gradient_are_those_of_the_equation(prediction: str, weighting: str, schedule: Schedule) -> None:
    """-log sigmoid(-beta omega [(|e - e_w|^2 - |e - e_ref,w|^2) - (|e - e_l|^2 - |e - e_ref,l|^2)]), in float64."""
    schedule = replace(schedule, prediction=prediction)
    policy, reference, beta = Plain(1), Plain(2), 0.03
    bank = make_bank(reference, schedule, TRAIN, 2, seed=6, weighting=weighting)
    p, k = every_draw(4, 2)
    loss = dpo(bank_errors(policy, schedule, TRAIN, bank, p, k), beta).mean()
    loss.backward()  # type: ignore[no-untyped-call]

    exact, exact_reference = deepcopy(policy).double(), deepcopy(reference).double()
    exact.zero_grad()
    noise = bank.noise(p, k, torch.Size(SHAPE)).double()
    terms = []
    for row, pair in enumerate(p.tolist()):
        t = bank.timesteps[p[row], k[row]].view(1)
        signal = schedule.alpha_bar.double()[t]
        eps = noise[row : row + 1]

        def error(net: Plain, x0: Tensor, t: Tensor = t, signal: Tensor = signal, eps: Tensor = eps, pair: int = pair,
                  ) -> Tensor:  # fmt: skip
            x_t = signal.sqrt() * x0.double()[None] + (1 - signal).sqrt() * eps
            said = net(x_t, t, TRAIN.embedding[pair : pair + 1].double()).sample
            implied = said if prediction == "epsilon" else signal.sqrt() * said + (1 - signal).sqrt() * x_t
            squares: Tensor = (eps - implied).square()
            return squares.sum() / (signal if weighting == "v" else 1)

        winner, loser = TRAIN.winner.latents[pair], TRAIN.loser.latents[pair]
        better = error(exact, winner) - error(exact_reference, winner).detach()
        worse = error(exact, loser) - error(exact_reference, loser).detach()
        terms.append(-torch.log(torch.sigmoid(-beta * (better - worse))))
    expected = torch.stack(terms).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for ours, theirs in zip(policy.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5)


def test_beta_is_of_sums_and_so_larger_by_the_latents_size_on_means() -> None:
    size, beta = 4 * 64 * 64, 0.15
    sums = [100 * normal(5, seed=seed).abs() for seed in range(4)]
    means = [e / size for e in sums]
    torch.testing.assert_close(dpo(errors_of(*means), beta * size), dpo(errors_of(*sums), beta))
    assert beta * size == pytest.approx(0.5 * 5000, rel=0.02)  # Salesforce's 5000 on means, halved


def test_errors_and_adapter_are_float32_in_a_bfloat16_network(generator: Generator) -> None:
    unet = deepcopy(generator.unet).to(torch.bfloat16)
    add_adapter(unet, 2, seed=0)
    assert {p.dtype for p in unet.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in unet.parameters() if not p.requires_grad} == {torch.bfloat16}
    winner, loser = (Clean(*(part.bfloat16() for part in side.parts())) for side in (TRAIN.winner, TRAIN.loser))
    half = PairBatch(winner, loser, TRAIN.embedding.bfloat16(), TRAIN.loser_embedding.bfloat16())
    noise, t = normal(4, *SHAPE, seed=1).bfloat16(), torch.tensor([5, 50, 500, 999])
    with torch.autocast("cpu", torch.bfloat16):
        better, worse, overlap = pair_errors(unet, replace(generator.schedule, prediction="epsilon"), half, noise, t)
    assert better.dtype == worse.dtype == overlap.dtype == torch.float32
    for name, loss_of in OBJECTIVES.items():
        assert loss_of(Errors(better, worse, better, worse, overlap, size=64), 1.0).dtype == torch.float32, name


def test_supervised_term_lowers_the_winners_error(schedule: Schedule) -> None:
    policy = Plain(1)
    bank = make_bank(Plain(2), schedule, TRAIN, 2, seed=6)

    def errors() -> Errors:
        return bank_errors(policy, schedule, TRAIN, bank, *every_draw(4, 2))

    before = errors()
    loss = sft(before, 1.0)
    torch.testing.assert_close(loss, before.winner / bank.reference_winner.mean())
    loss.mean().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p in policy.parameters():
            assert p.grad is not None
            p.sub_(0.01 * p.grad)
    assert float(errors().winner.detach().mean()) < float(before.winner.detach().mean())


# The pairs


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_winner_and_loser_share_noise_timestep_and_condition(prediction: str, schedule: Schedule) -> None:
    schedule, spy = replace(schedule, prediction=prediction), Plain(1)
    bank = make_bank(spy, schedule, TRAIN, 3, seed=6)
    bank_errors(spy, schedule, TRAIN, bank, *every_draw(4, 3))
    for x, t, embedding in spy.seen:
        (x_w, x_l), (t_w, t_l), (e_w, e_l) = x.chunk(2), t.chunk(2), embedding.chunk(2)
        assert torch.equal(t_w, t_l)
        assert torch.equal(e_w, e_l)
        p, _ = every_draw(4, 3)
        a, s = schedule.signal(t_w).sqrt(), (1 - schedule.signal(t_w)).sqrt()
        better, worse = TRAIN.winner.latents[p], TRAIN.loser.latents[p]
        torch.testing.assert_close((x_w - a * better) / s, (x_l - a * worse) / s, rtol=0, atol=1e-3)
        assert torch.equal(e_w, TRAIN.embedding[p])
    for one, two in zip(*spy.seen, strict=True):  # the reference and the policy were shown the very same
        assert torch.equal(one, two)


def test_every_pair_sees_a_timestep_of_each_stratum_and_noise_of_its_own(schedule: Schedule) -> None:
    bank = make_bank(Plain(1), schedule, TRAIN, 4, seed=6)
    assert torch.equal(bank.timesteps // 250, torch.arange(4).expand(4, 4))
    late = make_bank(Plain(1), schedule, TRAIN, 4, seed=6, earliest=0.5)
    assert torch.equal((late.timesteps - 500) // 125, torch.arange(4).expand(4, 4))
    noise = bank.noise(*every_draw(4, 4), torch.Size(SHAPE))
    assert len({tuple(row.flatten().tolist()) for row in noise}) == 16
    assert torch.equal(bank.noise(torch.tensor([2]), torch.tensor([1]), torch.Size(SHAPE))[0], noise[9])


def test_a_verdict_also_says_which_prompt_fits_an_image_better(schedule: Schedule) -> None:
    wrong = [True, False, True]  # the second loser is right, merely worse: no other prompt fits it
    pairs = [(0, "hook", 3, "hook"), (1, "clip", 4, "clip"), (2, "hook", 5, "hook")]
    preferred = between_prompts(pairs, ["clip", "saw", "saw"], ["saw", "hook", "clip"], wrong)
    assert preferred == [
        (0, "hook", 0, "clip"), (1, "clip", 1, "saw"), (2, "hook", 2, "saw"), (3, "saw", 3, "hook"),
        (5, "clip", 5, "hook"),
    ]  # fmt: skip
    prompts = ["clip", "hook", "saw"]
    rows = [(better, prompts.index(one), worse, prompts.index(two)) for better, one, worse, two in preferred]
    images, table = Clean.whole(normal(6, *SHAPE, seed=31)), normal(3, *TRAIN.embedding.shape[1:], seed=32)
    found = PairTable(images, table, torch.tensor(rows))
    assert len(found) == 3 + 2
    taken = found.take(torch.arange(5))
    assert torch.equal(taken.winner.latents, images.latents[[0, 1, 2, 3, 5]])
    assert torch.equal(taken.loser.latents, taken.winner.latents)
    assert torch.equal(taken.embedding, table[[1, 0, 1, 2, 0]])
    assert torch.equal(taken.loser_embedding, table[[0, 2, 2, 1, 1]])
    spy = Plain(1)
    make_bank(spy, schedule, found, 1, seed=6)
    (x, t, embedding), *_ = spy.seen
    assert torch.equal(*x.chunk(2))  # one image, noise and timestep on both sides
    assert torch.equal(*t.chunk(2))
    assert not torch.equal(*embedding.chunk(2))


# The reference


def test_reference_stays_when_the_policy_moves(generator: Generator) -> None:
    unet = deepcopy(generator.unet)
    bank = make_bank(unet, generator.schedule, TRAIN, 2, seed=1)
    kept = bank.reference_winner.clone()
    add_adapter(unet, 2, seed=2)
    stir(unet, 1)
    moved = bank_errors(unet, generator.schedule, TRAIN, bank, *every_draw(4, 2))
    assert torch.equal(moved.reference_winner, kept.flatten())
    assert not torch.allclose(moved.winner, moved.reference_winner, rtol=1e-2)


def test_reference_is_the_model_stated_not_the_policy_without_adapter(generator: Generator) -> None:
    """Held to the base in round 2, the loss does not begin at ln 2: the policy already is round 1's model."""
    first = deepcopy(generator.unet)
    add_adapter(first, 2, seed=2)
    stir(first, 1)
    first.fuse_lora()
    first.unload_lora()
    for reference, begins_at_ln_2 in ((first, True), (generator.unet, False)):
        policy = deepcopy(first)
        bank = make_bank(reference, generator.schedule, TRAIN, 2, seed=1)
        add_adapter(policy, 2, seed=3)
        margin = implicit_margin(bank_errors(policy, generator.schedule, TRAIN, bank, *every_draw(4, 2)))
        assert torch.allclose(margin, torch.zeros(8), atol=1e-3) == begins_at_ln_2
