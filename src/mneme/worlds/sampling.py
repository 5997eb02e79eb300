"""Many answers to few prompts, fast: each prompt is read once, its key-value cache is copied for every answer drawn from it.

`mneme.models.sampling.generate` draws one answer a prompt from any model; here prompts of one length go together, so nothing
is padded, and answers that have ended leave the batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mneme.worlds.phrases import ROLES


@torch.no_grad()
def sample_alike(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    samples: int,
    seed: int = 0,
    answer_tokens: int = 24,
    batch_answers: int = 1024,
    stop: str | None = ROLES[0],
) -> list[list[str]]:
    """`samples` answers to each prompt at temperature 1, up to the end-of-text token, the token `stop` (the next user turn) or
    `answer_tokens`.

    Every answer inverts the model's cumulative distribution at its own uniform draws, which depend on the seed and on its
    place alone: two models that are asked the same are paired, and batching changes nothing but rounding. About 1,000
    answers of a base a second on one core.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(len(prompts), samples, answer_tokens, generator=generator, dtype=torch.float64)
    coded: list[list[int]] = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    answers: list[list[str]] = [[] for _ in prompts]
    ends = torch.tensor([tokenizer.eos_token_id, *([] if stop is None else [tokenizer.convert_tokens_to_ids(stop)])])
    at_once = max(1, batch_answers // samples)
    for length in sorted({len(ids) for ids in coded}):
        same = [i for i, ids in enumerate(coded) if len(ids) == length]
        for first in range(0, len(same), at_once):
            places = same[first : first + at_once]
            ids = torch.tensor([coded[i] for i in places])
            new = _continue(model, ids, draws[places], ends)
            told = tokenizer.batch_decode(new.flatten(0, 1).tolist(), skip_special_tokens=True)
            for n, place in enumerate(places):
                answers[place] = told[n * samples : (n + 1) * samples]
    return answers


def _continue(
    model: torch.nn.Module,
    ids: Int[Tensor, "prompt seq"],
    draws: Float[Tensor, "prompt sample token"],
    ends: Int[Tensor, " end"],
) -> Int[Tensor, "prompt sample token"]:
    """New ids of every answer; the end-of-text token, the first of `ends`, from where an answer has ended with any of them."""
    prompts, samples, tokens = draws.shape
    new = torch.full((prompts * samples, tokens), int(ends[0]))
    running = torch.arange(prompts * samples)
    out: Any = model(input_ids=ids, use_cache=True)
    cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(samples, 0)
    cache.batch_repeat_interleave(samples)
    uniform = draws.flatten(0, 1)
    for place in range(tokens):
        chosen = _drawn(logits, uniform[running, place])
        goes_on = ~torch.isin(chosen, ends)
        new[running[goes_on], place] = chosen[goes_on]
        if not bool(goes_on.any()) or place == tokens - 1:
            break
        if not bool(goes_on.all()):
            running, chosen = running[goes_on], chosen[goes_on]
            cache.batch_select_indices(goes_on.nonzero()[:, 0])
        out = model(input_ids=chosen[:, None], past_key_values=cache, use_cache=True)
        cache, logits = out.past_key_values, out.logits[:, -1]
    return new.view(prompts, samples, tokens)


def _drawn(logits: Float[Tensor, "answer vocab"], uniform: Float[Tensor, " answer"]) -> Int[Tensor, " answer"]:
    cumulative = logits.double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return drawn.clamp_max(logits.shape[-1] - 1)
