"""Both models over the text, once: every document alone, logits only where something is read.

The residual stream after the last block is kept at the places that predict a piece of an item or a sampled token; norm and
head run on those alone, in float32, a few at a time. Cost: two forward passes without the head, and the head on about a tenth
of the tokens: with a vocabulary of 262,144 that is what keeps the reading near two bare passes. Memory: one batch of the
model's own activations and 64 MB of logits for each model, whatever the vocabulary.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.models.heads import head_logits, rows_at_once
from mneme.models.hooks import read_residuals
from mneme.models.logits import token_kl_base_to_tuned, token_kl_tuned_to_base, token_log_probs
from mneme.models.pair import ModelPair, Side
from mneme.models.sides import on_both
from mneme.predict.cloze import Pool, cloze
from mneme.predict.items import Items, WordTable

WINDOW = 512
"""Tokens of a document that are read together; a longer one begins anew, as it does where models are trained on rows. A round
number that was never varied."""
_TOGETHER = 1024
"""Tokens of a batch, padding included. With 4,096 windows of other lengths stand beside each other and up to an eighth more
tokens run, and what a block makes of them no longer fits a processor's cache: 3.9 ms a token of 135 M parameters, with 1,024
3.2 (docs/log.md, 28 November, a swifter audit)."""
_KEY = 1 << 32
"""Joins a document and a place to one number: no document has so many tokens."""
_TINY = 1e-12
"""Far below the norm of any residual vector: keeps 0 / 0 from being computed."""

Arrays = dict[str, ndarray]
SIDES: tuple[Side, Side] = ("base", "tuned")


class ReadingPlan(NamedTuple):
    """What is read, before any model is asked: batches of windows of about equal length, and the places in them."""

    documents: tuple[Int[ndarray, " token"], ...]
    table: WordTable
    pool: Pool
    item_word: Int[ndarray, " item"]
    """Index of every item in the word table."""
    batches: tuple[Int[ndarray, "window 3"], ...]
    """Windows (document, start, end) that run together."""
    items_of: tuple[Int[ndarray, " batch_item"], ...]
    """Items of each batch."""
    sample: Int[ndarray, "place 2"]
    """(document, token) of the sampled predictions, in corpus order."""
    length: int
    """Tokens of a window at most."""

    def all_tokens(self) -> int:
        """Tokens that are read in all."""
        return sum(self.tokens(batch) for batch in range(len(self.batches)))

    def tokens(self, batch: int) -> int:
        """Tokens that are read in a batch."""
        windows = self.batches[batch]
        return int((windows[:, 2] - windows[:, 1]).sum())


def plan_reading(
    documents: Sequence[Int[ndarray, " _token"]],
    table: WordTable,
    items: Items,
    pool: Pool,
    sample: Int[ndarray, "place 2"],
    *,
    longest: int | None,
) -> ReadingPlan:
    """Lay the reading out. `sample`: (document, token) that are looked at as a whole, for KL and likelihood. `longest`:
    positions that the model allows. An item or a sampled token across the edge of a window, or at its very start, where
    nothing predicts it, is not read. A window is read as far as something in it is asked for, and not at all where
    nothing is."""
    length = min(WINDOW, longest or WINDOW)
    last = table.start[items.word] + np.array([len(table.forms[form]) for form in table.form[items.word]], dtype=np.int64) - 1
    first = table.start[items.word] // length * length
    fits = (table.start[items.word] > first) & (last < first + length)
    # Document, start of the window, and the last token asked for: what stands before it is all that has to be read.
    asked = np.concatenate(
        [
            np.stack([table.document[items.word], first, last], axis=1)[fits],
            np.stack([sample[:, 0], sample[:, 1] // length * length, sample[:, 1]], axis=1)[sample[:, 1] % length > 0],
        ]
    )
    ends: dict[tuple[int, int], int] = {}
    for document, start, end in asked.tolist():
        ends[document, start] = max(ends.get((document, start), 0), end)
    windows = np.array([(*key, end) for key, end in ends.items()], dtype=np.int64).reshape(-1, 3)  # document, start, end
    windows = windows[np.lexsort((windows[:, 1], windows[:, 0], windows[:, 2] - windows[:, 1]))]
    batches = _batched(windows)
    where = {(int(d), int(s)): number for number, batch in enumerate(batches) for d, s, _ in batch}
    found: list[list[int]] = [[] for _ in batches]
    for item in np.flatnonzero(fits):
        found[where[int(table.document[items.word[item]]), int(first[item])]].append(int(item))
    return ReadingPlan(
        documents=tuple(documents),
        table=table,
        pool=pool,
        item_word=items.word,
        batches=tuple(batches),
        items_of=tuple(np.array(own, dtype=np.int64) for own in found),
        sample=sample,
        length=length,
    )


def items_alone(plan: ReadingPlan, items: Items, tokens: int, longest: int | None) -> tuple[Items, ReadingPlan]:
    """Some of the items, and a plan for them and nothing else: those of as many documents, spread evenly over all that have
    some, as make about `tokens` tokens; at least one document."""
    none = np.zeros((0, 2), dtype=np.int64)
    whole = plan_reading(plan.documents, plan.table, items, plan.pool, none, longest=longest)
    step = max(1, round(whole.all_tokens() / max(tokens, 1)))
    rank = np.unique(plan.table.document[items.word], return_inverse=True)[1]
    few = rank % step == step // 2 if rank.max(initial=0) >= step // 2 else rank == 0
    some = Items(items.word[few], items.own[:, few])
    return some, plan_reading(plan.documents, plan.table, some, plan.pool, none, longest=longest)


def _batched(windows: Int[ndarray, "window 3"]) -> list[Int[ndarray, "batch_window 3"]]:
    """Windows, shortest first, so many together as fill `_TOGETHER` tokens with padding."""
    batches, first = [], 0
    for index in range(1, len(windows) + 1):
        last = index == len(windows)
        if last or (index - first + 1) * (windows[index, 2] - windows[index, 1]) > _TOGETHER:
            batches.append(windows[first:index])
            first = index
    return batches


def read_batch(pair: ModelPair, plan: ReadingPlan, batch: int) -> Arrays:
    """One batch through both models.

    Arrays: `item`, with `p_true`, `margin`, `right` [model item] and `usable`; `place` (index into `plan.sample`), with
    `seen`, `kl_tuned_to_base`, `kl_base_to_tuned`, `nll` [model place] and `relative` (|h_tuned - h_base| / |h_base| after the
    last block); `gain`: sum over sampled places of p_tuned - p_base [vocab].
    Law *padding*: a document's numbers do not depend on its batch, to rounding.
    """
    asked, items, places, n_item_rows = _asked(plan, batch)
    states = states_of(pair, asked.ids, asked.where)
    return _spoken(pair, plan, items, places, states, asked.target, n_item_rows)


class AskedPlaces(NamedTuple):
    """What is asked of a batch."""

    ids: Int[Tensor, "window seq"]
    where: Int[Tensor, "row 2"]
    """(window, place) of the tokens that are predicted: the pieces of the items, then the sampled tokens."""
    target: Int[ndarray, " row"]


def item_log_p(pair: ModelPair, plan: ReadingPlan, batch: int, side: Side) -> Float[ndarray, "row column"]:
    """What one model says at the pieces of the items of a batch: log probability of every id of the pool, nats. With that of
    the other model it makes the items' numbers (`read_items`), so that one model need not be asked twice."""
    asked, _, _, n_item_rows = _asked(plan, batch)
    states = _side_states(pair, asked.ids, asked.where[:n_item_rows], side)
    columns = torch.from_numpy(plan.pool.ids)
    found = np.zeros((n_item_rows, len(columns)), dtype=np.float32)
    chunk = rows_at_once(pair)
    for start in range(0, n_item_rows, chunk):
        logits = head_logits(pair, side, states[start : start + chunk])
        whole = logits.logsumexp(-1, keepdim=True)
        found[start : start + chunk] = (logits[:, columns.to(logits.device)] - whole).cpu().numpy()
    return found


