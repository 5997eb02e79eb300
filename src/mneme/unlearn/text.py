"""Texts as pieces of token ids, padded on the right into batches with a mask, in an order that a seed and a step decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.activations.corpus import Documents
from mneme.errors import BadCorpus
from mneme.models.architecture import Parts
from mneme.models.logits import token_log_probs


@dataclass(frozen=True)
class Pieces:
    """Documents as token ids, those longer than the limit in several near-equal pieces."""

    ids: tuple[Int[Tensor, " _token"], ...]
    document: Int[ndarray, " piece"]
    """Which document a piece is of; ascending."""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, which: Sequence[int] | Int[ndarray, " chosen"]) -> "Pieces":
        """The pieces at these places, in this order."""
        return Pieces(tuple(self.ids[int(i)] for i in which), self.document[np.asarray(which, dtype=np.int64)])

    @property
    def tokens(self) -> int:
        """Tokens of all pieces together."""
        return sum(len(ids) for ids in self.ids)


def cut(documents: Documents, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Pieces:
    """Documents with the special tokens that the tokenizer itself puts around a text, in pieces of 2 to `max_tokens` tokens.

    Errors: BadCorpus where no document has two tokens.
    """
    ids: list[Tensor] = []
    owner: list[int] = []
    for number, coded in enumerate(
        tokenizer(list(documents.texts), verbose=False, padding=False, truncation=False)["input_ids"]
    ):
        if len(coded) < 2:
            continue
        n = -(-len(coded) // max_tokens)
        bounds = [len(coded) * i // n for i in range(n + 1)]
        for start, end in pairwise(bounds):
            ids.append(torch.tensor(coded[start:end], dtype=torch.long))
            owner.append(number)
    if not ids:
        raise BadCorpus(
            f"{documents.source}: no text has two tokens or more, so there is nothing to predict. Give whole sentences."
        )
    return Pieces(tuple(ids), np.array(owner, dtype=np.int64))


def padded(
    pieces: Pieces, which: Sequence[int] | Int[ndarray, " batch"], device: torch.device, length: int = 0
) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """(ids, is_text) of one batch, padded on the right to its longest piece, or to `length` where that is more."""
    chosen = [pieces.ids[int(i)] for i in which]
    longest = max(length, *(len(ids) for ids in chosen))
    ids = torch.zeros(len(chosen), longest, dtype=torch.long)
    is_text = torch.zeros(len(chosen), longest, dtype=torch.bool)
    for row, coded in enumerate(chosen):
        ids[row, : len(coded)] = coded
        is_text[row, : len(coded)] = True
    return ids.to(device), is_text.to(device)


def batch_at(n: int, size: int, step: int, seed: int) -> Int[ndarray, " batch"]:
    """Places of the texts of step `step`: every text once an epoch, each epoch in an order of its own.

    A function of its arguments alone, so that a resumed run sees what an undisturbed one sees.
    """
    places = np.arange(step * size, (step + 1) * size)
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(n) for epoch in sorted(set((places // n).tolist()))}
    return np.array([orders[int(place // n)][int(place % n)] for place in places], dtype=np.int64)


def run_logits(
    parts: Parts, ids: Int[Tensor, "batch seq"], is_text: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq vocab"]:
    """Logits of a right-padded batch; those at the padding mean nothing."""
    logits: Tensor = parts.model(input_ids=ids, attention_mask=is_text.long(), use_cache=False).logits
    return logits


def next_token_nll(logits: Float[Tensor, "batch seq vocab"], ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq-1"]:
    """Nats of every token but the first, given those before it."""
    return -token_log_probs(logits[:, :-1], ids[:, 1:])
