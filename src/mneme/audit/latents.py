"""Steps 5 to 8 of the audit: which latents matter, judged each against its own null, then ablated and described.

Neither decoder norm nor change energy alone ranks them: on a real unlearning pair the latents with most change energy were
structure tokens that drift everywhere. A latent is judged by what happens to the known tokens that follow where it fires
(up to 8 tokens on, same passage), minus the drift common to all text, in standard errors over passages.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.audit.dictionary import LayerCodes
from mneme.predict.effects import TokenTable
from mneme.results import Effect, Estimate
from mneme.stats import benjamini_hochberg, normal_cdf, ratio_of_sums

WINDOW = 8
"""Tokens after a firing in which its consequence is looked for."""
_MIN_PASSAGES = 5
_BLOCK_ROWS = 1024
_PER_EFFECT = 4
_OVERALL = 12


class Firings(NamedTuple):
    """Every non-zero code of a layer with its passage and what happened to the known tokens after it."""

    latent: Int[ndarray, " code"]
    value: Float[ndarray, " code"]
    row: Int[ndarray, " code"]
    place: Int[ndarray, " code"]
    passage: Int[ndarray, " code"]
    change: Float[ndarray, " code"]
    """Sum of p_tuned - p_base over known tokens within the window."""
    known: Float[ndarray, " code"]
    """Number of known tokens within the window."""


class LatentTable(NamedTuple):
    """One row for every latent of a layer."""

    passages: Int[ndarray, " latent"]
    """In how many held-out passages it fires."""
    mass: Float[ndarray, " latent"]
    """Change in probability beyond the common drift, summed over the known tokens after its firings."""
    z: Float[ndarray, " latent"]
    """`mass` over its standard error (clustered by passage)."""
    q_value: Float[ndarray, " latent"]
    """Benjamini-Hochberg over all latents that fire in at least 5 passages; 1 for the others."""


def firings_of(codes: LayerCodes, table: TokenTable, passage: Int[ndarray, "row seq"]) -> Firings:
    """Join codes with the table of predicted tokens (row-wise, predictions 1..seq-1 of every row)."""
    n_rows, seq = passage.shape
    row, place = codes.token // seq, codes.token % seq
    mask = table.known().reshape(n_rows, seq - 1)
    logp = [column.reshape(n_rows, seq - 1) for column in (table.logp_base, table.logp_tuned)]
    change, known = np.empty(len(row)), np.empty(len(row))
    for first in range(0, n_rows, _BLOCK_ROWS):
        part = slice(first, first + _BLOCK_ROWS)
        codes_here = slice(*np.searchsorted(row, [first, first + _BLOCK_ROWS]))
        at, start = row[codes_here] - first, place[codes_here]
        stop = np.minimum(start + WINDOW, _last_place(passage[part])[at, start])
        base, tuned = (np.exp(column[part].astype(np.float64)) for column in logp)
        for values, out in ((np.where(mask[part], tuned - base, 0.0), change), (mask[part].astype(np.float64), known)):
            total = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
            out[codes_here] = total[at, stop] - total[at, start]
    return Firings(codes.latent, codes.value.astype(np.float64), row, place, passage[row, place], change, known)


def _last_place(passage: Int[ndarray, "row seq"]) -> Int[ndarray, "row seq"]:
    """Last place in the row that belongs to the same passage as this one."""
    n_rows, seq = passage.shape
    last = np.empty((n_rows, seq), dtype=np.int64)
    last[:, -1] = seq - 1
    for place in range(seq - 2, -1, -1):
        same = passage[:, place] == passage[:, place + 1]
        last[:, place] = np.where(same, last[:, place + 1], place)
    return last


def judge_latents(firings: Firings, n_latents: int) -> LatentTable:
    """Every latent against its own null: the mean change after any firing of any latent (the common drift)."""
    weight = firings.known.sum()
    drift = float(np.median(_means_by_latent(firings, n_latents))) if weight > 0 else 0.0
    excess = firings.change - drift * firings.known
    key = firings.latent * (int(firings.passage.max(initial=0)) + 1) + firings.passage
    names, index = np.unique(key, return_inverse=True)
    owner = names // (int(firings.passage.max(initial=0)) + 1)
    sums = np.bincount(index, weights=excess, minlength=len(names))
    passages = np.bincount(owner, minlength=n_latents)
    mass = np.bincount(owner, weights=sums, minlength=n_latents)
    square = np.bincount(owner, weights=sums**2, minlength=n_latents)
    variance = np.maximum(square - mass**2 / np.maximum(passages, 1), 0.0)
    spread = np.sqrt(variance * passages / np.maximum(passages - 1, 1))
    tested = (passages >= _MIN_PASSAGES) & (spread > 0)
    z = np.where(tested, mass / np.where(spread > 0, spread, 1.0), 0.0)
    q_value = np.ones(n_latents)
    if tested.any():
        q_value[tested] = benjamini_hochberg(np.array([2 * normal_cdf(-abs(value)) for value in z[tested]]))
    return LatentTable(passages, mass, z, q_value)


def _means_by_latent(firings: Firings, n_latents: int) -> Float[ndarray, " fired"]:
    known = np.bincount(firings.latent, weights=firings.known, minlength=n_latents)
    change = np.bincount(firings.latent, weights=firings.change, minlength=n_latents)
    used = known > 0
    return change[used] / known[used] if used.any() else np.zeros(1)


def energy_share(firings: Firings, member: Bool[ndarray, " passage"], n_latents: int) -> Float[ndarray, " latent"]:
    """Share of each latent's squared code that lies in the member passages; 0 for silent latents."""
    energy = firings.value**2
    inside = np.bincount(firings.latent, weights=energy * member[firings.passage], minlength=n_latents)
    total = np.bincount(firings.latent, weights=energy, minlength=n_latents)
    return inside / np.maximum(total, 1e-30)