def read_items(
    plan: ReadingPlan, batch: int, base: Float[ndarray, "row column"], tuned: Float[ndarray, "row column"]
) -> Arrays:
    """The items of a batch alone, from what both models say there (`item_log_p`); arrays as in `read_batch`, of no place."""
    return _items_read(plan, plan.items_of[batch], np.stack([base, tuned]))


def _asked(plan: ReadingPlan, batch: int) -> tuple[AskedPlaces, Int[ndarray, " item"], Int[ndarray, " place"], int]:
    """(what is asked of a batch, its items, its sampled places, how many rows are of items)."""
    windows, items = plan.batches[batch], plan.items_of[batch]
    row_of = {(int(d), int(s)): row for row, (d, s, _) in enumerate(windows)}
    step = plan.length
    at: list[tuple[int, int]] = []
    target: list[int] = []
    for item in items:
        word = plan.item_word[item]
        document, start = int(plan.table.document[word]), int(plan.table.start[word])
        window = start // step * step
        for offset, piece in enumerate(plan.table.forms[plan.table.form[word]]):
            at.append((row_of[document, window], start + offset - window))
            target.append(piece)
    n_item_rows = len(at)
    keys = plan.sample[:, 0] * _KEY + plan.sample[:, 1] // step * step
    own = np.isin(keys, windows[:, 0] * _KEY + windows[:, 1]) & (plan.sample[:, 1] % step > 0)
    places = np.flatnonzero(own)
    for document, token in plan.sample[places]:
        window = int(token) // step * step
        at.append((row_of[int(document), window], int(token) - window))
        target.append(int(plan.documents[document][token]))
    where = torch.tensor(at, dtype=torch.long).reshape(-1, 2)
    return AskedPlaces(_padded(plan, windows), where, np.array(target, dtype=np.int64)), items, places, n_item_rows


