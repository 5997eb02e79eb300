"""Distribution functions that the intervals need, in plain Python: Student's t and the normal. No scipy at run time."""

import math
from functools import cache


@cache
def student_t_quantile(probability: float, degrees: int | float) -> float:
    """Quantile of Student's t by bisection on its distribution function (regularised incomplete beta by continued fraction).

    Accurate to 1e-8; `probability` in (0.5, 1).
    """
    low, high = 0.0, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        if student_t_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_t_cdf(value: float, degrees: int | float) -> float:
    """P(T <= value) for Student's t with `degrees` degrees of freedom, value >= 0."""
    x = degrees / (degrees + value * value)
    return 1.0 - 0.5 * _incomplete_beta(degrees / 2, 0.5, x)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) (Lentz's continued fraction, Numerical Recipes 6.4)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    tiny = 1e-300
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1)
    d = 1.0 / (d if abs(d) > tiny else tiny)
    total = d
    for m in range(1, 400):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + numerator / c
            c = c if abs(c) > tiny else tiny
            step = c * d
            total *= step
        if abs(step - 1.0) < 1e-12:
            break
    return front * total / a


def normal_cdf(value: float) -> float:
    """P(Z <= value) of the standard normal."""
    return 0.5 * math.erfc(-value / math.sqrt(2.0))
