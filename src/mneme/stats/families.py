"""Families of tests: Holm, Benjamini-Hochberg; and tests of paired answers: McNemar, agreement."""

import math

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.errors import EmptyMask


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact McNemar p: of `lost + gained` discordant pairs, how unusual is this split under a fair coin
    (McNemar 1947; exact binomial). 1.0 when there is no discordant pair."""
    n, k = lost + gained, min(lost, gained)
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)
    tail = sum(math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1))
    return min(1.0, 2.0 * tail)


def holm(p_values: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """Holm (1979) adjusted p-values, in the order given: family-wise error is controlled under any dependence."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate((n - np.arange(n)) * p_values[order])
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def benjamini_hochberg(p_values: Float[ndarray, " test"]) -> Float[ndarray, " test"]:
    """Benjamini & Hochberg (1995) q-values, in the order given: reject where q <= rate to hold the false-discovery rate."""
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.minimum.accumulate((p_values[order] * n / (np.arange(n) + 1))[::-1])[::-1]
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def balanced_accuracy(said: Bool[ndarray, " case"], true: Bool[ndarray, " case"]) -> float:
    """Mean of the hit rate on true cases and the rejection rate on false ones.

    Errors: EmptyMask when either kind of case is missing.
    """
    if not true.any() or true.all():
        raise EmptyMask("Balanced accuracy needs both true and false cases; only one kind was given.")
    return float((said[true].mean() + (~said[~true]).mean()) / 2)