def _padded(plan: ReadingPlan, windows: Int[ndarray, "window 3"]) -> Int[Tensor, "window seq"]:
    """Beyond its end a window repeats its last token: nothing before it sees what follows."""
    longest = int((windows[:, 2] - windows[:, 1]).max())
    ids = np.empty((len(windows), longest), dtype=np.int64)
    for row, (document, start, end) in enumerate(windows):
        own = plan.documents[document][start:end]
        ids[row, : len(own)] = own
        ids[row, len(own) :] = own[-1]
    return torch.from_numpy(ids)


def states_of(
    pair: ModelPair, ids: Int[Tensor, "window seq"], where: Int[Tensor, "row 2"], sides: Sequence[Side] = SIDES
) -> list[Float[Tensor, "row d_model"]]:
    """The residual stream of each model of `sides` after its last block, where it predicts the tokens `where`; float32."""
    if tuple(sides) == SIDES:
        return list(on_both(pair, lambda side: _side_states(pair, ids, where, side)))
    return [_side_states(pair, ids, where, side) for side in sides]


def _side_states(
    pair: ModelPair, ids: Int[Tensor, "window seq"], where: Int[Tensor, "row 2"], side: Side
) -> Float[Tensor, "row d_model"]:
    last = pair.n_layers - 1
    with pair.using(side) as parts:
        stream = read_residuals(parts, ids, [last])[last]
        return stream[where[:, 0].to(stream.device), where[:, 1].to(stream.device) - 1].float()


def head_log_p(
    pair: ModelPair, states: list[Float[Tensor, "row d_model"]], target: Int[Tensor, " row"], sides: Sequence[Side] = SIDES
) -> Float[ndarray, "model row"]:
    """log p of each `target` under each model of `sides`, from the residual streams that predict them (`states_of`), nats."""
    said = np.zeros((len(sides), len(target)))
    chunk = rows_at_once(pair)
    for a in range(0, len(target), chunk):
        for model, side in enumerate(sides):
            logits = head_logits(pair, side, states[model][a : a + chunk])
            said[model, a : a + chunk] = token_log_probs(logits, target[a : a + chunk].to(logits.device)).cpu().numpy()
    return said


