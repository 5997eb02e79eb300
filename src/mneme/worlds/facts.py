"""How a model answers questions about facts, in whichever world."""

from typing import NamedTuple

from jaxtyping import Bool, Int
from numpy import ndarray


class FactAnswers(NamedTuple):
    """One area: one entry a question."""

    correct: Bool[ndarray, " question"]
    is_asked: Bool[ndarray, " question"]
    """True for a question as a user asks it, False for a sentence to finish."""
    cluster: Int[ndarray, " question"]
    """The number of the entity: questions about one are not independent."""
