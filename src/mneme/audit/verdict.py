"""The verdict of the whole report, from what is said of each area: which one decides, and what would settle it."""

import math
from collections.abc import Sequence

from mneme.audit.effects import MATERIAL
from mneme.options import counted
from mneme.predict.knowledge import KNOWLEDGE_UNIT
from mneme.predict.verdicts import FALSE_DISCOVERIES, MARGIN, Measure
from mneme.results import AbsentArea, Effect, Estimate, Verdict
from mneme.results.audit import AFFECTED_AS_A_WHOLE

MATERIAL_LOSS = -math.log(1 - MARGIN)
"""Nats per token from which a loss of ordinary text is material: its tokens are less probable by the margin of the areas, 5 %
of themselves (geometric mean). Taken from that margin before any model was read."""
BROKEN = 1.0
"""Nats per token by which ordinary text has become less likely in a model that is broken as a whole: its perplexity is 2.7
times what it was. A round number that was never varied."""


def headline_verdict(
    effects: Sequence[Effect],
    absent: Sequence[AbsentArea],
    broad: Measure | None,
    *,
    named: bool,
    loss: Estimate | None = None,
    ordinary: Estimate | None = None,
) -> tuple[Verdict, str]:
    """change: an area is affected, or all of them together by the margin. no material change: every area is shown to be
    unaffected, and (where the user `named` the areas) none is without text; of a list that ships, something was said of some
    area of each kind that it has, knowledge and behaviour. Else inconclusive. Models that differ are never
    said to show no difference, and one to which the whole text became less likely by `BROKEN` (`loss`, nats per token) is
    broken as a whole, whatever the few words say that are left of its areas.

    `ordinary`: the loss of mneme's own text, where the user gave none (`mneme.audit.ordinary`). It stands in for `loss`, and
    one that is material is a change, though no area is told apart."""
    verdict, reason = _of_areas(effects, absent, broad, named=named)
    material, sentence = ordinary_sentence(ordinary)
    loss = loss if ordinary is None else ordinary
    if loss is None or loss.low < BROKEN:
        if not material or verdict == "change":
            return verdict, f"{reason} {sentence}".strip()
        return "change", f"{AFFECTED_AS_A_WHOLE}. {sentence} {reason}"
    broken = (
        f"Broken as a whole: the text became less likely by {loss.value:.2f} nats per token [{loss.low:.2f}, {loss.high:.2f}]"
    )
    if verdict == "change":
        return verdict, f"{broken}. {reason}"
    return "change", f"{broken}, so that too little is left to tell what happened to single areas."


def _of_areas(
    effects: Sequence[Effect], absent: Sequence[AbsentArea], broad: Measure | None, *, named: bool
) -> tuple[Verdict, str]:
    found = [one for one in effects if _affected(one)]
    areas = counted(len(effects), "area")
    everything = _broadly(broad)
    if found:
        names = ", ".join(_named(one) for one in found[:5]) + ("" if len(found) <= 5 else f" and {len(found) - 5} more")
        return "change", f"{len(found)} of {areas} {_is(found)} affected: {names}.{everything}"
    if broad is not None and abs(broad.estimate.value) >= MARGIN and broad.p_value <= FALSE_DISCOVERIES:
        return "change", f"No single area stands out, but all of them changed.{everything}"
    if not effects:
        return "inconclusive", f"None of {counted(len(absent), 'area')} had enough matching text: give more or other text."
    open_ones = [one for one in effects if one.finding == "not enough evidence"]
    if open_ones:
        more = [one.more_passages for one in open_ones if one.more_passages]
        help_ = (
            f" About {counted(max(more), 'more passage')} of each would settle most of them." if more else " Read more text."
        )
        return (
            "inconclusive",
            f"For {len(open_ones)} of {areas} the evidence is not enough.{help_}{everything}",
        )
    if named and absent:
        have = "has" if len(absent) == 1 else "have"
        return "inconclusive", f"No area that has text is affected, but {len(absent)} of those named {have} none.{everything}"
    unseen = {one.kind for one in absent} - {one.kind for one in effects}
    if unseen:  # a harmful model answers otherwise and knows what it knew
        return "inconclusive", f"No area that has text is affected, but nothing can be said of any {unseen.pop()}.{everything}"
    beside = f" About {counted(len(absent), 'area')} nothing can be said." if absent else ""
    return (
        "no material change",
        f"Each of {areas} changed by less than {100 * MARGIN:.0f} points.{everything}{beside}",
    )


def _named(effect: Effect) -> str:
    return effect.area + (" (in text that both models wrote)" if effect.self_written else "")


def _is(found: Sequence[Effect]) -> str:
    return "is" if len(found) == 1 else "are"


def _affected(effect: Effect) -> bool:
    return effect.finding == "affected" or (effect.finding is None and effect.reaches(MATERIAL))


def _broadly(broad: Measure | None) -> str:
    """What happened to everything, in words, where it is told from 0."""
    if broad is None or broad.p_value > FALSE_DISCOVERIES or broad.estimate.value == 0.0:
        return ""
    way = "lost" if broad.estimate.value < 0 else "gained"
    of = " of what is known" if broad.estimate.unit == KNOWLEDGE_UNIT else ""
    return f" Over all areas {100 * abs(broad.estimate.value):.1f} points{of} were {way}."


def ordinary_sentence(loss: Estimate | None) -> tuple[bool, str]:
    """(whether the loss is material, a sentence that says so or that it is not; empty where neither is shown)."""
    if loss is None:
        return False, ""
    interval = f"{loss.value:.2f} nats per token [{loss.low:.2f}, {loss.high:.2f}]"
    if loss.low >= MATERIAL_LOSS:
        share = 100 * (1 - math.exp(-loss.value))
        return True, f"Ordinary text became less likely by {interval}: its words are {share:.0f} % less probable."
    if loss.low >= -MATERIAL_LOSS and loss.high <= MATERIAL_LOSS:
        return (
            False,
            f"Ordinary text is as likely as before, to within {100 * MARGIN:.0f} % of a word's probability ({interval}).",
        )
    return False, ""
