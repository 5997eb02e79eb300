"""Effects and verdict of a finished audit once more, from its stored evidence alone: by the very functions that made them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from mneme.audit.effects import all_effects, claims_of, findings_of, null_checks, purposeless, ranked
from mneme.audit.evidence import AuditEvidence
from mneme.audit.verdict import headline_verdict
from mneme.errors import BadRun
from mneme.predict.areas import Area
from mneme.predict.calibration import UNCALIBRATED, shipped_calibration
from mneme.predict.verdicts import shortest
from mneme.results import Effect, Report
from mneme.stats import stated

_CLOSE = 1e-9
"""Relative difference of two numbers that are the same: sums of another order on another machine differ by 1e-12 at most, and
no figure is shown with nine digits. Never varied."""
_FROM_LATENTS = ("evidence", "signal", "description", "passages", "intended")
"""What an effect has from the dictionary, the text and the options; no evidence of it is kept."""
FIGURES = ("effects", "absent", "null", "overall", "broad", "claims", "verdict", "reason")
"""Fields of a report that are computed again."""


def recomputed(report: Report, evidence: AuditEvidence, areas: tuple[Area, ...], *, named: bool) -> Report:
    """The report with every figure of `FIGURES` computed from the evidence; effects outside the list are taken as they are.
    `named`: the areas were the user's. Raises BadRun where the evidence is of other areas."""
    if len(areas) != len(evidence.member):
        raise BadRun(f"The evidence is of {len(evidence.member)} areas, the run of {len(areas)}: they do not belong together.")
    calibration = UNCALIBRATED if report.corpus.self_written else shipped_calibration()
    found = all_effects(evidence, areas, calibration)
    null = purposeless(evidence)
    told = {effect.area: effect for effect in report.effects}
    with stated(_powers([told[area.name] for area in areas if area.name in told])):
        findings = findings_of(found, null, purposeless(evidence.written))
    judged = [
        one.model_copy(update={name: getattr(told[one.area], name) for name in _FROM_LATENTS}) if one.area in told else one
        for one in findings
    ]
    effects = ranked([*judged, *(effect for effect in report.effects if effect.kind == "unlisted")])
    both = (found.known.broad, found.every.broad)
    broad = both[shortest(both)]
    overall = evidence.overall()
    verdict, reason = headline_verdict(
        effects,
        found.absent,
        broad,
        named=named,
        loss=None if report.corpus.self_written else overall.get("nll_change"),
        ordinary=evidence.ordinary_loss(),
    )
    return report.model_copy(
        update={
            "effects": effects,
            "absent": found.absent,
            "null": null_checks(null),
            "overall": overall,
            "broad": None if broad is None else broad.estimate,
            "claims": claims_of(found),
            "verdict": verdict,
            "reason": reason,
        }
    )


def _powers(effects: Sequence[Effect]) -> list[float]:
    """Every power that the report states, in the order in which they are computed (of a loss word by word first; where that is
    the larger of the two no other is said): what is known need not be searched for."""
    said = [dict.fromkeys((effect.power_singly, effect.power)) for effect in effects]
    return [value for of_area in said for value in of_area if value is not None]


def figures_that_differ(report: Report, again: Report) -> list[str]:
    """'effects chemistry magnitude value: −0.29 in the report, −0.31 from the evidence' of every figure that is another."""
    found: list[str] = []
    for name in FIGURES:
        one, two = (_plain(getattr(each, name)) for each in (report, again))
        found += [f"{name}{place}: {a!r} in the report, {b!r} from the evidence" for place, a, b in _unlike(one, two)]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return {getattr(one, "area", None) or one.name: _plain(one) for one in value}
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value.model_dump() if hasattr(value, "model_dump") else value


def _unlike(one: Any, two: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(two, dict):
        for name in dict.fromkeys([*one, *two]):
            if name not in one or name not in two:
                yield f"{place} {name}", one.get(name, "nothing"), two.get(name, "nothing")
            else:
                yield from _unlike(one[name], two[name], f"{place} {name}")
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for number, (a, b) in enumerate(zip(one, two, strict=True)):
            yield from _unlike(a, b, f"{place} {number}")
    elif isinstance(one, float) and isinstance(two, float | int):
        if not math.isclose(one, two, rel_tol=_CLOSE, abs_tol=_CLOSE):
            yield place, one, two
    elif one != two:
        yield place, one, two
