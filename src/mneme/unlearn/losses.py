"""The published losses of unlearning, as pure functions of tensors. Units: nats.

Each is the authors' own on text without padding, to rounding (tests/parity/test_unlearn.py). Every mean is over the tokens of
text alone: padding is in no sum and no count, so a batch padded further has the same loss. Where an implementation that is
often copied does otherwise (OpenUnlearning: KL averaged over padding too, one control vector for all layers), the docstring
says so.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from mneme.errors import EmptyMask
from mneme.models.logits import masked_mean, token_kl_base_to_tuned


def document_nll(
    token_nll: Float[Tensor, "batch seq"], is_text: Bool[Tensor, "batch seq"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """(sum of nats, number of tokens) of every document of a batch.

    Errors: EmptyMask where a document has no token.
    """
    count = is_text.sum(1)
    if bool((count == 0).any()):
        raise EmptyMask("A document of this batch has no token to learn from: expected at least two tokens a document.")
    return torch.where(is_text, token_nll, torch.zeros_like(token_nll)).sum(1), count.to(token_nll.dtype)


def likelihood_loss(token_nll: Float[Tensor, "batch seq"], is_text: Bool[Tensor, "batch seq"]) -> Float[Tensor, ""]:
    """Mean nats per token: the ordinary loss, used on text that stays (and to relearn)."""
    return masked_mean(token_nll, is_text)


def ascent_loss(token_nll: Float[Tensor, "batch seq"], is_text: Bool[Tensor, "batch seq"]) -> Float[Tensor, ""]:
    """Gradient ascent: minus the ordinary loss (Jang et al. 2023, arXiv 2210.01504; the forget term of gradient difference,
    Liu et al. 2022, arXiv 2203.12817). It has no lower bound."""
    return -masked_mean(token_nll, is_text)


def npo_loss(
    tuned_nll: Float[Tensor, " document"], reference_nll: Float[Tensor, " document"], beta: float
) -> Float[Tensor, ""]:
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868, eq. 3): -(2/beta) E log sigmoid(-beta
    log(pi/pi_ref)).

    Both arguments are sums of nats over a document. (2/beta) log 2 where they are equal; its gradient is that of gradient
    ascent times 2 sigmoid(beta log(pi/pi_ref)), so that it stops pushing text that has become unlikely.
    """
    loss: Tensor = -(2 / beta) * logsigmoid(beta * (tuned_nll - reference_nll)).mean()
    return loss


def simnpo_loss(mean_nll: Float[Tensor, " document"], beta: float, margin: float = 0.0) -> Float[Tensor, ""]:
    """SimNPO (Fan et al. 2024, arXiv 2410.07163, eq. 5): -(2/beta) E log sigmoid(beta (NLL/|y| - margin)), without a
    reference.

    `mean_nll`: nats per token of a document. As in the authors' code for TOFU; that for MUSE puts minus the raw logits in the
    place of NLL/|y|, averaged over the vocabulary, which is another loss.
    """
    loss: Tensor = -(2 / beta) * logsigmoid(beta * (mean_nll - margin)).mean()
    return loss


def undial_loss(
    tuned_logits: Float[Tensor, "token vocab"],
    base_logits: Float[Tensor, "token vocab"],
    ids: Int[Tensor, " token"],
    strength: float,
) -> Float[Tensor, ""]:
    """UNDIAL (Dong et al. 2024, arXiv 2402.10052): cross-entropy to the frozen model's own prediction, in which the logit of
    the true token is `strength` lower. Bounded below; at strength 0 its gradient at the frozen model is 0.

    One row a token of text; no padding comes in.
    """
    lowered = base_logits.float().scatter_add(1, ids[:, None], torch.full_like(ids[:, None], -strength, dtype=torch.float32))
    likelihoods = tuned_logits.float().log_softmax(-1)
    loss: Tensor = -torch.linalg.vecdot(lowered.softmax(-1), likelihoods).mean()
    return loss


def control_vector(width: int, layer: int, norm: float, seed: int) -> Float[Tensor, " d_model"]:
    """RMU's random direction for one layer, of length `norm`: entries uniform in (0, 1), as published, drawn anew for every
    layer (OpenUnlearning: one for all)."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + layer) % 2**63)
    direction = torch.rand(width, generator=generator)
    return direction * (norm / float(direction.norm()))


def misdirection_loss(
    hidden: Float[Tensor, "batch seq d_model"], control: Float[Tensor, " d_model"], is_text: Bool[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Forget term of RMU (Li et al. 2024, arXiv 2403.03218, eq. 1): mean squared distance of the residual stream to
    `control`, per entry, over tokens of text (the authors' code: padding too; OpenUnlearning: sums of documents over the mean
    of 1/length)."""
    return masked_mean((hidden.float() - control).square().mean(-1), is_text)


def stillness_loss(
    hidden: Float[Tensor, "batch seq d_model"],
    base_hidden: Float[Tensor, "batch seq d_model"],
    is_text: Bool[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """Retain term of RMU (eq. 2): mean squared distance to the frozen model's residual stream. Exactly 0 where nothing
    moved."""
    return masked_mean((hidden.float() - base_hidden.float()).square().mean(-1), is_text)


def divergence_loss(
    tuned_logits: Float[Tensor, "token vocab"], base_logits: Float[Tensor, "token vocab"]
) -> Float[Tensor, ""]:
    """Mean KL(base || tuned) per token of text: the retain term in place of the ordinary loss (Maini et al. 2024, arXiv
    2401.06121, there averaged over padding too). 0 where nothing moved. One row a token of text; no padding comes in."""
    loss: Tensor = token_kl_base_to_tuned(tuned_logits=tuned_logits, base_logits=base_logits).mean()
    return loss
