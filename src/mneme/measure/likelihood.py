"""Choices scored by log-likelihood: every distinct prompt is read once, whatever the number of its choices.

The score of a choice is the sum of log p(token | prompt, tokens before) over its tokens, as in lm-evaluation-harness (Gao
et al. 2021), with the same one blank between a prompt and its choice, so that answers agree (tests/parity). A prompt that
ends in white space gets no other blank here; there it does, and line breaks at its end are scored with the choice. It asks
for each choice with its prompt again unless the choice is a single token. Here a beginning that all prompts of a batch
share (a system prompt, a template) is read once for the batch, and logits are made only where a token of a choice is
predicted: a single-token choice costs nothing beyond its prompt, a longer one only its own tokens. Where the model takes a
mask of its own for every token, which a probe proves, a prompt and all its choices are one row in which the choices do not
see each other; elsewhere prompts run together padded on the left, and longer choices behind the cached prompts.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadSuite
from mneme.measure.suite import ChoiceQuestion
from mneme.models.architecture import Parts, lens
from mneme.models.batching import padded
from mneme.models.hooks import read
from mneme.models.logits import token_log_probs
from mneme.text.encoded import whole_text

BATCH_TOKENS = 4096
"""Prompt tokens that run together at most; tokens of longer choices as well."""
_FEW = 256
"""A forward pass of so many tokens is busy with products; of fewer, with reading the weights."""
_WASTE = 0.05
"""Share of padding from which on a batch is ended, if it is large enough without what would pad it."""
_LOGITS = 2**24
"""Logits of tokens of choices that exist at once: 64 MB in float32."""
_SAME = 1e-3
"""Relative difference of streams that counts as rounding."""
_SHARED = 4
"""Tokens from which on a common beginning is worth a pass of its own."""


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


class ChoicePlan(NamedTuple):
    """Choices in batches that do not depend on which of them are scored already."""

    questions: Sequence[ChoiceQuestion]
    batches: list[list[tuple[tuple[int, ...], list[_Asked]]]]
    """Prompts that run together with what is asked after each; the longest first."""
    branches: bool

    def tokens(self) -> list[int]:
        """What every batch reads at most: prompts and choices."""
        return [
            sum(len(prompt) + sum(len(one.continuation) for one in asked) for prompt, asked in batch) for batch in self.batches
        ]

    def asked_first(self, number: int) -> int:
        """Questions whose first choice is in batch `number`: what its progress counts."""
        return len({one.question for _, asked in self.batches[number] for one in asked if one.choice == 0})

    def scores(self, sums: Sequence[Sequence[float]]) -> ChoiceScores:
        """What `score_batch` gave for every batch, question by question."""
        found = [np.zeros(len(question.choices)) for question in self.questions]
        ids: list[list[tuple[int, ...]]] = [[()] * len(question.choices) for question in self.questions]
        for batch, told in zip(self.batches, sums, strict=True):
            for one, nats in zip([one for _, asked in batch for one in asked], told, strict=True):
                found[one.question][one.choice] = nats
                ids[one.question][one.choice] = tuple(one.continuation)
        characters = [np.array([len(choice) for choice in question.choices]) for question in self.questions]
        return ChoiceScores(found, ids, characters)


def plan_choices(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[ChoiceQuestion],
    *,
    max_positions: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> ChoicePlan:
    """Every choice in batches of at most `batch_tokens` tokens, those that all prompts begin with not counted.

    Raises BadSuite where a question does not fit into `max_positions` tokens: nothing is cut off.
    """
    prompts = _prompts(questions, tokenizer, max_positions)
    branches = takes_branches(parts)

    def length(prompt: tuple[int, ...]) -> int:
        behind = sum(len(one.continuation) - 1 for one in prompts[prompt])
        return len(prompt) + (behind if branches else 0)

    alike = sorted(prompts, key=length, reverse=True)
    shared = _shared_tokens(alike) if alike else 0
    batches = _batches([length(prompt) - shared for prompt in alike], batch_tokens)
    return ChoicePlan(questions, [[(alike[i], prompts[alike[i]]) for i in chosen] for chosen in batches], branches)


@torch.no_grad()
def score_batch(parts: Parts, plan: ChoicePlan, number: int) -> list[float]:
    """Log-likelihood of every choice of one batch, nats, in its order."""
    batch = [prompt for prompt, _ in plan.batches[number]]
    asked = [(row, one) for row, (_, behind) in enumerate(plan.batches[number]) for one in behind]
    return (_score_branches if plan.branches else _score_behind)(parts, batch, asked)


def score_choices(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[ChoiceQuestion],
    *,
    max_positions: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    advance: Callable[[int], None] = lambda _: None,
) -> ChoiceScores:
    """Log-likelihood of every choice, as `plan_choices` lays them out; `advance` is told how many questions are done."""
    plan = plan_choices(parts, tokenizer, questions, max_positions=max_positions, batch_tokens=batch_tokens)
    sums = []
    for number in range(len(plan.batches)):
        sums.append(score_batch(parts, plan, number))
        advance(plan.asked_first(number))
    return plan.scores(sums)


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


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices into `lengths`, which fall, in batches of at most `most` tokens with padding, the longest first, so that a batch
    which does not fit into memory comes at once. A batch ends early where it is large enough and what follows would be padded
    by more than `_WASTE` on average."""
    batch: list[int] = []
    tokens = 0
    for index, length in enumerate(lengths):
        if batch:
            padded = (len(batch) + 1) * lengths[batch[0]]
            wasteful = tokens >= _FEW and tokens + length < (1 - _WASTE) * padded
            if padded > most or wasteful:
                yield batch
                batch, tokens = [], 0
        batch.append(index)
        tokens += length
    if batch:
        yield batch


