"""Which measured changes are material, which are immaterial, and which were measured too coarsely to be called.

docs/decisions/0003 has the rule; 0010 says what is measured on the worlds.
"""

from typing import Literal

from mneme.stats import Rate, normal_cdf

Verdict = Literal["material", "immaterial", "grey"]


def verdict_of(size: Rate, material: float) -> Verdict:
    """Material: at least `material`, and the near end of the interval beyond half of it. Immaterial: the interval lies within
    ± `material`. Grey otherwise."""
    low, value, high = size.estimate.low, size.estimate.value, size.estimate.high
    near = min(abs(low), abs(high)) if low * high > 0 else 0.0
    if abs(value) >= material and near > material / 2:
        return "material"
    return "immaterial" if max(abs(low), abs(high)) < material else "grey"


def beyond(size: Rate, material: float) -> float:
    """Probability that the change is beyond ± `material`, by a normal around the estimate."""
    if size.standard_error == 0:
        return float(abs(size.estimate.value) >= material)
    value, error = size.estimate.value, size.standard_error
    return normal_cdf((value - material) / error) + normal_cdf((-value - material) / error)
