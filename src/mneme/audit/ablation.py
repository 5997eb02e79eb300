"""Step 6 of the audit: the causal check of the chosen latents, as one stage."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.activations.harvest import ALONE
from mneme.audit.dictionary import LayerCodes, change_directions
from mneme.audit.latents import Firings
from mneme.diff.causal import check_latent
from mneme.errors import EmptyMask
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks
from mneme.runs import Arrays

ROWS_A_LATENT = 8
"""Rows on which a latent is ablated, 7 passes of each: they hold the 8 passages from which the paired test of `diff/causal.py`
holds. A round number that was never varied."""


def causal_checks(
    pair: ModelPair,
    ids: Int[Tensor, "row seq"],
    passage: Int[ndarray, "row seq"],
    codes: LayerCodes,
    firings: Firings,
    latents: list[int],
    *,
    seed: int,
    advance: Callable[[int], None],
    ranks: Ranks = ALONE,
) -> Arrays:
    """Ablate each of `latents` on the 8 held-out rows where it is strongest, shared out among `ranks`, which must all call
    this. Arrays: latent, share, low, high, n, p; latents on whose rows the two models say the same have none: there is nothing
    to take away."""
    directions = change_directions(codes.dictionary)
    table = torch.zeros(len(latents), 7, dtype=torch.float64)  # 7: the columns of `line`
    for index in ranks.own(range(len(latents))):
        latent = latents[index]
        rows, code = _strongest_rows(firings, latent, ids.shape[1])
        others = directions[[other for other in latents if other != latent]] if len(latents) > 1 else directions[:0]
        advance(1)
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
            continue
        share = result.share
        line = (latent, share.value, share.low, share.high, share.n, result.p_value, 1.0)
        table[index] = torch.tensor(line, dtype=torch.float64)
    whole = ranks.total(table).numpy()
    return {"causal": whole[whole[:, -1] > 0, :-1]}


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
