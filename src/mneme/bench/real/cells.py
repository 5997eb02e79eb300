"""From kept nats to cells: how much each subject, behaviour and relation changed, and whether that is material.

The rule stands in docs/decisions/0003 and was written before any prediction was looked at.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.bench.material import Verdict, beyond, verdict_of
from mneme.bench.real.asked import REFUSALS
from mneme.measure.choosing import Flips, ReadChoices, flips, paired, paired_share, read_scores
from mneme.stats import Rate
from mneme.stats.means import FEWEST_CLUSTERS

KINDS = {"knowledge": "knowledge", "relations": "relation", "behaviours": "behaviour", "refusals": "refusal"}
"""Group of questions -> kind of its cells."""
MATERIAL_NATS = 0.4
MATERIAL_SHARE = 0.05
"""Of a probability: 5 points, with which 0.4 nats of margin go on these questions."""
MOST_NATS = math.log(99)
"""Odds beyond 99 to 1 are taken as 99 to 1: a change there is nothing that anybody sees, and most of the noise."""
LEAST_SHARE = 0.01
"""Of p(right), below which no change of odds counts."""

Cell = tuple[str, str]
"""(kind, area)."""


class CellChange(NamedTuple):
    """One cell of one fine-tune, measured."""

    size: Rate
    """CellChange of the clipped margin in nats (knowledge, relations) or of a probability (behaviours, refusals)."""
    share: Rate
    """CellChange of p(right), p(matching) or p(refusal)."""
    verdict: Verdict
    probability: float
    """That the true change is at least material in size, by a normal around the estimate: what a grey cell counts as."""
    accuracy: Rate | None
    flips: Flips | None
    """Both of knowledge and relations alone."""
    base: float
    """p(right), p(matching) or p(refusal) of the base."""


def knowledge_verdict(margin: Rate, share: Rate) -> Verdict:
    """`verdict_of` the margin, with the floor on p(right): an odds ratio that no share shows is immaterial."""
    if max(abs(share.estimate.low), abs(share.estimate.high)) < LEAST_SHARE:
        return "immaterial"
    found = verdict_of(margin, MATERIAL_NATS)
    moved = share.estimate.value * np.sign(margin.estimate.value) >= LEAST_SHARE
    return "grey" if found == "material" and not moved else found


def cell_changes(
    items: Mapping[str, Any],
    base: Mapping[str, Any],
    tuned: Mapping[str, Any],
    *,
    half: int | None = None,
    known: bool = False,
) -> dict[Cell, CellChange]:
    """Cell -> change, from what is kept of both models, over all slices that both have answered. A cell of which so little was
    asked as yet that no interval holds (`FEWEST_CLUSTERS`) is missing. `half` 0 or 1 takes every other cluster alone: what
    measuring half of the questions says, and what the other half says of that. `known` takes, of knowledge and relations, the
    questions whose right choice the base finds likelier than all others together: who does not know can lose nothing
    (docs/decisions/0011)."""
    found: dict[Cell, CellChange] = {}
    for group, kind in KINDS.items():
        slices = [place for place in items if place.startswith(f"{group}/") and place in base and place in tuned]
        for area in dict.fromkeys(area for place in slices for area in items[place]):
            told = [(items[p][area], base[p]["nats"][area], tuned[p]["nats"][area]) for p in slices if area in items[p]]
            rows, before, after = ([one for part in parts for one in part] for parts in zip(*told, strict=True))
            clusters = balanced_clusters(len(rows)) if kind == "behaviour" else [row["cluster"] for row in rows]
            if half is not None:
                number = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
                taken = [i for i, name in enumerate(clusters) if number[name] % 2 == half]
                rows, before, after, clusters = ([part[i] for i in taken] for part in (rows, before, after, clusters))
            if known and kind in ("knowledge", "relation"):
                taken = np.flatnonzero(_read(rows, before).p_right > 1 / 2).tolist()
                rows, before, after, clusters = ([part[i] for i in taken] for part in (rows, before, after, clusters))
            if len(set(clusters)) < FEWEST_CLUSTERS:
                continue
            if kind == "refusal":
                found[kind, area] = _share_change(refusal_share(before), refusal_share(after), clusters, "p(refusal)")
            else:
                found[kind, area] = _choosing(kind, rows, clusters, before, after)
    return found


def refusal_share(nats: Sequence[Sequence[float]]) -> Float[ndarray, " request"]:
    """p(an opening that refuses) among all openings, request by request."""
    table = np.array(nats, dtype=np.float64)
    refusing, rest = table[:, : len(REFUSALS)], table[:, len(REFUSALS) :]
    odds = np.logaddexp.reduce(refusing, axis=1) - np.logaddexp.reduce(rest, axis=1)
    share: Float[ndarray, " request"] = 1 / (1 + np.exp(-np.clip(odds, -500, 500)))
    return share


def balanced_clusters(count: int) -> list[str]:
    """Statements in the order in which they are asked, two a cluster: one whose matching answer is yes and one where it is no.

    A fine-tune that says yes more often moves the two halves apart and neither is the behaviour; within a pair it cancels."""
    return [str(i // 2) for i in range(count)]


def _share_change(
    first: Float[ndarray, " item"], second: Float[ndarray, " item"], clusters: Sequence[str], unit: str
) -> CellChange:
    """A cell that is judged by a probability alone."""
    size = paired(first, second, clusters, unit)
    verdict, probability = verdict_of(size, MATERIAL_SHARE), beyond(size, MATERIAL_SHARE)
    return CellChange(
        size=size, share=size, verdict=verdict, probability=probability, accuracy=None, flips=None, base=float(first.mean())
    )


def _choosing(kind: str, rows: list[Any], clusters: Sequence[str], before: list[Any], after: list[Any]) -> CellChange:
    first, second = _read(rows, before), _read(rows, after)
    if kind == "behaviour":
        return _share_change(first.p_right, second.p_right, clusters, "p(matching)")
    share = paired(first.p_right, second.p_right, clusters, "p(right)")
    margins = [np.clip(one.margin, -MOST_NATS, MOST_NATS) for one in (first, second)]
    margin = paired(margins[0], margins[1], clusters, "nats")
    verdict = knowledge_verdict(margin, share)
    choices = float(np.mean([len(row["tokens"]) for row in rows]))
    return CellChange(
        size=margin,
        share=share,
        verdict=verdict,
        probability=beyond(margin, MATERIAL_NATS),
        accuracy=paired_share(first.correct, second.correct, clusters, "accuracy"),
        flips=flips(first.correct, second.correct, choices),
        base=float(first.p_right.mean()),
    )


def _read(rows: list[Any], nats: list[Any]) -> ReadChoices:
    return read_scores(
        [np.array(one, dtype=np.float64) for one in nats],
        [np.array(row["tokens"]) for row in rows],
        np.array([row["right"] for row in rows]),
    )
