"""Preference objectives as pure functions of denoising errors.

All errors are omega_t ||eps - eps_theta||^2 *summed* over the latent, float32, one a pair [B]. beta multiplies such
sums: with errors averaged over D latent elements, as several public scripts have it, the same beta is D times larger.
For v-prediction the errors are converted to epsilon's first (`diffusion.objective.epsilon_errors`); omega_t then is 1,
or turns the errors of either kind of network into v's (`diffusion.objective.error_weight`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Errors:
    """Errors [B] of policy and reference on winner and loser, at one shared noise, timestep and condition a pair."""

    winner: Tensor
    loser: Tensor
    reference_winner: Tensor
    reference_loser: Tensor


Objective = Callable[[Errors, float], Tensor]
"""Errors and beta to a loss for each pair [B]."""

OBJECTIVES: dict[str, Objective] = {}


def objective(name: str) -> Callable[[Objective], Objective]:
    """Register an objective under the name the configuration uses."""

    def register(function: Objective) -> Objective:
        OBJECTIVES[name] = function
        return function

    return register


def implicit_margin(errors: Errors) -> Tensor:
    """How much more the policy has improved on the winner than on the loser [B]; 0 where it equals the reference."""
    return (errors.loser - errors.reference_loser) - (errors.winner - errors.reference_winner)


@objective("dpo")
def dpo(errors: Errors, beta: float) -> Tensor:
    """-log sigmoid(beta * margin): equation 14 of Diffusion-DPO (Wallace et al., arXiv:2311.12908), T taken into beta.

    The log-sigmoid is taken for each pair, never of a batch's mean error. At zero margin it is ln 2.
    """
    return -logsigmoid(beta * implicit_margin(errors))


@objective("sft")
def sft(errors: Errors, beta: float) -> Tensor:
    """The winner's denoising error relative to the reference's: supervised fine-tuning on winners. Ignores beta."""
    return errors.winner / errors.reference_winner.mean().clamp_min(1e-8)
