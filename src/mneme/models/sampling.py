"""Seeded generation in batches: the same prompts give the same answers whatever the batch size or the company."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadOption
from mneme.models.architecture import Parts
from mneme.models.batching import padded
from mneme.text.encoded import whole_text


@torch.no_grad()
def generate(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_prompts: int = 32,
    first: int = 0,
) -> list[str]:
    """Continue each prompt until the tokenizer's end-of-text token or `max_new_tokens`; the prompt is not part of the answer.

    `temperature` 0 is greedy. Prompt number i, from `first` on, draws from its own generator (`seed`, i), so batching changes
    nothing but rounding. Prompts are padded on the left. Raises BadOption for a negative temperature or an empty prompt.
    """
    coded = [list(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    new = generate_ids(
        parts,
        coded,
        tokenizer.eos_token_id,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_prompts=batch_prompts,
        first=first,
    )
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in new]


@torch.no_grad()
def generate_ids(
    parts: Parts,
    coded: Sequence[Sequence[int]],
    end: int | None,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    batch_prompts: int = 32,
    first: int = 0,
) -> list[list[int]]:
    """The same of prompts that are ids already; what comes back is the new ids, without the end-of-text token `end`."""
    if temperature < 0 or max_new_tokens < 1 or batch_prompts < 1:
        raise BadOption("generation needs a temperature of 0 or more, and at least one new token and one prompt a batch.")
    if not all(coded):
        raise BadOption("a prompt without any token cannot be continued. Give a prompt of at least one word.")
    answers: list[list[int]] = []
    for start in range(0, len(coded), batch_prompts):
        batch = coded[start : start + batch_prompts]
        generators = [torch.Generator().manual_seed(_seed_of(seed, first + start + i)) for i in range(len(batch))]
        answers.extend(_continue(parts, batch, end, max_new_tokens, temperature, generators))
    return answers


def _seed_of(seed: int, index: int) -> int:
    return (seed * 1_000_003 + index) % 2**63


def _continue(
    parts: Parts,
    coded: Sequence[Sequence[int]],
    end: int | None,
    max_new_tokens: int,
    temperature: float,
    generators: list[torch.Generator],
) -> list[list[int]]:
    """New ids of every row, without the end-of-text token."""
    batch = padded([whole_text(ids) for ids in coded], "left")
    ids, real, positions = (tensor.to(parts.device) for tensor in (batch.ids, batch.real, batch.positions()))
    cache = None
    new: list[list[int]] = [[] for _ in coded]
    running = [True] * len(coded)
    for _ in range(max_new_tokens):
        out = parts.model(
            input_ids=ids, attention_mask=real.long(), position_ids=positions, past_key_values=cache, use_cache=True
        )
        cache = out.past_key_values
        chosen = _choose(out.logits[:, -1].float().cpu(), temperature, generators)
        for row, token in enumerate(chosen.tolist()):
            running[row] = running[row] and token != end
            if running[row]:
                new[row].append(token)
        if not any(running):
            break
        ids = chosen[:, None].to(parts.device)
        real = torch.cat([real, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        positions = positions[:, -1:] + 1
    return new


def _choose(
    logits: Float[Tensor, "batch vocab"], temperature: float, generators: list[torch.Generator]
) -> Int[Tensor, " batch"]:
    """Greedy, or by inverting each row's cumulative distribution at its own uniform draw."""
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    draws = torch.stack([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
    return torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)[:, 0].clamp_max(logits.shape[-1] - 1)
