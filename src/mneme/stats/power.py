"""The smallest effect that would have been found with a power of 80 %, by simulation from the sample at hand.

A formula for normal data says 704 points where nothing above 100 can be, and .80 where the power is .42. Here the answers are
drawn again under every trial effect, from the sizes, the clustering and the base rate of the sample, and judged by the very
interval that judged the sample; the effect is clipped to what is possible. None = not even the largest possible effect would have
been found. Trial effects share their random numbers, so that power rises with the effect.
"""

from jaxtyping import Float, Int
from numpy import ndarray

POWER = 0.8
DRAWS = 400
"""The power at the effect that is found has a standard error of 2 points."""
_STEPS = 9


def detectable_change(
    base_hits: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_hits: Float[ndarray, "*seed cluster"],
    tuned_counts: Float[ndarray, "*seed cluster"],
    *,
    paired: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> float | None:
    """Smallest true change of a rate that `paired_change` at `level` would have shown, as it was measured here.

    The change points away from the nearer end of the scale, where it is harder to see. Not `paired`: against a second model on
    other questions of the same sizes. None where no change up to that end would do, or where `paired_change` says TooFew.
    """
    raise NotImplementedError


def detectable_mean_change(
    base_sums: Float[ndarray, " cluster"],
    base_counts: Float[ndarray, " cluster"],
    tuned_sums: Float[ndarray, " cluster"],
    tuned_counts: Float[ndarray, " cluster"],
    *,
    bounds: tuple[float, float],
    level: float = 0.95,
    seed: int = 0,
) -> float | None:
    """`detectable_change` for mean scores on a scale (`paired_mean_change`)."""
    raise NotImplementedError


def detectable_mean(
    values: Float[ndarray, " item"],
    first: Int[ndarray, " item"],
    second: Int[ndarray, " item"],
    *,
    bound: float,
    level: float = 0.95,
    seed: int = 0,
) -> float | None:
    """Smallest true mean, in size, that `two_way` with this `bound` would have told from 0, given the spread at hand.

    Losses are added to what a pair without an effect shows here (the smaller of the two rates counts as noise both ways).
    """
    raise NotImplementedError


def detectable_shift(
    numerators: Float[ndarray, " cluster"],
    denominators: Float[ndarray, " cluster"],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> float | None:
    """Smallest true ratio, in size, that `clustered_ratio` would have told from 0, given the spread at hand."""
    raise NotImplementedError