def evidence_for(effect: Effect, firings: Firings, judged: LatentTable, member: Bool[ndarray, " passage"]) -> list[int]:
    """Latents behind an effect, strongest first: those that prefer its text (share of energy there at least 3 times the
    share of all firings there, or above 1/2) and after whose firings there known tokens changed in the effect's direction;
    ranked by that change times the preference."""
    n_latents = len(judged.mass)
    share = energy_share(firings, member, n_latents)
    usual = float((firings.value**2 * member[firings.passage]).sum() / max((firings.value**2).sum(), 1e-30))
    inside = np.bincount(firings.latent, weights=firings.change * member[firings.passage], minlength=n_latents)
    toward = inside * (1.0 if effect.magnitude.value > 0 else -1.0)
    preferring = (share >= min(0.5, 3 * usual)) & (judged.passages >= _MIN_PASSAGES) & (toward > 0)
    strength = np.where(preferring, toward * share, 0.0)
    order = np.argsort(-strength, kind="stable")[:_PER_EFFECT]
    return [int(latent) for latent in order if strength[latent] > 0]


def strongest(judged: LatentTable, change_energy: Float[ndarray, " latent"]) -> list[int]:
    """The latents to look at whatever the areas say: half by |z|, half by change energy among those that were tested."""
    usable = judged.passages >= _MIN_PASSAGES
    by_z = np.argsort(-np.abs(judged.z) * usable, kind="stable")[: _OVERALL // 2]
    by_energy = np.argsort(-change_energy * usable, kind="stable")[:_OVERALL]
    chosen = [int(i) for i in by_z if usable[i] and judged.z[i] != 0]
    for latent in by_energy:
        if len(chosen) >= _OVERALL:
            break
        if usable[latent] and int(latent) not in chosen:
            chosen.append(int(latent))
    return chosen


def likelihood_change(firings: Firings, latent: int, *, seed: int) -> Estimate:
    """Mean change in probability of the known tokens after its firings, clustered by passage; where none follows, 0 with the
    whole range [-1, 1] and n = 0: nothing is known."""
    own = firings.latent == latent
    names, index = np.unique(firings.passage[own], return_inverse=True)
    change = np.bincount(index, weights=firings.change[own], minlength=len(names))
    known = np.bincount(index, weights=firings.known[own], minlength=len(names))
    if known.sum() == 0:
        return Estimate(value=0.0, low=-1.0, high=1.0, unit="probability of known tokens", n=0)
    return ratio_of_sums(change, known, "probability of known tokens", seed=seed)
