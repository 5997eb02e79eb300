"""Steps 5 to 8 of the audit: which latents matter, judged each against its own null, then ablated and described.

Neither decoder norm nor change energy alone ranks them: on a real unlearning pair the latents with most change energy were
structure tokens that drift everywhere. A latent is judged by what happens to the known tokens that follow where it fires
(up to 8 tokens on, same passage), minus the drift common to all text, in standard errors over passages.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.audit.dictionary import LayerCodes
from mneme.predict.effects import TokenTable
from mneme.results import Effect, Estimate, TooFew
from mneme.stats import benjamini_hochberg, clustered_ratio, student_t_quantile, student_t_two_sided

WINDOW = 8
"""Tokens after a firing in which its consequence is looked for: as many as stand after it in a shown context. Never varied."""
_MIN_PASSAGES = 5
"""Passages in which a latent fires from which on it is looked at: as few as an area may have (`mneme.audit.reading.FEW`)."""
_BLOCK_ROWS = 1024
"""Rows whose running sums are in memory at once: 2 MB of float64 at 256 tokens a row. A round number that was never varied."""
FEWEST_PASSAGES = 20
"""From here on a latent may be claimed to have a change of its own. With 10, skewed changes whose size differs between latents
are claimed on a quarter of the pairs without a purpose (docs/log.md)."""
_PER_EFFECT = 4
"""Latents behind an effect at most, each an ablation and a row of the page. A round number that was never varied."""
_PREFERENCE = 3
"""A latent prefers an area's text where its share of energy there is so many times that of all firings, or `_HALF`. Never
varied."""
_HALF = 0.5
"""Share of energy that is a preference whatever the area's size."""
_BAND = 0.2
"""Latents whose numbers of passages differ by less than this on the scale of the natural logarithm share a null, drawn for the
fewest: its tail is then that of at most 18 % fewer passages, which claims less. Never varied."""
_DRAWN = 3_000_000
"""Cells drawn for the null of a band: with it, the simulations of docs/log.md (numbers that hold) claimed 0 % of null
pairs."""
_DRAWS = (2_000, 200_000)
"""Draws of a null, bounds: from 2,000 on `_SEEN` of them are a tail of 1 %; 200,000 resolve a q of 1 % over 2,000 latents."""
_PIECES = 8
"""Parts in which they are drawn, for memory: a part is 3 MB of float64. A round number that was never varied."""
_TINY = 1e-30
"""Far below the energy of any latent that fires: keeps 0 / 0 from being computed."""
_SEEN = 20
"""Draws that a tail must hold to be read off the draws: its probability is then known to 22 %."""
OVERALL = 12
"""Latents of a layer that are looked at whatever the areas say: half by |z|, half by energy; each costs an ablation (7 passes
of 8 rows) and a row of the page. A round number that was never varied."""


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
    """`mass` over its standard error (clustered by passage), to which that of the median latent is added (Tusher, Tibshirani &
    Chu
    2001): few passages that happen to be alike then say little."""
    q_value: Float[ndarray, " latent"]
    """Benjamini-Hochberg over all latents of all layers that fire in at least 20 passages; 1 for the others."""


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
    return Firings(
        latent=codes.latent,
        value=codes.value.astype(np.float64),
        row=row,
        place=place,
        passage=passage[row, place],
        change=change,
        known=known,
    )


def _last_place(passage: Int[ndarray, "row seq"]) -> Int[ndarray, "row seq"]:
    """Last place in the row that belongs to the same passage as this one."""
    n_rows, seq = passage.shape
    last = np.empty((n_rows, seq), dtype=np.int64)
    last[:, -1] = seq - 1
    for place in range(seq - 2, -1, -1):
        same = passage[:, place] == passage[:, place + 1]
        last[:, place] = np.where(same, last[:, place + 1], place)
    return last


def judge_latents(firings: Firings, n_latents: int, *, layers: int = 1, seed: int = 0) -> LatentTable:
    """Every latent against its own null: the mean change after any firing of any latent (the common drift).

    Its p-value is the larger of two: what as many passages, drawn at random from all firings of all latents, would show
    (`_p_values`), and the chance that they would have missed the passages which take its whole change back (`_unseen`).
    q-values allow for as many latents again in every one of `layers`.
    """
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
    spread, enough = _spread(mass, square, passages), passages >= _MIN_PASSAGES
    usual = float(np.median(spread[enough])) if enough.any() else 0.0
    known = enough & (spread + usual > 0)
    z = np.where(known, mass / np.sqrt(np.maximum(passages, 1)) / np.where(known, spread + usual, 1.0), 0.0)
    q_value, tested = np.ones(n_latents), known & (passages >= FEWEST_PASSAGES)
    if tested.any():
        p_values = _p_values(np.abs(z[tested]), passages[tested], sums, usual, seed)
        p_values = np.maximum(p_values, _unseen(mass, index, owner, firings.known)[tested])
        q_value[tested] = benjamini_hochberg(np.minimum(layers * p_values, 1.0))
    return LatentTable(passages, mass, z, q_value)


