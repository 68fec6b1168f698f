"""Preference objectives as pure functions of denoising errors.

All errors are omega_t ||eps - eps_theta||^2 *summed* over the latent, float32, one a pair [B]. beta multiplies such
sums: with errors averaged over D latent elements, as several public scripts have it, the same beta is D times larger.
For v-prediction the errors are converted to epsilon's first (`diffusion.objective.epsilon_errors`); omega_t then is 1,
or turns the errors of either kind of network into v's (`diffusion.objective.error_weight`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Errors:
    """Errors [B] of policy and reference on winner and loser, at one shared noise, timestep and condition a pair.

    `overlap` [B]: how far the loser's gradient points the winner's way (`gradient_overlap`), without a gradient of its
    own. `size`: the D latent elements that an error is a sum over. `usual`: the mean of the reference's error on
    winners over the step's whole batch, of which these are a part; None: these are all of it.
    """

    winner: Tensor
    loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor
    overlap: Tensor
    size: int = field(kw_only=True)
    usual: float | None = field(default=None, kw_only=True)


Objective = Callable[[Errors, float], Tensor]
"""Errors and beta to a loss for each pair [B]."""

_Known = TypeVar("_Known", bound=Objective)

OBJECTIVES: dict[str, Objective] = {}


def objective(name: str) -> Callable[[_Known], _Known]:
    """Register an objective under the name the configuration uses."""

    def register(function: _Known) -> _Known:
        OBJECTIVES[name] = function
        return function

    return register


def relative_margin(winner: Tensor, loser: Tensor, reference_winner: Tensor, reference_loser: Tensor) -> Tensor:
    """How much more the policy has improved on the winner than on the loser [B]; 0 where it equals the reference."""
    return (loser - reference_loser) - (winner - reference_winner)


def implicit_margin(errors: Errors) -> Tensor:
    """`relative_margin` of a batch's errors."""
    return relative_margin(errors.winner, errors.loser, errors.reference_winner, errors.reference_loser)


@objective("dpo")
def dpo(errors: Errors, beta: float) -> Tensor:
    """-log sigmoid(beta * margin): equation 14 of Diffusion-DPO (Wallace et al., arXiv:2311.12908), T taken into beta.

    The log-sigmoid is taken for each pair, never of a batch's mean error. At zero margin it is ln 2.
    """
    return -logsigmoid(beta * implicit_margin(errors))


def gradient_overlap(winner: Tensor, loser: Tensor) -> Tensor:
    """<g_w, g_l> / ||g_w||^2 [B] of two errors' gradients [B, ...] at the network's output; 0 where g_w is 0.

    Where both outputs are moved by -g_w + f g_l, the winner's error falls 1 - f * overlap times as fast as without the
    loser. Any factor that the two gradients share cancels.
    """
    g_w, g_l = winner.flatten(1), loser.flatten(1)
    return (g_w * g_l).sum(1) / g_w.square().sum(1).clamp_min(torch.finfo(g_w.dtype).tiny)


def loser_scale(overlap: Tensor, kept: float) -> Tensor:
    """The largest factor [B] in 0 .. 1 on the loser's gradient at which the winner's error still falls, to first order,
    at `kept` (0 .. 1, below 1) times the rate it would fall at without a loser.

    min(1, (1 - kept) ||g_w||^2 / <g_w, g_l>) where the product is positive, otherwise 1.
    """
    return 1 / (overlap / (1 - kept)).clamp_min(1)


@objective("sdpo")
def sdpo(errors: Errors, beta: float, kept: float = 0.9) -> Tensor:
    """`dpo` whose loser's gradient is scaled for each pair so that the winner's error does not rise.

    Diffusion-SDPO (Fu et al., arXiv:2511.03317); its gradients are those at the network's output, as here, as if a
    step moved the outputs for winner and loser alike. `kept` is what its authors trained Diffusion-DPO with; at 0 the
    winner's error may stand still. Their code has one scale for a batch; here each pair has its own. Values and beta
    are those of `dpo`; only the gradient differs.
    """
    held = errors.loser.detach()
    scaled = held + loser_scale(errors.overlap, kept) * (errors.loser - held)
    return dpo(replace(errors, loser=scaled), beta)


@objective("ipo")
def ipo(errors: Errors, beta: float) -> Tensor:
    """(beta * margin - 1/2)^2: equation 17 of IPO (Azar et al., arXiv:2310.12036) times beta^2; beta is its tau.

    The margin is drawn to 1 / (2 beta), in units of a summed error, and not beyond it. Times beta^2 the loss has no
    unit: it is 1/4 at zero margin, with twice the slope of `dpo`.
    """
    return (beta * implicit_margin(errors) - 0.5).square()


@objective("kto")
def kto(errors: Errors, beta: float, desirable: float = 1.0, undesirable: float = 1.0) -> Tensor:
    """A winner as one desirable sample, a loser as one undesirable: the mean of the two samples' losses.

    With r = e_ref - e, how much the policy has improved on a sample, they are desirable * (1 - sigmoid(beta (r_w - z)))
    and undesirable * (1 - sigmoid(beta (z - r_l))): equation 8 of Diffusion-KTO (Li et al., arXiv:2404.04465). The
    reference point z is the mean r of all samples in the batch (in its pieces, where it is computed in several), not
    below 0, and has no gradient. The batch's mean loss does not depend on which loser a winner is paired with. At the
    reference a loss is 1/2, with a quarter of the slope of `dpo`; beta multiplies summed errors, as there.
    """
    better, worse = errors.reference_winner - errors.winner, errors.reference_loser - errors.loser
    z = torch.cat([better, worse]).mean().clamp_min(0).detach()
    gain, harm = torch.sigmoid(beta * (better - z)), torch.sigmoid(beta * (z - worse))
    return 0.5 * (desirable * (1 - gain) + undesirable * (1 - harm))


def bounded_score(x: Tensor) -> Tensor:
    """x / (exp(x) - 1) of errors x >= 0: from 1 at no error, with slope -1/2, down to 0."""
    safe = x.clamp_min(1e-6)  # at 0 it is 0 / 0
    return safe * torch.exp(-safe) / -torch.expm1(-safe)


@objective("mapo")
def mapo(errors: Errors, beta: float) -> Tensor:
    """-log sigmoid(2 D beta (s(e_w / D) - s(e_l / D))), s the bounded score: the margin term of MaPO (Hong et al.,
    arXiv:2406.06424). The reference takes no part.

    The score is of *mean* errors, as there, or it would be 0 for all. To first order in them the logit is beta
    (e_l - e_w), so beta is of summed errors, and MaPO's factor T = 1000 is 2 D beta. MaPO's other term, the winner's
    error, is `alignment.sft`. It is ln 2 where winner and loser have the same error, at the reference or not.
    """
    better, worse = bounded_score(errors.winner / errors.size), bounded_score(errors.loser / errors.size)
    return -logsigmoid(2 * errors.size * beta * (better - worse))


@objective("sft")
def sft(errors: Errors, beta: float) -> Tensor:
    """The winner's denoising error relative to the reference's: supervised fine-tuning on winners. Ignores beta."""
    usual = float(errors.reference_winner.detach().mean()) if errors.usual is None else errors.usual
    return errors.winner / max(usual, 1e-8)
