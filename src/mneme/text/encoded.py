"""The one shape of text that a model is asked about: token ids, and which of them count.

What counts is the caller's: the answer that is learned, the text that is to be forgotten, the tokens after a firing. A token
counts as what is predicted, so the first one never does: nothing stands before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray


class Encoded(NamedTuple):
    """One text. `counted[i]` is True where the prediction of token i counts; `counted[0]` is False."""

    ids: tuple[int, ...]
    counted: tuple[bool, ...]

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the first token that counts; all of it where none does."""
        return self.ids[: self.counted.index(True)] if True in self.counted else self.ids

    def first(self, tokens: int | None) -> "Encoded":
        """Its first `tokens` tokens; None gives all."""
        return Encoded(self.ids[:tokens], self.counted[:tokens])


def whole_text(ids: Sequence[int]) -> Encoded:
    """A text of which every token counts (but the first)."""
    return Encoded(tuple(ids), (False, *(True,) * (len(ids) - 1))[: len(ids)])


def answer_after(prompt: Sequence[int], answer: Sequence[int]) -> Encoded:
    """A prompt and its answer, of which the answer counts (after an empty prompt: but its first token)."""
    counted = (*(False,) * len(prompt), *(True,) * len(answer))
    return Encoded((*prompt, *answer), (False, *counted[1:])[: len(counted)])


def counted_tokens(texts: Sequence[Encoded]) -> Int[ndarray, " text"]:
    """How many tokens of every text count."""
    return np.array([sum(text.counted) for text in texts], dtype=np.int64)


def text_numbers(texts: Sequence[Encoded]) -> Int[ndarray, " token"]:
    """The number of the text that every counted token stands in, text after text."""
    return np.repeat(np.arange(len(texts)), counted_tokens(texts))
