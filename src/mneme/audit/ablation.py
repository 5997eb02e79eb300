"""Step 6 of the audit: the causal check of the chosen latents, each by itself."""

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.audit.dictionary import LayerCodes, change_directions
from mneme.audit.latents import Firings
from mneme.diff.causal import check_latent
from mneme.errors import EmptyMask
from mneme.models.pair import ModelPair
from mneme.runs import Arrays

ROWS_A_LATENT = 8
"""Rows on which a latent is ablated, 7 passes of each: they hold the 8 passages from which the paired test of `diff/causal.py`
holds. A round number that was never varied."""


def causal_check(
    pair: ModelPair,
    ids: Int[Tensor, "row seq"],
    passage: Int[ndarray, "row seq"],
    codes: LayerCodes,
    firings: Firings,
    latents: list[int],
    index: int,
    *,
    seed: int,
) -> Arrays:
    """Ablate number `index` of `latents` on the 8 held-out rows where it is strongest. `causal`: a line of latent, share, low,
    high, n, p; no line where the two models say the same on its rows: there is nothing to take away."""
    directions = change_directions(codes.dictionary)
    latent = latents[index]
    rows, code = _strongest_rows(firings, latent, ids.shape[1])
    others = directions[[other for other in latents if other != latent]] if len(latents) > 1 else directions[:0]
    try:
        result = check_latent(
            pair,
            ids[rows],
            passage[rows],
            codes.layer,
            torch.from_numpy(code).float(),
            directions[latent],
            others,
            seed=seed,
        )
    except EmptyMask:
        return {"causal": np.zeros((0, 6))}
    share = result.share
    return {"causal": np.array([[latent, share.value, share.low, share.high, share.n, result.p_value]])}


def _strongest_rows(firings: Firings, latent: int, seq: int) -> tuple[Int[ndarray, " row"], Float[ndarray, "row seq"]]:
    """The rows where the latent's squared code is largest (at most 8, ascending), and its code there."""
    own = firings.latent == latent
    energy = np.bincount(firings.row[own], weights=firings.value[own] ** 2)
    best = np.argsort(-energy, kind="stable")[:ROWS_A_LATENT]
    rows = np.sort(best[energy[best] > 0])
    code = np.zeros((len(rows), seq))
    inside = own & np.isin(firings.row, rows)
    code[np.searchsorted(rows, firings.row[inside]), firings.place[inside]] = firings.value[inside]
    return rows, code
