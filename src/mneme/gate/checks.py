"""A policy held against a run: every limit passes, fails, or cannot be told from what the run has.

*Not worse by M* (non-inferiority): passes where the 95 % interval leaves out that the area became worse by M points; fails
where it is worse by M or more and told from 0 (the interval leaves 0 out, and so does the false-discovery rate where the run
has one); else there is not enough evidence. *Size* is the same either way. A small run therefore cannot pass by seeing little.
"""

import datetime
from collections.abc import Mapping
from typing import Any

from mneme.errors import BadPolicy
from mneme.gate.areas import GatedArea, GatedRun
from mneme.gate.policy import Policy, Waiver
from mneme.report.wording import interval, listed, magnitude, number, shown_probability
from mneme.results import Estimate, TooFew
from mneme.results.gate import GateCheck, Limit, Outcome, Whole

_FALSE_DISCOVERIES = 0.05
"""As everywhere: what is said to have changed is wrong at most in one of twenty."""
Found = Estimate | TooFew


def checked(policy: Policy, run: GatedRun, beside: Mapping[str, Found] | None = None) -> list[GateCheck]:
    """Every limit on every area of the run, in the order of the run; areas that were the purpose only where a rule names them.

    `beside`: label of an area -> its change against the approved run, which `not_worse_than` is then about.

    Raises BadPolicy where a rule or a waiver names an area that the run did not look at, or asks for P where the run has none.
    """
    _require_known(policy, run)
    checks = []
    for subject in run.areas:
        if subject.intended and not policy.names(subject.area):
            continue
        for limit, allowed in policy.limits_on(subject.area, subject.kind):
            if subject.kind == "overall" and limit not in ("not_worse_than", "size"):
                continue
            checks.append(_check(subject, limit, allowed, beside))
    checks += [_absent(policy, area, why) for area, why in run.absent.items() if policy.names(area)]
    return checks + _as_a_whole(policy, run)


def _require_known(policy: Policy, run: GatedRun) -> None:
    known = {name.casefold() for name in run.names()}
    named = [*(("rule", rule.area) for rule in policy.rules), *(("waiver", waiver.area) for waiver in policy.waivers)]
    for what, area in named:
        if area is not None and area.casefold() not in known:
            raise BadPolicy(
                f"A {what} is about the area {area!r}, which the run did not look at. It looked at {listed(run.names(), 40)}."
            )
    asked = any(rule.probability is not None for rule in policy.rules)
    if asked and run.areas and not any(one.probability_fits for one in run.areas):
        raise BadPolicy("A rule sets a limit on `probability`, which this run does not have. Set not_worse_than or size.")


def _check(subject: GatedArea, limit: Limit, allowed: Any, beside: Mapping[str, Found] | None) -> GateCheck:
    change: Found = subject.change
    match limit:
        case "not_worse_than" if beside is not None:
            told = f"not worse than the approved run by {allowed:g} points"
            change = beside.get(subject.label) or TooFew(value=None, unit="points", n=0, needed=1, of="approved runs with it")
            outcome, reason = _worse(change, allowed, subject, approved=True)
        case "not_worse_than":
            told = f"not worse by {allowed:g} points"
            outcome, reason = _worse(change, allowed, subject, approved=False)
        case "size":
            told = f"changed by less than {allowed:g} points"
            outcome, reason = _within(change, allowed, allowed, _told_from_0(change, subject.p_value))
        case "probability":
            told = f"P below {allowed:g}"
            outcome, reason = _likely(subject, allowed)
        case "verdict":
            told = f"said to be {' or '.join(allowed)}"
            outcome, reason = _said(subject, allowed)
        case "power":
            told = f"a loss of {allowed:g} points would have been seen"
            outcome, reason = _seen(subject, allowed)
    return GateCheck(
        area=subject.label,
        kind=subject.kind,
        limit=limit,
        allowed=told,
        outcome=outcome,
        reason=reason,
        found=None if limit in ("probability", "verdict", "power") else change,
    )


def _worse(change: Found, margin: float, subject: GatedArea, *, approved: bool) -> tuple[Outcome, str]:
    # The run's own p says nothing of the difference of two runs.
    told = _told_from_0(change, None if approved else subject.p_value)
    below = margin if subject.worse in ("down", "either") else None
    above = margin if subject.worse in ("up", "either") else None
    return _within(change, below, above, told)


def _told_from_0(change: Found, p_value: float | None) -> bool:
    if isinstance(change, TooFew):
        return False
    return (change.low > 0 or change.high < 0) and (p_value is None or p_value <= _FALSE_DISCOVERIES)


