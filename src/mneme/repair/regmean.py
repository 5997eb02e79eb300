"""The change that keeps the tuned model on retained text and the base on target text, solved in closed form.

Per linear map, minimise (1 - s) |(D - dW) X_retain|^2 + s |D X_target|^2 over the new change D. With H_r and H_t the mean
outer products of the inputs, D = (1 - s) dW H_r ((1 - s) H_r + s H_t)^-1. This is the regression of RegMean (Jin et al.
2023, arXiv 2212.09849) with the two models merged on two different texts; that use, as a repair, is ours. D = dW M has the
rank of dW at most, so the repaired change of a LoRA fits into an adapter of the same rank exactly.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.errors import SingularHessian
from mneme.repair.strength import check_strength


def regmean(
    delta: Float[Tensor, "d_out d_in"],
    target_gram: Float[Tensor, "d_in d_in"],
    retain_gram: Float[Tensor, "d_in d_in"],
    strength: float,
    *,
    damping: float = 0.003,
) -> Float[Tensor, "d_out d_in"]:
    """The new change. Strength 0 is `delta` itself, 1 is zero (the base).

    Grams: mean of x x^T at the tokens that count, raw units. `damping` adds that share of each Gram's mean diagonal to its
    diagonal, so that directions which neither text uses shrink by (1 - strength). One Cholesky of d_in x d_in in float32
    (float64 up to 1,024 inputs): O(d_in^3 / 3 + 2 d_out d_in^2). Raises SingularHessian where the sum cannot be factored.
    """
    if check_strength(strength) == 0.0:
        return delta
    if strength == 1.0:
        return torch.zeros_like(delta)
    precise = torch.float64 if delta.shape[1] <= 1024 else torch.float32
    keep = _damped(retain_gram.to(delta.device, precise), damping).mul_(1.0 - strength)
    wanted = delta.to(precise) @ keep
    both = keep.add_(_damped(target_gram.to(delta.device, precise), damping), alpha=strength)
    factor, failed = torch.linalg.cholesky_ex(both)
    if int(failed):
        raise SingularHessian(
            f"The inputs of this layer on target and retained text span too few of its {delta.shape[1]} directions: the sum "
            "of their Grams has no Cholesky factor. Give more text, or a damping above 0."
        )
    return torch.cholesky_solve(wanted.T, factor).T.to(delta.dtype)


def _damped(gram: Tensor, damping: float) -> Tensor:
    """A copy with `damping` times the mean of its diagonal added to the diagonal."""
    damped = gram.clone()
    damped.diagonal().add_(damping * gram.diagonal().mean())
    return damped
