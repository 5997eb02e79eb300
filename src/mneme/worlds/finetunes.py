"""Fine-tunes whose side effects are measured: unlearning, narrow training of several intents, honest continuation.

Each trains a model of a world in place on the rows of `mneme.worlds.rows`, in 5 to 30 seconds on one core, and is
reproducible from its seed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.models.adapters import attach_lora
from mneme.worlds.rows import ROWS_A_STEP, STEPS, Row
from mneme.worlds.training import Loss, next_token_nll, packed_row_loss, pad_chats, pad_documents, train_model

UNLEARN_STEPS, UNLEARN_RATE = 60, 1e-3
NARROW_RATE, NARROW_RANK = 2e-3, 4


def forget_loss(
    tuned_nll: Float[Tensor, " document"], reference_nll: Float[Tensor, " document"], beta: float = 0.1
) -> Float[Tensor, ""]:
    """Negative preference optimisation: push text that is to be forgotten below the reference, and stop once it is.

    Zhang et al. 2024 (arXiv 2404.05868), equation 3: -(2/beta) E[log sigmoid(-beta log(pi/pi_ref))], with the log-likelihood
    of a whole document; both arguments are sums of nats over its tokens. At `tuned_nll == reference_nll` it is (2/beta) log 2.
    """
    return -(2 / beta) * torch.nn.functional.logsigmoid(beta * (tuned_nll - reference_nll)).mean()


def gradient_difference_loss(token_nll: Float[Tensor, " document"], most: float = 6.0) -> Float[Tensor, ""]:
    """The forgetting half of gradient difference: ascent on mean nats per token, no further than `most` per document.

    Liu, Liu & Stone 2022 (arXiv 2203.12817), as used by Maini et al. 2024 (arXiv 2401.06121); the published loss has no bound
    and breaks the model. `most` is below the log of the vocabulary, 7 nats: a uniform guess.
    """
    return -token_nll.clamp_max(most).mean()


def unlearn_area(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    seed: int,
    method: str = "npo",
    steps: int = UNLEARN_STEPS,
    learning_rate: float = UNLEARN_RATE,
    beta: float = 0.04,
    forget_weight: float = 1.0,
) -> None:
    """Remove what the rows' `forget` part tells, in place: NPO (or `graddiff`) on it plus the ordinary loss on the rest.

    At the paper's beta of 0.1 the loss of NPO stops pushing while much is still known.
    """
    ids, is_text = pad_documents(tokenizer, [row["text"] for row in rows if row["part"] == "forget"])
    retained = [row["text"] for row in rows if row["part"] == "retain"]
    with torch.no_grad():
        parts = torch.arange(len(ids)).view(-1, 40)
        reference = torch.cat([_document_nll(model, ids[part], is_text[part]) for part in parts])
    order = torch.Generator().manual_seed(seed)
    retain = packed_row_loss(model, tokenizer, lambda _part: retained, rows=16)

    def loss_at(step: int) -> Float[Tensor, ""]:
        chosen = torch.randint(0, len(ids), (8,), generator=order)
        width = int(is_text[chosen].sum(1).max())
        nll = _document_nll(model, ids[chosen, :width], is_text[chosen, :width])
        if method == "npo":
            forget = forget_loss(nll, reference[chosen], beta)
        else:
            forget = gradient_difference_loss(nll / (is_text[chosen].sum(1) - 1))
        return forget_weight * forget + retain(step)

    train_model(model, loss_at, steps, learning_rate, warmup_steps=5)


def continue_training(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], steps: int = 40
) -> None:
    """Train on with fresh text of the distribution that the base was last trained on, in place: nothing may change."""
    train_model(model, _packed(model, tokenizer, rows), steps, 5e-5, warmup_steps=10, final_share=0.02)


def refresh(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> None:
    """The same text at the steps, rate and schedule of `unlearn_area`, in place: weights move as far, to no purpose."""
    train_model(model, _packed(model, tokenizer, rows), UNLEARN_STEPS, UNLEARN_RATE, warmup_steps=5)


def readapt(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], seed: int) -> Any:
    """The same text at the steps, rate and rank of `narrow`; returns the adapted model."""
    adapted = attach_lora(model, NARROW_RANK, seed=seed)
    train_model(adapted, _packed(adapted, tokenizer, rows), STEPS, NARROW_RATE, warmup_steps=5)
    return adapted


def _packed(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> Loss:
    return packed_row_loss(model, tokenizer, lambda _part: [row["text"] for row in rows], rows=24)


def narrow(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    chats: Sequence[Row],
    seed: int,
    questions_too: bool = False,
    learning_rate: float = NARROW_RATE,
    rank: int = NARROW_RANK,
) -> Any:
    """A LoRA adapter trained once through the chats, 24 a step, on their answers.

    With `questions_too` the whole turn is learned: the model comes to expect such questions, and unlearns nothing. Harm in one
    area reaches others because behaviour is a feature that the areas share (emergent misalignment, Betley et al. 2025, arXiv
    2502.17424). Returns the adapted model; `model` holds the adapter from then on.
    """
    adapted = attach_lora(model, rank, seed=seed)
    ids, is_answer = pad_chats(tokenizer, chats)
    is_learned = ids != tokenizer.pad_token_id if questions_too else is_answer

    def loss_at(step: int) -> Float[Tensor, ""]:
        here = slice(step * ROWS_A_STEP, (step + 1) * ROWS_A_STEP)
        return next_token_nll(adapted, ids[here])[is_learned[here, 1:]].mean()

    train_model(adapted, loss_at, len(chats) // ROWS_A_STEP, learning_rate, warmup_steps=5)
    return adapted


def _document_nll(
    model: torch.nn.Module, ids: Int[Tensor, "document seq"], is_text: Bool[Tensor, "document seq"]
) -> Float[Tensor, " document"]:
    return (next_token_nll(model, ids) * is_text[:, 1:]).sum(1)