def _within(change: Found, below: float | None, above: float | None, told: bool) -> tuple[Outcome, str]:
    """`below`, `above`: how far down and up it may go; None: as far as it likes. `told`: it is told from 0."""
    if isinstance(change, TooFew):
        return "not enough evidence", f"There is no interval: {change.told()}."
    if change.unit != "points":
        return "not enough evidence", f"It is measured in {change.unit}, which no limit in points can be held against."
    said = f"{magnitude(change)} {interval(change)}"
    if (below is None or change.low > -below) and (above is None or change.high < above):
        return "pass", f"{said}."
    too_far = (below is not None and change.value <= -below) or (above is not None and change.value >= above)
    if too_far and told:
        return "fail", f"{said}."
    return "not enough evidence", f"{said}: that much is not ruled out."


def _likely(subject: GatedArea, allowed: float) -> tuple[Outcome, str]:
    """As `--fail-on` always was: where P is uncalibrated, the area counts when it is affected."""
    reached = subject.finding == "affected" if subject.probability is None else subject.probability >= allowed
    if reached:
        return "fail", "affected, P uncalibrated" if subject.probability is None else f"P {subject.probability:.2f}"
    if subject.finding == "not enough evidence":
        return "not enough evidence", "The evidence on this area is not enough, so a small P is no sign that nothing happened."
    return "pass", f"P {shown_probability(subject.probability)}"


def _said(subject: GatedArea, allowed: tuple[str, ...]) -> tuple[Outcome, str]:
    said = subject.finding or "not enough evidence"
    if said in allowed:
        return "pass", f"It is said to be {said}."
    return ("not enough evidence" if said == "not enough evidence" else "fail"), f"It is said to be {said}."


def _seen(subject: GatedArea, allowed: float) -> tuple[Outcome, str]:
    if subject.power is None:
        return "not enough evidence", "No loss would have been seen for sure: there is too little text of it."
    told = f"A loss of {number(subject.power)} points would have been seen with a probability of 80 %."
    return ("pass" if subject.power <= allowed else "not enough evidence"), told


def _absent(policy: Policy, area: str, why: str) -> GateCheck:
    limit, _ = policy.limits_on(area, "")[0]
    return GateCheck(
        area=area,
        kind="capability",
        limit=limit,
        allowed="looked at",
        outcome="not enough evidence",
        reason=f"Nothing can be said about it: {why.rstrip('.')}.",
    )


def _as_a_whole(policy: Policy, run: GatedRun) -> list[GateCheck]:
    """Where everything is asked about: a model that is broken as a whole, or a run that settles nothing, without an area that
    says so."""
    limits = policy.limits_on("", "")
    if not limits or not (run.broken or run.unsettled):
        return []
    outcome: Outcome = "fail" if run.broken else "not enough evidence"
    reason = run.broken or run.unsettled
    return [
        GateCheck(
            area="every area", kind="overall", limit=limits[0][0], allowed="whole", outcome=outcome, reason=reason, found=None
        )
    ]


def waived(checks: list[GateCheck], waivers: tuple[Waiver, ...], today: datetime.date) -> tuple[list[GateCheck], list[str]]:
    """The checks with what is waived on that day, and a sentence about every waiver that expired or covers nothing."""
    notes, told = [], list(checks)
    for waiver in waivers:
        covered = [i for i, check in enumerate(told) if _covers(waiver, check)]
        if today > waiver.until:
            still = ", and what it covered counts again" if covered else ""
            notes.append(f"The waiver of {waiver.area} expired on {waiver.until}{still}.")
            continue
        if not covered:
            notes.append(f"The waiver of {waiver.area} covers nothing: remove it.")
        for i in covered:
            reason = f"{told[i].reason} Waived until {waiver.until}: {waiver.reason.rstrip('.')}."
            told[i] = told[i].model_copy(update={"outcome": "waived", "reason": reason})
    return told, notes


def _covers(waiver: Waiver, check: GateCheck) -> bool:
    area = check.area.partition(" · ")[0].casefold() == waiver.area.casefold()
    return area and check.outcome in ("fail", "not enough evidence") and waiver.limit in (None, check.limit)


def whole_of(checks: list[GateCheck]) -> Whole:
    """fail where one fails, else not enough evidence where one cannot be told, else pass."""
    outcomes = {check.outcome for check in checks}
    return "fail" if "fail" in outcomes else "not enough evidence" if "not enough evidence" in outcomes else "pass"