def _spread(
    mass: Float[ndarray, "..."], square: Float[ndarray, "..."], passages: Int[ndarray, "..."]
) -> Float[ndarray, "..."]:
    """Standard deviation over passages of what happened after a latent."""
    variance = (square - mass**2 / np.maximum(passages, 1)) / np.maximum(passages - 1, 1)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def _p_values(
    size: Float[ndarray, " latent"],
    passages: Int[ndarray, " latent"],
    sums: Float[ndarray, " cell"],
    usual: float,
    seed: int,
) -> Float[ndarray, " latent"]:
    """Two-sided p of every studentised mass, from draws of as many cells (what happened in one passage after one latent).

    Student's t alone claims something on every null pair where most passages show nothing and a few a large loss: it cannot
    know of the losses that its few passages lack, and the other latents do. Latents with much the same number of passages
    share their draws; beyond the tail that the draws show, t is stretched to meet it there."""
    generator = np.random.default_rng(seed)
    p_values = np.ones(len(size))
    band = np.floor(np.log(passages) / _BAND).astype(int)
    for name in np.unique(band):
        own = band == name
        n = int(passages[own].min())
        draws = int(np.clip(_DRAWN // n, *_DRAWS))
        null = np.empty(draws)
        for first in range(0, draws, rows := max(1, _DRAWN // (_PIECES * n))):
            picked = sums[generator.integers(len(sums), size=(min(rows, draws - first), n))]
            mass, square = picked.sum(1), (picked**2).sum(1)
            spread = _spread(mass, square, np.full(len(picked), n))
            null[first : first + rows] = np.abs(mass) / math.sqrt(n) / (spread + usual)
        null.sort()
        tail = _SEEN / draws
        stretch = max(1.0, float(null[-_SEEN]) / -student_t_quantile(tail / 2, n - 1))
        counted = (draws - np.searchsorted(null, size[own], side="left") + 1) / (draws + 1)
        beyond = np.array([student_t_two_sided(value / stretch, n - 1) for value in size[own]])
        p_values[own] = np.where(size[own] > null[-_SEEN], np.minimum(beyond, tail), counted)
    return p_values


def _unseen(
    mass: Float[ndarray, " latent"],
    cell: Int[ndarray, " code"],
    owner: Int[ndarray, " cell"],
    known: Float[ndarray, " code"],
) -> Float[ndarray, " latent"]:
    """Two-sided p of a mean change m of the known tokens, were it 0 by passages that happen not to be among these n.

    A token's probability moves by at most 1, so a share of at least m of all passages would have to move the other way; n
    passages miss all of them with probability (1 - m)^n at most. n is Kish's (1965) number for their unequal known tokens.
    Draws of what the latents show (`_p_values`) cannot know it where sizes differ between latents: sparse and skewed changes
    of unlike sizes were claimed on every pair without a purpose, up to 42 a pair (docs/log.md)."""
    weight = np.bincount(cell, weights=known, minlength=len(owner))
    total = np.bincount(owner, weights=weight, minlength=len(mass))
    square = np.bincount(owner, weights=weight**2, minlength=len(mass))
    worth = total**2 / np.maximum(square, _TINY)
    mean = np.abs(mass) / np.maximum(total, _TINY)
    return np.asarray(np.minimum(1.0, 2 * np.maximum(1 - mean, 0.0) ** worth))


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
    return inside / np.maximum(total, _TINY)


def evidence_for(effect: Effect, firings: Firings, judged: LatentTable, member: Bool[ndarray, " passage"]) -> list[int]:
    """Latents behind an effect, strongest first: those that prefer its text (share of energy there at least 3 times the
    share of all firings there, or above 1/2) and after whose firings there known tokens changed in the effect's direction;
    ranked by that change times the preference."""
    n_latents = len(judged.mass)
    share = energy_share(firings, member, n_latents)
    usual = float((firings.value**2 * member[firings.passage]).sum() / max((firings.value**2).sum(), _TINY))
    inside = np.bincount(firings.latent, weights=firings.change * member[firings.passage], minlength=n_latents)
    toward = inside * (1.0 if effect.magnitude.value > 0 else -1.0)
    preferring = (share >= min(_HALF, _PREFERENCE * usual)) & (judged.passages >= _MIN_PASSAGES) & (toward > 0)
    strength = np.where(preferring, toward * share, 0.0)
    order = np.argsort(-strength, kind="stable")[:_PER_EFFECT]
    return [int(latent) for latent in order if strength[latent] > 0]


def strongest(judged: LatentTable, change_energy: Float[ndarray, " latent"]) -> list[int]:
    """The latents to look at whatever the areas say: half by |z|, half by change energy among those that were tested."""
    usable = judged.passages >= _MIN_PASSAGES
    by_z = np.argsort(-np.abs(judged.z) * usable, kind="stable")[: OVERALL // 2]
    by_energy = np.argsort(-change_energy * usable, kind="stable")[:OVERALL]
    chosen = [int(i) for i in by_z if usable[i] and judged.z[i] != 0]
    for latent in by_energy:
        if len(chosen) >= OVERALL:
            break
        if usable[latent] and int(latent) not in chosen:
            chosen.append(int(latent))
    return chosen


def likelihood_change(firings: Firings, latent: int, *, seed: int) -> Estimate:
    """Mean change in probability of the known tokens after its firings, clustered by passage; where none follows, 0 with the
    whole range [-1, 1] and n = 0: nothing is known. Too few passages for an interval that holds: the whole range as well."""
    own = firings.latent == latent
    names, index = np.unique(firings.passage[own], return_inverse=True)
    change = np.bincount(index, weights=firings.change[own], minlength=len(names))
    known = np.bincount(index, weights=firings.known[own], minlength=len(names))
    if known.sum() == 0:
        return Estimate(value=0.0, low=-1.0, high=1.0, unit="probability of known tokens", n=0)
    found = clustered_ratio(change, known, "probability of known tokens", seed=seed)
    if isinstance(found, TooFew):
        return Estimate(value=found.value or 0.0, low=-1.0, high=1.0, unit=found.unit, n=found.n)
    return found