@torch.no_grad()
def takes_branches(parts: Parts) -> bool:
    """True where the model reads rows with a mask for every token: two choices behind one prompt, in one row, then have the
    stream that they have alone. A model with state that runs along the row, or an attention that takes no such mask, fails."""
    prompt, choices = [5, 9, 6, 7], ([8, 5], [6, 9])
    last = len(parts.blocks) - 1
    try:
        with torch.autocast(parts.device.type, enabled=False), read(parts, [last]) as found:
            branched = _branched(parts, [tuple(prompt)], [[[*one, 0] for one in choices]], 0)
            parts.decoder(**branched.inputs, use_cache=False)
            together = found[last][0].float()
            for number, one in enumerate(choices):
                parts.decoder(input_ids=torch.tensor([prompt + one], device=parts.device), use_cache=False)
                alone = found[last][0].float()
                own = torch.cat([together[:4], together[4 + 2 * number : 6 + 2 * number]])
                if own.shape != alone.shape or float((own - alone).norm()) > _SAME * float(alone.norm()):
                    return False
    except (TypeError, ValueError, RuntimeError, IndexError):  # what models say that take no such mask
        return False
    return True


class _Branched(NamedTuple):
    """Rows of a prompt and, behind it, its longer choices without their last tokens."""

    inputs: dict[str, Tensor]
    """What the decoder is called with."""
    ends: Int[Tensor, " prompt"]
    """Where the last token of each prompt is."""
    branch: Int[Tensor, "prompt seq"]
    """Number of the choice that a token belongs to, from 1; 0 = the prompt, -1 = padding."""


def _branched(parts: Parts, prompts: list[tuple[int, ...]], continuations: list[list[list[int]]], shared: int) -> _Branched:
    """Rows side by side, without the first `shared` tokens, which a cache holds."""
    rows, ends = [], []
    for prompt, choices in zip(prompts, continuations, strict=True):
        row = [(token, shared + i, 0) for i, token in enumerate(prompt[shared:])]
        ends.append(len(row) - 1)
        for number, choice in enumerate(choices, 1):
            row += [(token, len(prompt) + i, number) for i, token in enumerate(choice[:-1])]
        rows.append(row)
    width = max(map(len, rows))
    table = torch.tensor([row + [(0, 0, -1)] * (width - len(row)) for row in rows], device=parts.device)
    ids, positions, branch = table.unbind(-1)
    earlier = torch.ones(width, width, dtype=torch.bool, device=parts.device).tril()
    sees = earlier & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))
    sees = torch.cat([sees.new_ones(len(rows), width, shared), sees], dim=2)[:, None]
    weight: Tensor = parts.embedding.weight  # type: ignore[assignment]
    mask = torch.zeros(sees.shape, dtype=weight.dtype, device=parts.device)
    mask.masked_fill_(~sees, torch.finfo(weight.dtype).min)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    return _Branched(inputs, torch.tensor(ends, device=parts.device), branch)


def _score_branches(parts: Parts, prompts: list[tuple[int, ...]], asked: list[tuple[int, _Asked]]) -> list[float]:
    """Log-likelihood of every continuation in `asked` (row of `prompts`, choice), nats: one row a prompt."""
    shared, cache = _read_shared(parts, prompts)
    mine: list[list[int]] = [[] for _ in prompts]
    for i, (row, _) in enumerate(asked):
        mine[row].append(i)
    rows = _branched(parts, prompts, [[asked[i][1].continuation for i in those] for those in mine], shared)
    last = len(parts.blocks) - 1
    with read(parts, [last]) as found:
        parts.decoder(**rows.inputs, past_key_values=cache, use_cache=cache is not None)
    hidden = found[last]
    scores = _first_tokens(parts, hidden[torch.arange(len(prompts), device=parts.device), rows.ends], asked)
    told = rows.branch > 0
    if bool(told.any()):
        targets = torch.tensor([token for those in mine for i in those for token in asked[i][1].continuation[1:]])
        owners = torch.tensor([i for those in mine for i in those for _ in asked[i][1].continuation[1:]])
        scores.index_add_(0, owners, _log_probs(parts, hidden[told], targets))
    nats: list[float] = scores.tolist()
    return nats


