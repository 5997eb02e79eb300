"""Control: the whole change, made smaller. s dW, the straight line between tuned and base; every method has to beat it."""

from jaxtyping import Float
from torch import Tensor

from mneme.repair.strength import check_strength


def scale(delta: Float[Tensor, "*shape"], strength: float) -> Float[Tensor, "*shape"]:
    """(1 - strength) * delta. Strength 0 is the tuned model, 1 the base. Cost: one product.

    Weight interpolation as in WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903), one factor for all layers.
    """
    return delta * (1.0 - check_strength(strength))
