"""Second-order selection on the change: drop what moves the target most for what it costs, compensate with the rest.

Optimal brain surgeon (Hassibi & Stork 1993) as in SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774), the family of Safe
Delta (Lu et al., ICML 2025) and IRR (Wu et al. 2025, arXiv 2412.11041). With H_r, H_t the mean outer products of the inputs
on retained and target text, the loss kept low is |(D - dW) X_r|^2; dropping entry (i, j) costs dW_ij^2 / [H_r^-1]_jj of it and
takes 2 dW_ij (dW H_t)_ij - dW_ij^2 [H_t]_jj off |D X_t|^2. Entries go by the ratio, largest first; each dropped entry's
effect on retained text is passed on to the kept entries to its right (Cholesky factor of H_r^-1), as in all three
(tests/parity). The score is ours: SparseGPT takes the smallest dW_ij^2 / U_jj^2, the cost once the columns on the left are
done, block by block; Safe Delta holds the safety text, lets utility follow, and compensates four columns at a time; IRR takes
entries whose sign is not the safety vector's, by Fisher information. SparseGPT and IRR also drop all of an input that is
always zero.
"""

import struct

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mneme.errors import SingularHessian
from mneme.repair.strength import check_strength

_BLOCK = 128


def obs(
    delta: Float[Tensor, "d_out d_in"],
    target_gram: Float[Tensor, "d_in d_in"],
    retain_gram: Float[Tensor, "d_in d_in"],
    strength: float,
    *,
    damping: float = 0.01,
    overwrite: bool = False,
) -> Float[Tensor, "d_out d_in"]:
    """The new change with round(strength * size) entries dropped. 0 keeps all and is `delta` itself, 1 is zero (the base).

    Grams: mean of x x^T at the tokens that count, raw units. `damping`: share of the mean diagonal of H_r added to its
    diagonal (percdamp of SparseGPT). `overwrite` lets it destroy
    `retain_gram`. Cost: one inverse and two Cholesky factors, O(d_in^3 + d_out d_in^2), float32; peak
    memory beside the arguments: two d_in x d_in and three d_out x d_in matrices. Raises SingularHessian where H_r cannot be
    factored.
    """
    if check_strength(strength) == 0.0:
        return delta
    if strength == 1.0:
        return torch.zeros_like(delta)
    factor = inverse_factor(retain_gram, damping, overwrite=overwrite)
    cost = factor.square().sum(0)  # diag of H^-1 = U^T U
    dropped = _dropped(delta, target_gram, cost, strength)
    return _compensated(delta, dropped, factor)


def inverse_factor(gram: Float[Tensor, "d_in d_in"], damping: float, *, overwrite: bool = False) -> Float[Tensor, "d_in d_in"]:
    """U upper triangular with (gram + damping * mean diagonal)^-1 = U^T U, float32. Raises SingularHessian.

    `overwrite`: work in the memory of `gram`, which then holds the factor.
    """
    work = gram if overwrite and gram.dtype == torch.float32 else gram.float().clone()
    work.diagonal().add_(damping * work.diagonal().mean())
    info = torch.zeros((), dtype=torch.int32, device=work.device)
    torch.linalg.cholesky_ex(work, out=(work, info))
    if not int(info):
        torch.cholesky_inverse(work, out=work)
        torch.linalg.cholesky_ex(work, upper=True, out=(work, info))
    if int(info) or not bool(torch.isfinite(work.diagonal()).all()):
        raise SingularHessian(
            f"The inputs of this layer on the retained text span too few of its {gram.shape[0]} directions: its Hessian is "
            "singular (no Cholesky factor). Give more retained text, or a damping above 0."
        )
    return work


def _dropped(
    delta: Float[Tensor, "d_out d_in"],
    target_gram: Float[Tensor, "d_in d_in"],
    inverse: Float[Tensor, " d_in"],
    strength: float,
) -> Bool[Tensor, "d_out d_in"]:
    """Which entries go. `inverse`: diagonal of H_r^-1. The common factor dW_ij^2 of gain and cost is divided out."""
    ratio = delta.float() @ target_gram.float()
    ratio.mul_(2).div_(torch.where(delta == 0, 1.0, delta)).sub_(target_gram.diagonal()).mul_(inverse.to(ratio))
    return largest(ratio, round(strength * delta.numel()))


def largest(values: Float[Tensor, "*shape"], count: int) -> Bool[Tensor, "*shape"]:
    """Mask of the `count` largest float32 entries, of equal ones the first. By bisection over all values of a float,
    because a selection would copy all entries with their places (16 bytes each)."""
    low, high = -0x7F800001, 0x7F800000  # floats by rank: just below minus infinity, and infinity
    while high - low > 1:
        middle = (low + high) // 2
        if int((values >= _float_of(middle)).sum()) >= count:
            low = middle
        else:
            high = middle
    chosen = values >= _float_of(high)
    missing = count - int(chosen.sum())
    if missing:
        chosen.view(-1)[(values == _float_of(low)).flatten().nonzero().squeeze(1)[:missing]] = True
    return chosen


def _float_of(rank: int) -> float:
    """The float32 of a rank: 0 is 0.0, 1 the smallest positive one, -1 its negative."""
    return float(struct.unpack("<f", struct.pack("<I", rank if rank >= 0 else 0x80000000 - rank))[0])


def _compensated(
    delta: Float[Tensor, "d_out d_in"], dropped: Bool[Tensor, "d_out d_in"], factor: Float[Tensor, "d_in d_in"]
) -> Float[Tensor, "d_out d_in"]:
    """Columns from left to right, 128 at a time: what a dropped entry did goes to the columns after it."""
    kept = delta.float().clone()
    n_columns = kept.shape[1]
    for start in range(0, n_columns, _BLOCK):
        stop = min(start + _BLOCK, n_columns)
        errors = torch.zeros_like(kept[:, start:stop])
        for column in range(start, stop):
            error = torch.where(dropped[:, column], kept[:, column] / factor[column, column], 0.0)
            kept[:, column:stop] -= error[:, None] * factor[column, column:stop]
            errors[:, column - start] = error
        kept[:, stop:] -= errors @ factor[start:stop, stop:]
    return kept.masked_fill_(dropped, 0.0).to(delta.dtype)