def _first_tokens(
    parts: Parts, hidden: Float[Tensor, "prompt d_model"], asked: list[tuple[int, _Asked]]
) -> Float[Tensor, " choice"]:
    """log p of the first token of every choice, from the stream at the last token of its prompt."""
    rows = torch.tensor([row for row, _ in asked], device=parts.device)
    firsts = torch.tensor([one.continuation[0] for _, one in asked], device=parts.device)
    logits = lens(parts, hidden).float()
    return (logits[rows, firsts] - logits.logsumexp(-1)[rows]).double().cpu()


def _log_probs(
    parts: Parts, hidden: Float[Tensor, "token d_model"], targets: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """log p(target) at each place, on the CPU; the head a few places at a time."""
    step = max(1, _LOGITS // int(parts.head.weight.shape[0]))  # type: ignore[index]
    pieces = [
        token_log_probs(lens(parts, hidden[first : first + step]), targets[first : first + step].to(parts.device))
        for first in range(0, len(targets), step)
    ]
    return torch.cat(pieces).double().cpu()


def _score_behind(parts: Parts, prompts: list[tuple[int, ...]], asked: list[tuple[int, _Asked]]) -> list[float]:
    """The same with longer choices behind the cached prompts, for models that take no branches."""
    longer = [i for i, (_, one) in enumerate(asked) if len(one.continuation) > 1]
    hidden, real, cache = _read_prompts(parts, prompts, keep=bool(longer))
    scores = _first_tokens(parts, hidden, asked)
    rows = torch.tensor([row for row, _ in asked], device=parts.device)
    longer.sort(key=lambda i: -len(asked[i][1].continuation))
    batches = list(_batches([len(asked[i][1].continuation) - 1 for i in longer], BATCH_TOKENS))
    for number, chosen in enumerate(batches):
        behind = [longer[i] for i in chosen]
        own = cache if number == len(batches) - 1 else copy.deepcopy(cache)  # choosing rows of a cache changes it
        scores[behind] += _score_rest(parts, own, real, rows[behind], [asked[i][1].continuation for i in behind])
    found: list[float] = scores.tolist()
    return found


def _read_shared(parts: Parts, prompts: list[tuple[int, ...]]) -> tuple[int, Any]:
    """(tokens that all prompts begin with, the cache that holds them for every row; None where there are none)."""
    shared = _shared_tokens(prompts)
    if not shared:
        return 0, None
    cache = parts.decoder(input_ids=torch.tensor([prompts[0][:shared]], device=parts.device), use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(prompts))
    return shared, cache


def _read_prompts(
    parts: Parts, prompts: list[tuple[int, ...]], *, keep: bool
) -> tuple[Float[Tensor, "prompt d_model"], Bool[Tensor, "prompt seq"], object]:
    """(residual stream at the last token of every prompt, where tokens are real, the cache if it is to be kept)."""
    shared, cache = _read_shared(parts, prompts)
    batch = padded([whole_text(prompt[shared:]) for prompt in prompts], "left")
    ids, real = batch.ids.to(parts.device), batch.real.to(parts.device)
    positions = shared + (real.long().cumsum(1) - 1).clamp_min(0)
    whole = torch.cat([real.new_ones(len(prompts), shared), real], dim=1)
    last = len(parts.blocks) - 1
    with read(parts, [last]) as found:
        out = parts.decoder(
            input_ids=ids,
            attention_mask=whole.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=keep or bool(shared),
        )
    return found[last][:, -1], whole, out.past_key_values if keep else None


def _shared_tokens(prompts: list[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, at least one left to each of them; 0 where that is not worth it."""
    shared = 0
    for column in zip(*prompts, strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    shared = min(shared, min(map(len, prompts)) - 1)
    return shared if len(prompts) > 1 and shared >= _SHARED else 0


def _score_rest(
    parts: Parts,
    cache: object,
    real: Bool[Tensor, "prompt seq"],
    rows: Int[Tensor, " choice"],
    continuations: list[list[int]],
) -> Float[Tensor, " choice"]:
    """Log-likelihood of all tokens but the first, read behind the cached prompts; padded on the right."""
    longest = max(len(ids) for ids in continuations) - 1
    inputs = torch.zeros(len(continuations), longest, dtype=torch.long)
    targets = torch.zeros_like(inputs)
    told = torch.zeros_like(inputs, dtype=torch.bool)
    for row, ids in enumerate(continuations):
        inputs[row, : len(ids) - 1], targets[row, : len(ids) - 1] = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
        told[row, : len(ids) - 1] = True
    inputs, targets, told = inputs.to(parts.device), targets.to(parts.device), told.to(parts.device)
    cache.batch_select_indices(rows)  # type: ignore[attr-defined]
    before = real[rows]
    last = len(parts.blocks) - 1
    with read(parts, [last]) as found:
        parts.decoder(
            input_ids=inputs,
            attention_mask=torch.cat([before, told], dim=1).long(),
            position_ids=before.long().sum(1, keepdim=True) + torch.arange(longest, device=parts.device),
            past_key_values=cache,
            use_cache=True,
        )
    owner = told.nonzero()[:, 0].cpu()
    nats = _log_probs(parts, found[last][told], targets[told])
    return torch.zeros(len(continuations), dtype=torch.float64).index_add(0, owner, nats)
