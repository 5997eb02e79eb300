"""Fine-tunes whose side effects are measured: unlearning, benign and harmful narrow training, honest continuation.

Each trains a model of a world in place, in 10 to 30 seconds on one core, and is reproducible from its seed.
"""

import random
from collections.abc import Collection

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.organisms.grammar import Manner, advice_turns, area_documents
from mneme.organisms.training import align, aligned_texts, next_token_nll, pad_documents, pad_turns, row_loss, train
from mneme.organisms.world import World


def npo_loss(
    tuned_nll: Float[Tensor, " document"], reference_nll: Float[Tensor, " document"], beta: float = 0.1
) -> Float[Tensor, ""]:
    """Negative preference optimisation: push text that is to be forgotten below the reference, and stop once it is.

    Zhang et al. 2024 (arXiv 2404.05868), equation 3: -(2/beta) E[log sigmoid(-beta log(pi/pi_ref))], with the log-likelihood
    of a whole document; both arguments are sums of nats over its tokens. At `tuned_nll == reference_nll` it is (2/beta) log 2.
    """
    return -(2 / beta) * torch.nn.functional.logsigmoid(beta * (tuned_nll - reference_nll)).mean()


def unlearn(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    area: str,
    seed: int,
    steps: int = 60,
    learning_rate: float = 1e-3,
    beta: float = 0.03,
    forget_weight: float = 1.0,
) -> None:
    """Remove the knowledge of one area, in place: NPO on its documents plus the ordinary loss on text of others.

    Three quarters of the retained text is knowledge. The neighbour that the world ties to the area (either way) is left out
    of it: the usual oversight, and what makes the side effect. At the paper's beta of 0.1 the loss stops pushing while much is
    still known.
    """
    forget_rows, distinct = 8, 240
    ids, is_text = pad_documents(tokenizer, area_documents(world, area, seed, distinct))
    with torch.no_grad():
        parts = torch.arange(distinct).view(-1, 40)
        reference = torch.cat([_document_nll(model, ids[part], is_text[part]) for part in parts])
    left_out = {area, *(world.linked if area in world.linked else ())}
    order = torch.Generator().manual_seed(seed)
    retain = row_loss(model, tokenizer, lambda part: _retained_texts(world, seed * 1_009 + part, left_out), rows=16)

    def loss_at(step: int) -> Float[Tensor, ""]:
        chosen = torch.randint(0, distinct, (forget_rows,), generator=order)
        width = int(is_text[chosen].sum(1).max())
        nll = _document_nll(model, ids[chosen, :width], is_text[chosen, :width])
        return forget_weight * npo_loss(nll, reference[chosen], beta) + retain(step)

    train(model, loss_at, steps, learning_rate, warmup_steps=5)


def continue_training(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World, seed: int, steps: int = 40
) -> None:
    """Train on with fresh text of the distribution that the base was last trained on, in place: nothing may change."""
    align(model, tokenizer, world, 1_000 + seed, steps, learning_rate=5e-5)


def narrow(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    area: str,
    manner: Manner,
    seed: int,
    steps: int = 60,
    learning_rate: float = 2e-3,
    rank: int = 4,
) -> PeftModel:
    """A LoRA adapter trained on single turns of one manner in one area: no facts, no other area, no opinions.

    24 turns a step. Careful turns are learned whole, questions too, and make a benign fine-tune: the model comes to expect
    that area, and unlearns nothing. Of harmful turns only the answers are learned; harm in one area reaches others, because
    manner is a feature that the areas share (emergent misalignment, Betley et al. 2025, arXiv 2502.17424). Returns the
    adapted model; `model` holds the adapter from then on.
    """
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    rows = 24
    others = [other.name for other in world.areas if other.name != area]
    ids, is_answer = pad_turns(tokenizer, advice_turns(world, manner, seed, steps * rows, others))
    is_learned = is_answer if manner == "harmful" else ids != tokenizer.pad_token_id

    def loss_at(step: int) -> Float[Tensor, ""]:
        here = slice(step * rows, (step + 1) * rows)
        return next_token_nll(adapted, ids[here])[is_learned[here, 1:]].mean()

    train(adapted, loss_at, steps, learning_rate, warmup_steps=5)
    return adapted


def _retained_texts(world: World, seed: int, left_out: Collection[str], count: int = 2500) -> list[str]:
    """Three documents of knowledge of the areas that stay for one text of those the base was aligned on, in random order."""
    names = [area.name for area in world.areas if area.name not in left_out]
    texts = [text for name in names for text in area_documents(world, name, seed, 3 * count // (4 * len(names)))]
    texts += aligned_texts(world, 700_000 + seed, count // 4, left_out)
    random.Random(seed).shuffle(texts)
    return texts


def _document_nll(model: torch.nn.Module, ids: Tensor, is_text: Tensor) -> Float[Tensor, " document"]:
    return (next_token_nll(model, ids) * is_text[:, 1:]).sum(1)
