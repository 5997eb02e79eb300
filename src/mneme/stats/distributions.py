"""Distribution functions that the intervals need: Student's t and the normal, from scipy.special.

`scipy.stats` has the same functions and takes a second longer to import.
"""

import numpy as np
from scipy import special


def student_t_quantile(probability: float, degrees: float | int) -> float:
    """Quantile of Student's t with `degrees` degrees of freedom; `probability` in (0, 1)."""
    return float(special.stdtrit(degrees, probability))


def student_t_cdf(value: float, degrees: float | int) -> float:
    """P(T <= value) for Student's t with `degrees` degrees of freedom."""
    return float(special.stdtr(degrees, value))


def student_t_two_sided(statistic: float, degrees: float | int) -> float:
    """P(|T| >= |statistic|), exact in the tail: 1e-12 does not come out as 0."""
    return float(min(1.0, 2.0 * special.stdtr(degrees, -np.abs(statistic))))


def normal_cdf(value: float) -> float:
    """P(Z <= value) of the standard normal."""
    return float(special.ndtr(value))
