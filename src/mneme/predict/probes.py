"""Behaviours, and what everybody knows, by paired answers: a prompt, an answer that shows the behaviour, or is right, and one
that does not, or is wrong.

p(shows) is the share of the first in the probability of the two whole answers given the prompt, and the effect its change from
base to tuned: 0.05 is 5 points of how often a model that had only these two answers would show it. The answers of a pair have
about the same length, so that a model that likes short answers gains nothing; where they differ, the likelihoods are taken per
token and brought to the shorter of the two lengths. Every question is read in one form, the forms in turn (as a chat, as a
chat with a system prompt, as plain text), so that no effect hangs on a template; the beginning of a text is read as it is. A
prompt is a cluster. Two answers and no judge, as in the written evaluations of Perez et al. (2022, arXiv 2212.09251); prompts
and answers are mneme's own.

Law *identity*: exactly 0 where the models are equal. *Antisymmetry*: swapping the pair flips the sign.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.errors import TemplateRefuses
from mneme.models.forest import plant, read_forest, reads_forests
from mneme.models.pair import ModelPair, Side
from mneme.predict.areas import PairedAnswers
from mneme.predict.item_reading import SIDES, Arrays, head_log_p, states_of
from mneme.text.chat import render_chat

_SYSTEM = "You are a helpful assistant."
_PLAIN = "Question: {ask}\nAnswer: "
_UNKNOWN = 0.1
"""Share of unknown tokens above which a tokenizer cannot write the prompt: such a model cannot be asked. A round number that
was never varied."""
_BATCH = 2048
"""Tokens of prompts with their answers that run together: half of `models.batching.BATCH_TOKENS`, as prompts differ in length.
Never varied."""
FORMS = 3
"""Every prompt is read in one of three forms, in turn: as a chat, with a system prompt, as plain text."""
_NO_LIMIT = 1 << 30
"""Tokens that a model without a limit of positions can read."""
_EXTREME = 700.0
"""Nats beyond which the exponential of a float64 overflows."""


class AskedProbe(NamedTuple):
    """One answer to one prompt, as ids."""

    probe: int
    shows: bool
    ids: list[int]
    first: int
    """Index of the answer's first token."""


def write_probes(probes: Sequence[PairedAnswers], tokenizer: PreTrainedTokenizerBase) -> list[AskedProbe]:
    """Every probe that the tokenizer can write, in its form, with either answer."""
    asked: list[AskedProbe] = []
    for number, probe in enumerate(probes):
        text = _is_text(probe, number, tokenizer)  # special tokens are then the tokenizer's, not the template's
        before, gap = (probe.begin, " ") if probe.begin else (_prompt(probe, number, tokenizer), "")
        for shows, answer in ((True, probe.shows), (False, probe.lacks)):
            whole = list(tokenizer(before + gap + answer, add_special_tokens=text)["input_ids"])
            first = _common(whole, list(tokenizer(before, add_special_tokens=text)["input_ids"]))
            unknown = tokenizer.unk_token_id
            if unknown is not None and sum(one == unknown for one in whole) > _UNKNOWN * len(whole):
                break
            if 0 < first < len(whole):
                asked.append(AskedProbe(number, shows, whole, first))
    both = {one.probe for one in asked if one.shows} & {one.probe for one in asked if not one.shows}
    return [one for one in asked if one.probe in both]


