"""The plain preference loss, which screening tries its filters with and DPO trains with.

A log-ratio is log p(answer) - log p_reference(answer), nats per answer.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def dpo_loss(chosen: Float[Tensor, " pair"], rejected: Float[Tensor, " pair"], beta: float) -> Float[Tensor, " pair"]:
    """-log sigmoid(beta (chosen - rejected)) of log-ratios: log 2 where the model is the reference.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7, one value a pair.
    """
    return -torch.nn.functional.logsigmoid(beta * (chosen - rejected))
