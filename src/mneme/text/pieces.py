"""Documents as pieces of token ids, all of which count: what unlearning reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus
from mneme.text.documents import Documents
from mneme.text.encoded import Encoded, whole_text


@dataclass(frozen=True)
class Pieces:
    """Documents, those longer than the limit in several near-equal pieces."""

    texts: tuple[Encoded, ...]
    document: Int[ndarray, " piece"]
    """Which document a piece is of; ascending."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, which: Sequence[int] | Int[ndarray, " chosen"]) -> "Pieces":
        """The pieces at these places, in this order."""
        return Pieces(tuple(self.texts[int(i)] for i in which), self.document[np.asarray(which, dtype=np.int64)])

    @property
    def tokens(self) -> int:
        """Tokens of all pieces together."""
        return sum(len(text.ids) for text in self.texts)


def cut_pieces(documents: Documents, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Pieces:
    """Documents with the special tokens that the tokenizer itself puts around a text, in pieces of 2 to `max_tokens` tokens.

    Errors: BadCorpus where no document has two tokens.
    """
    texts: list[Encoded] = []
    owner: list[int] = []
    for number, coded in enumerate(
        tokenizer(list(documents.texts), verbose=False, padding=False, truncation=False)["input_ids"]
    ):
        if len(coded) < 2:
            continue
        n = -(-len(coded) // max_tokens)
        bounds = [len(coded) * i // n for i in range(n + 1)]
        for start, end in pairwise(bounds):
            texts.append(whole_text(coded[start:end]))
            owner.append(number)
    if not texts:
        raise BadCorpus(
            f"{documents.source}: no text has two tokens or more, so there is nothing to predict. Give whole sentences."
        )
    return Pieces(tuple(texts), np.array(owner, dtype=np.int64))