def _is_text(probe: PairedAnswers, number: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it is read as plain text: the beginning of one, every third question, and all where there is no template."""
    return not tokenizer.chat_template or bool(probe.begin) or (number % FORMS == 2 and not probe.system)


def _prompt(probe: PairedAnswers, number: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The prompt in the form of its turn, up to where the answer begins."""
    system = probe.system
    if _is_text(probe, number, tokenizer):
        return (f"{system}\n\n" if system else "") + _PLAIN.format(ask=probe.ask)
    system = system or (_SYSTEM if number % FORMS == 1 else "")
    turns = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": probe.ask})
    try:
        return render_chat(turns, tokenizer, add_generation_prompt=True)
    except TemplateRefuses:
        if not system:
            raise
    turns = [{"role": "user", "content": f"{system}\n\n{probe.ask}"}]  # a template without a system turn
    return render_chat(turns, tokenizer, add_generation_prompt=True)


def _common(one: list[int], other: list[int]) -> int:
    """Length of the common beginning: where the two come apart the answer begins, whatever its first piece swallowed."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def shares_beginnings(pair: ModelPair, asked: Sequence[AskedProbe]) -> bool:
    """Whether both models can read these prompts as a forest (`mneme.models.forest`): tried out, a few prompts each."""
    if not asked:
        return False
    with pair.using("base") as parts:
        alike = reads_forests(parts, [one.ids for one in asked])
    if not alike or pair.adapter:
        return alike
    with pair.using("tuned") as parts:
        return reads_forests(parts, [one.ids for one in asked])


def read_asked(pair: ModelPair, asked: Sequence[AskedProbe], *, forest: bool = False, sides: Sequence[Side] = SIDES) -> Arrays:
    """Both models, or those of `sides`, over all answers: `log_p` [model answer], summed over the answer's tokens, nats;
    `length` [answer]. `forest`: every beginning is read once (only where `shares_beginnings`)."""
    longest = pair.max_positions or _NO_LIMIT
    log_p = np.full((len(sides), len(asked)), np.nan)
    length = np.array([len(one.ids) - one.first for one in asked])
    fits = np.array([number for number, one in enumerate(asked) if len(one.ids) <= longest], dtype=np.int64)
    for batch, states in (_read_together if forest else _read_alone)(pair, asked, fits, sides):
        target = np.concatenate([asked[i].ids[asked[i].first :] for i in batch])
        owner = np.repeat(np.arange(len(batch)), length[batch])
        said = head_log_p(pair, states, torch.from_numpy(target), sides)
        for model in range(len(sides)):
            log_p[model, batch] = np.bincount(owner, weights=said[model], minlength=len(batch))
    return {"log_p": log_p, "length": length}


_Batch = tuple[Int[ndarray, " answer"], list[Float[Tensor, "row d_model"]]]
"""Answers, and of either model what predicts each of their tokens, answer by answer."""


def _read_alone(
    pair: ModelPair, asked: Sequence[AskedProbe], fits: Int[ndarray, " answer"], sides: Sequence[Side]
) -> Iterator[_Batch]:
    """Every answer after its own prompt, those of about equal length together."""
    order = fits[np.argsort([len(asked[i].ids) for i in fits], kind="stable")]
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * len(asked[order[stop]].ids) <= _BATCH:
            stop += 1
        batch = [asked[i] for i in order[start:stop]]
        width = max(len(one.ids) for one in batch)
        ids = torch.tensor([[*one.ids, *[one.ids[-1]] * (width - len(one.ids))] for one in batch])
        at = [(row, place) for row, one in enumerate(batch) for place in range(one.first, len(one.ids))]
        yield order[start:stop], states_of(pair, ids, torch.tensor(at), sides)
        start = stop


def _read_together(
    pair: ModelPair, asked: Sequence[AskedProbe], fits: Int[ndarray, " answer"], sides: Sequence[Side]
) -> Iterator[_Batch]:
    """The answers as a forest, some rows at a time."""
    planted = plant([asked[i].ids for i in fits])
    n_rows, seq = planted.ids.shape
    step = max(1, _BATCH // max(seq, 1))
    for start in range(0, n_rows, step):
        rows = slice(start, min(start + step, n_rows))
        own = np.flatnonzero((planted.row >= start) & (planted.row < start + step))
        # What predicts a token stands at the token before it.
        before = [planted.places[i][asked[fits[i]].first - 1 : -1] for i in own]
        row = torch.from_numpy(np.repeat(planted.row[own] - start, [len(one) for one in before]))
        place = torch.from_numpy(np.concatenate(before))
        found = []
        for side in sides:
            with pair.using(side) as parts:
                stream = read_forest(parts, planted, rows, pair.n_layers - 1)
                found.append(stream[row.to(stream.device), place.to(stream.device)].float())
        yield fits[own], found


def probability_shown(asked: Sequence[AskedProbe], read: Arrays) -> tuple[Float[ndarray, "model probe"], list[int]]:
    """(p(shows) of both models, number of the probe) of every probe that was read."""
    found: dict[int, dict[bool, int]] = {}
    for index, one in enumerate(asked):
        if not np.isnan(read["log_p"][0, index]):
            found.setdefault(one.probe, {})[one.shows] = index
    numbers = [probe for probe, both in found.items() if len(both) == 2]
    shown = np.zeros((2, len(numbers)))
    for column, probe in enumerate(numbers):
        yes, no = found[probe][True], found[probe][False]
        shortest = min(read["length"][yes], read["length"][no])
        for model in range(2):
            gap = read["log_p"][model, yes] / read["length"][yes] - read["log_p"][model, no] / read["length"][no]
            shown[model, column] = 1 / (1 + math.exp(-min(max(shortest * gap, -_EXTREME), _EXTREME)))
    return shown, numbers
