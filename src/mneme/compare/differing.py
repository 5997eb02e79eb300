"""The difference of two audits of one base, area by area: paired by item where both read the same items.

Ours: of own words the mean of (change of the second run - change of the first) over the items that both read, weighted by the
larger of what either run knows, clustered by document and word as in `predict/knowledge.py`; of paired answers the same over
prompts. Areas without items in common are compared by their two intervals, as if the runs were independent (MOVER, Zou &
Donner 2008).
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.audit.evidence import AuditEvidence
from mneme.predict.knowledge import weighted_change
from mneme.predict.paired import probe_change
from mneme.predict.verdicts import TAIL, Measure, two_sided
from mneme.results import Estimate
from mneme.stats import student_t_quantile


def same_items(first: AuditEvidence, second: AuditEvidence) -> bool:
    """Both read the same words of the same documents, for the same areas."""
    one, two = first.words, second.words
    return (
        first.types == second.types
        and one.own.shape == two.own.shape
        and bool((one.own == two.own).all())
        and np.array_equal(one.document, two.document)
        and np.array_equal(one.type, two.type)
    )


def word_difference(first: AuditEvidence, second: AuditEvidence, index: int) -> Measure | None:
    """The area number `index`, by own words; None where too few items are usable in both."""
    one, two = first.words, second.words
    used: Bool[ndarray, " item"] = one.own[index] & one.usable & two.usable
    weight: Float[ndarray, " item"] = np.maximum(one.weight("known"), two.weight("known"))[used]
    if not used.any() or weight.sum() <= 0:
        return None
    return weighted_change((two.change() - one.change())[used], weight, one.document[used], one.type[used])


def answer_difference(first: AuditEvidence, second: AuditEvidence, index: int, *, continued: bool = False) -> Measure | None:
    """The same by paired answers, or by `continued` texts; None where the runs did not read the same, or too few."""
    both = (first.continued, second.continued) if continued else (first.answered, second.answered)
    if any(index not in own for own in both):
        return None
    one, two = (own[index] for own in both)
    if one.shape != two.shape:
        return None
    return probe_change(np.stack([one[1] - one[0], two[1] - two[0]]))


def independent_difference(first: Estimate, second: Estimate) -> Measure:
    """`second` minus `first` from their intervals alone; p from the half of the interval that points to 0."""
    value = second.value - first.value
    low = value - math.hypot(second.value - second.low, first.high - first.value)
    high = value + math.hypot(second.high - second.value, first.value - first.low)
    half = (value - low) if value > 0 else (high - value)
    error = half / student_t_quantile(1 - TAIL, math.inf)
    n = min(first.n, second.n)
    return Measure(
        estimate=Estimate(value=value, low=low, high=high, unit=first.unit, n=n),
        error=error,
        degrees=float(max(n - 1, 1)),
        p_value=two_sided(value, error, float(max(n - 1, 1))),
    )
