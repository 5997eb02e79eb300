"""Preference losses as functions of log-ratios, and what prevents displacement in them.

A log-ratio is log p(answer) - log p_reference(answer), nats per answer. DPO: Rafailov et al. 2023 (arXiv 2305.18290),
equation 7. DPOP: Pal et al. 2024 (arXiv 2402.13228), equation 3. DPO + SFT: Pang et al. 2024 (arXiv 2404.19733), equation 1,
whose likelihood term is per token, as here; Razin et al. 2025 (arXiv 2410.08847) weigh the sum over the answer.
Reward calibration and the disentanglement band: 2026 (arXiv 2604.18239).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def dpop_loss(
    chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], beta: float, weight: float
) -> Float[Tensor, " pair"]:
    """DPO with the margin reduced by `weight` (the paper's lambda) x how far the chosen answer fell below the reference.

    Law: zero strength (at weight 0 it is DPO, and so it is wherever the chosen answer has not fallen).
    """
    return -torch.nn.functional.logsigmoid(beta * (chosen - rejected - weight * torch.relu(-chosen)))


@dataclass(frozen=True)
class BandTest:
    """Whether one step of gradient flow raises the chosen answer and lowers the rejected one."""

    log_ratio: float
    """log r, r = (-dL/dz_w) / (dL/dz_l): pull on the chosen over push on the rejected log-probability; 0 for DPO."""
    log_optimum: float
    """log r*, r* = |s_l| / |s_w|, s the gradients of the mean log-probabilities with respect to the weights."""
    cosine: float
    """rho, between s_w and s_l."""

    @property
    def inside(self) -> bool:
        """rho r* < r < r* / rho; always where rho <= 0: then pulling one up pushes the other down."""
        return self.cosine <= 0 or abs(self.log_ratio - self.log_optimum) < -math.log(min(self.cosine, 1.0))


def band_test(chosen_square: float, rejected_square: float, product: float, pull: float = 1.0, push: float = 1.0) -> BandTest:
    """From |s_w|^2, |s_l|^2, <s_w, s_l> and the incentives -dL/dz_w and dL/dz_l. First order:
    dz_w = pull |s_w|^2 - push <s_w, s_l> and dz_l = pull <s_w, s_l> - push |s_l|^2 (arXiv 2604.18239).
    """
    norms = math.sqrt(max(chosen_square, 1e-30) * max(rejected_square, 1e-30))
    ratio = math.log(max(pull, 1e-30)) - math.log(max(push, 1e-30))
    optimum = 0.5 * (math.log(max(rejected_square, 1e-30)) - math.log(max(chosen_square, 1e-30)))
    return BandTest(ratio, optimum, max(-1.0, min(1.0, product / norms)))


def calibration_factor(log_ratio: float, log_optimum: float) -> float:
    """alpha = exp((log r* - log r) / 2): the chosen gradient times alpha and the rejected one over alpha make r = r*."""
    return math.exp(0.5 * (log_optimum - log_ratio))
