"""Choices scored by log-likelihood: every distinct prompt is read once, whatever the number of its choices.

The score of a choice is the sum of log p(token | prompt, tokens before) over its tokens, as in lm-evaluation-harness (Gao
et al. 2021), whose conventions for the space between prompt and choice are kept, so that answers agree. It asks for each
choice with its prompt again unless the choice is a single token. Here prompts of equal length run together, without padding;
a single-token choice costs nothing beyond them, a longer one only its own tokens behind the cached prompt.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadSuite
from mneme.measure.suite import ChoiceQuestion
from mneme.models.architecture import Parts
from mneme.models.batching import padded
from mneme.models.logits import token_log_probs
from mneme.text.encoded import whole_text

BATCH_TOKENS = 4096
"""Prompt tokens that run together at most."""
_LOGITS = 2**27
"""Logits of longer choices that exist at once, at most, where a single prompt does not have more (0.5 GB in float32)."""


@dataclass(frozen=True)
class ChoiceScores:
    """Log-likelihood of every choice of every question, question by question."""

    sums: list[Float[ndarray, " _"]]
    """Nats, over all tokens of the choice."""
    ids: list[list[tuple[int, ...]]]
    """Token ids of every choice, as they follow the prompt."""
    characters: list[Int[ndarray, " _"]]

    def picks(self, per: Literal["choice", "token", "character"] = "choice") -> Int[ndarray, " question"]:
        """Index of the likeliest choice of every question; `per` token or character the sums are divided by their length."""
        if per == "choice":
            return np.array([int(score.argmax()) for score in self.sums])
        tokens = [np.array([len(ids) for ids in choices]) for choices in self.ids]
        lengths = tokens if per == "token" else self.characters
        return np.array([int((score / length).argmax()) for score, length in zip(self.sums, lengths, strict=True)])


@dataclass(frozen=True)
class _Asked:
    """One choice of one question as ids."""

    question: int
    choice: int
    continuation: list[int]


@torch.no_grad()
def score_choices(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[ChoiceQuestion],
    *,
    max_positions: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda _: None,
) -> ChoiceScores:
    """Log-likelihood of every choice; `advance` is told how many questions are done.

    Raises BadSuite where a question does not fit into `max_positions` tokens: nothing is cut off.
    """
    prompts = _prompts(questions, tokenizer, max_positions)
    sums = [np.zeros(len(question.choices)) for question in questions]
    ids: list[list[tuple[int, ...]]] = [[()] * len(question.choices) for question in questions]
    vocab = int(parts.head.weight.shape[0])  # type: ignore[index]
    for batch in _equal_prompts(prompts, batch_tokens, vocab):
        asked = [(row, one) for row, prompt in enumerate(batch) for one in prompts[prompt]]
        for (_, one), score in zip(asked, _score(parts, batch, asked), strict=True):
            sums[one.question][one.choice] = score
            ids[one.question][one.choice] = tuple(one.continuation)
        advance(len({one.question for _, one in asked if one.choice == 0}))
    characters = [np.array([len(choice) for choice in question.choices]) for question in questions]
    return ChoiceScores(sums, ids, characters)


def _prompts(
    questions: Sequence[ChoiceQuestion], tokenizer: PreTrainedTokenizerBase, max_positions: int | None
) -> dict[tuple[int, ...], list[_Asked]]:
    """Distinct prompt ids -> the choices that are asked after them.

    Blanks at the end of a prompt go to the choice; else one blank stands between them. Prompt and choice are encoded
    together, so that words are cut as in running text, and what exceeds the prompt's own ids is the choice.
    """
    if not questions:  # the tokenizers of transformers 5 fail on an empty list
        return {}
    before = [question.prompt.rstrip(" ") for question in questions]
    gaps = [
        question.prompt[len(text) :] or ("" if text[-1:].isspace() else " ")
        for question, text in zip(questions, before, strict=True)
    ]
    distinct = list(dict.fromkeys(before))
    coded = dict(zip(distinct, tokenizer(distinct, verbose=False)["input_ids"], strict=True))
    wholes = [
        text + gap + choice for text, gap, question in zip(before, gaps, questions, strict=True) for choice in question.choices
    ]
    ids = iter(tokenizer(wholes, verbose=False)["input_ids"])
    prompts: dict[tuple[int, ...], list[_Asked]] = defaultdict(list)
    for index, (question, text) in enumerate(zip(questions, before, strict=True)):
        prompt = coded[text]
        for choice in range(len(question.choices)):
            whole = next(ids)
            if max_positions is not None and len(whole) > max_positions:
                raise BadSuite(
                    f"question {question.id} has {len(whole)} tokens with its choice {choice}, but the model reads "
                    f"{max_positions}. Shorten it, or leave it out."
                )
            if not prompt or len(whole) <= len(prompt):
                raise BadSuite(
                    f"question {question.id}: choice {choice} or the prompt gives no token of its own. Give text for both."
                )
            prompts[tuple(prompt)].append(_Asked(index, choice, whole[len(prompt) :]))
    return prompts


def _equal_prompts(
    prompts: Mapping[tuple[int, ...], list[_Asked]], batch_tokens: int, vocab: int
) -> Iterator[list[tuple[int, ...]]]:
    """Prompts of one length together, longest first, so that a batch which does not fit into memory comes at once."""
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for prompt in prompts:
        by_length[len(prompt)].append(prompt)
    for length in sorted(by_length, reverse=True):
        alike = by_length[length]
        longest = max(len(one.continuation) - 1 for prompt in alike for one in prompts[prompt])
        most = max(len(prompts[prompt]) for prompt in alike) * max(longest, 1)
        rows = max(1, min(batch_tokens // length, _LOGITS // (vocab * most)))
        for first in range(0, len(alike), rows):
            yield alike[first : first + rows]


def _score(parts: Parts, prompts: list[tuple[int, ...]], asked: list[tuple[int, _Asked]]) -> list[float]:
    """Log-likelihood of every continuation in `asked` (row of `prompts`, choice), nats."""
    longer = [i for i, (_, one) in enumerate(asked) if len(one.continuation) > 1]
    out = parts.model(
        input_ids=torch.tensor(prompts, device=parts.device), use_cache=bool(longer), **_last_only(parts, len(prompts[0]))
    )
    rows = torch.tensor([row for row, _ in asked], device=parts.device)
    firsts = torch.tensor([one.continuation[0] for _, one in asked], device=parts.device)
    logits = out.logits[:, -1].float()
    scores = (logits[rows, firsts] - logits.logsumexp(-1)[rows]).double().cpu()
    if longer:
        scores[longer] += _score_rest(parts, out.past_key_values, rows[longer], [asked[i][1].continuation for i in longer])
    found: list[float] = scores.tolist()
    return found


def _score_rest(
    parts: Parts, cache: object, rows: Int[Tensor, " choice"], continuations: list[list[int]]
) -> Float[Tensor, " choice"]:
    """Log-likelihood of all tokens but the first, read behind the cached prompts; padded on the right."""
    inputs, targets = (padded([whole_text(ids[cut]) for ids in continuations]) for cut in (slice(-1), slice(1, None)))
    cache.batch_select_indices(rows)  # type: ignore[attr-defined]
    out = parts.model(input_ids=inputs.ids.to(parts.device), past_key_values=cache, use_cache=True)
    found = token_log_probs(out.logits, targets.ids.to(parts.device)).double().cpu()
    return torch.where(targets.real, found, 0.0).sum(-1)


def _last_only(parts: Parts, length: int) -> dict[str, int]:
    """The option by which a model computes the logits of the last token alone, where it has one."""
    known = length > 1 and "logits_to_keep" in inspect.signature(parts.model.forward).parameters
    return {"logits_to_keep": 1} if known else {}
