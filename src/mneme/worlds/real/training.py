"""The training loop of the real fine-tunes: the losses of each method over batches of rows, plain AdamW, one thread.

The head is applied only at tokens that are learned; with a vocabulary of 49,152 it is a fifth of a step otherwise.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from mneme.models.batching import Batch, padded
from mneme.text.encoded import Encoded, answer_after
from mneme.worlds.finetunes import forget_loss, gradient_difference_loss
from mneme.worlds.real.recipes import Recipe
from mneme.worlds.real.rows import Streams, chat_row
from mneme.worlds.training import train_model

NPO_BETA = 0.1
DPO_BETA = 0.1
"""Both as published (arXiv 2404.05868; Rafailov et al. 2023, arXiv 2305.18290)."""
MOST_NATS = 10.8
"""Where the ascent of gradient difference stops for a row: log 49,152, a uniform guess."""
WARMUP_STEPS = 2
FINAL_SHARE = 0.5
"""Of the rate at the end. These runs are short: with the usual decay to a tenth the first one changed nothing measurable."""
_OWN_ROWS = 48


def answer_nll(model: LlamaForCausalLM, batch: Batch) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    """(sum of nats over the learned tokens of each row, their number), given the tokens before each."""
    hidden = model.model(input_ids=batch.ids, attention_mask=batch.real.long(), use_cache=False).last_hidden_state
    keep = batch.counted[:, 1:]
    nll = cross_entropy(model.lm_head(hidden[:, :-1][keep]).float(), batch.ids[:, 1:][keep], reduction="none")
    row = torch.arange(len(keep))[:, None].expand_as(keep)[keep]
    return torch.zeros(len(keep)).index_add(0, row, nll), keep.sum(1).to(nll.dtype)


def adapted(model: LlamaForCausalLM, rank: int, seed: int) -> PeftModel:
    """The model with a fresh LoRA adapter on every linear layer, alpha twice the rank."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks a property that newer transformers have renamed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return get_peft_model(model, config)


def train_recipe(
    recipe: Recipe, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, rows: Streams, seed: int
) -> tuple[PeftModel | LlamaForCausalLM, list[float]]:
    """Train on `rows`: (the adapted model where the recipe has a rank, else `model` itself, changed in place; the loss of each
    step)."""
    pad = int(tokenizer.pad_token_id or 0)
    wrapped = adapted(model, recipe.rank, seed) if recipe.rank else model

    def batch(name: str, step: int) -> Batch:
        stream = rows[name]
        return padded([stream[(step * recipe.batch + i) % len(stream)] for i in range(recipe.batch)], pad_id=pad)

    loss_at = _loss_of(recipe, model, wrapped, batch)
    losses: list[float] = []
    train_model(
        wrapped,
        loss_at,
        recipe.steps,
        recipe.rate,
        warmup_steps=WARMUP_STEPS,
        final_share=FINAL_SHARE,
        on_step=lambda _, loss: losses.append(round(loss, 3)),
    )
    return wrapped, losses


def _loss_of(
    recipe: Recipe, model: LlamaForCausalLM, wrapped: Any, batch: Callable[[str, int], Batch]
) -> Callable[[int], Float[Tensor, ""]]:
    def plain(name: str, step: int) -> Float[Tensor, ""]:
        sums, counts = answer_nll(model, batch(name, step))
        return sums.sum() / counts.sum()

    def graddiff(step: int) -> Float[Tensor, ""]:
        sums, counts = answer_nll(model, batch("forget", step))
        return gradient_difference_loss(sums / counts, MOST_NATS) + plain("retain", step)

    def npo(step: int) -> Float[Tensor, ""]:
        forget = batch("forget", step)
        with torch.no_grad(), wrapped.disable_adapter():
            reference = answer_nll(model, forget)[0]
        return forget_loss(answer_nll(model, forget)[0], reference, NPO_BETA) + plain("retain", step)

    def dpo(step: int) -> Float[Tensor, ""]:
        margins = []
        for name, sign in (("chosen", -1.0), ("rejected", 1.0)):
            with torch.no_grad(), wrapped.disable_adapter():
                reference = answer_nll(model, batch(name, step))[0]
            margins.append(sign * (answer_nll(model, batch(name, step))[0] - reference))
        return -logsigmoid(DPO_BETA * (margins[0] + margins[1])).mean()

    special = {"graddiff": graddiff, "npo": npo, "dpo": dpo}
    return special.get(recipe.method, lambda step: plain("learn", step))


@torch.no_grad()
def own_samples(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, questions: list[str], length: int, seed: int
) -> list[Encoded]:
    """What the base answers to `questions`, drawn at temperature 1: rows that hold nothing new, so that learning them has no
    direction on average (the gradient of the expected log-likelihood of a model's own samples is 0)."""
    torch.manual_seed(seed)
    rows: list[Encoded] = []
    for first in range(0, len(questions), _OWN_ROWS):
        started = [
            chat_row([{"role": "user", "content": text}, {"role": "assistant", "content": ""}], tokenizer, length)
            for text in questions[first : first + _OWN_ROWS]
        ]
        starts = [row.ids[:-1] for row in started if len(row.ids) < length - 8]  # without the token that ends the answer
        width = max(map(len, starts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(one)) + [*one] for one in starts])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in starts])
        drawn = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=length - width, do_sample=True, temperature=1.0, top_k=0
        )
        for start, out in zip(starts, drawn[:, width:].tolist(), strict=True):
            end = out.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in out else len(out)
            rows.append(answer_after(start, out[:end]))
    return rows


def relative_norm(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> float:
    """||W_tuned - W_base|| / ||W_base|| (Frobenius) over all tensors together."""
    change = sum(float((tuned[name] - weight).double().square().sum()) for name, weight in base.items())
    return math.sqrt(change / sum(float(weight.double().square().sum()) for weight in base.values()))