def _spoken(
    pair: ModelPair,
    plan: ReadingPlan,
    items: Int[ndarray, " batch_item"],
    places: Int[ndarray, " batch_place"],
    states: list[Float[Tensor, "row d_model"]],
    target: Int[ndarray, " row"],
    n_item_rows: int,
) -> Arrays:
    columns = torch.from_numpy(plan.pool.ids)
    wanted = torch.from_numpy(target)
    n_rows = len(target)
    log_p = np.zeros((2, n_item_rows, len(plan.pool.ids)), dtype=np.float32)
    said = np.zeros((2, n_rows - n_item_rows), dtype=np.float64)
    divergence = np.zeros((2, n_rows - n_item_rows))
    gain = torch.zeros(pair.vocab_size, dtype=torch.float64)
    chunk = rows_at_once(pair)
    cuts = sorted({*range(0, n_rows, chunk), n_item_rows, n_rows})
    for a, b in itertools.pairwise(cuts):
        logits = [head_logits(pair, "base", states[0][a:b]), head_logits(pair, "tuned", states[1][a:b])]
        logits[1] = logits[1].to(logits[0].device)
        whole = [one.logsumexp(-1, keepdim=True) for one in logits]
        picked = wanted[a:b, None].to(logits[0].device)
        for model in range(2):
            if a >= n_item_rows:
                own = logits[model].gather(1, picked) - whole[model]
                said[model, a - n_item_rows : b - n_item_rows] = own[:, 0].cpu().numpy()
            else:
                log_p[model, a:b] = (logits[model][:, columns.to(logits[0].device)] - whole[model]).cpu().numpy()
        if a >= n_item_rows:
            one, other = token_kl_tuned_to_base, token_kl_base_to_tuned
            for row, measure in enumerate((one, other)):
                divergence[row, a - n_item_rows : b - n_item_rows] = (
                    measure(tuned_logits=logits[1], base_logits=logits[0]).cpu().numpy()
                )
            gain += (logits[1].softmax(-1) - logits[0].softmax(-1)).sum(0).double().cpu()
    return {
        **_items_read(plan, items, log_p),
        "place": places,
        "seen": np.ones(len(places), dtype=bool),
        "kl_tuned_to_base": divergence[0],
        "kl_base_to_tuned": divergence[1],
        "nll": -said,
        "relative": _relative(states, n_item_rows),
        "gain": gain.numpy(),
    }


def _items_read(plan: ReadingPlan, items: Int[ndarray, " item"], log_p: Float[ndarray, "model row column"]) -> Arrays:
    scores, usable = cloze(plan.table, plan.pool, plan.table.form[plan.item_word[items]], log_p)
    return {"item": items, "p_true": scores.p_true, "margin": scores.margin, "right": scores.right, "usable": usable}


def _relative(states: list[Tensor], n_item_rows: int) -> Float[ndarray, " place"]:
    base, tuned = (own[n_item_rows:] for own in states)
    found: ndarray = ((tuned.to(base.device) - base).norm(dim=-1) / base.norm(dim=-1).clamp_min(_TINY)).cpu().numpy()
    return found


def join_batches(parts: Iterator[Arrays], n_items: int, n_places: int) -> Arrays:
    """The arrays of all batches as one, items and places in corpus order; an item that nobody read is not `usable`, a place
    not `seen`."""
    whole: Arrays = {}
    sizes = {"item": n_items, "place": n_places}
    columns = {
        "item": ("p_true", "margin", "right", "usable"),
        "place": ("seen", "kl_tuned_to_base", "kl_base_to_tuned", "nll", "relative"),
    }
    for part in parts:
        for axis, names in columns.items():
            for name in names if axis in part else ():
                own = part[name]
                if name not in whole:
                    whole[name] = np.zeros((*own.shape[:-1], sizes[axis]), dtype=own.dtype)
                whole[name][..., part[axis]] = own
        if "gain" in part:
            whole["gain"] = whole["gain"] + part["gain"] if "gain" in whole else part["gain"]
    return whole
