"""What of a finished run a policy can be held against: areas with a change, its interval, and what the run said of them.

An audit gives its effects, a measurement its primary changes, a comparison of logs its tasks. Figures are in points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mneme.errors import BadPolicy
from mneme.gate.policy import Finding
from mneme.report import wording
from mneme.results import Effect, Estimate, Record, Report, TooFew
from mneme.results.compare_logs import LogChange, LogComparison
from mneme.results.measure import STANDARD, MeasuredChange, Measurement

_FALSE_DISCOVERIES = 0.05
"""As everywhere: what is said to have changed is wrong at most in one of twenty."""
Worse = Literal["down", "up", "either"]


@dataclass(frozen=True, kw_only=True)
class GatedArea:
    """One area of a run."""

    area: str
    """As a policy names it."""
    label: str
    """As it is shown: with the model or the context where there are several."""
    kind: str
    change: Estimate | TooFew
    """Points."""
    worse: Worse
    """Which way is worse: down for knowledge, up for the share of bad answers, either for a behaviour."""
    p_value: float | None = None
    """Corrected for everything that the run claims; None where it has none, and the interval decides."""
    probability: float | None = None
    probability_fits: bool = False
    """The run knows P at all."""
    finding: Finding | None = None
    """None: nothing was judged (unlisted effects, reports of earlier versions)."""
    power: float | None = None
    """Points."""
    intended: bool = False


@dataclass(frozen=True, kw_only=True)
class GatedRun:
    """Everything that can be judged of a run."""

    areas: tuple[GatedArea, ...]
    absent: dict[str, str]
    """Area that the run had nothing to say about -> why."""
    unsettled: str = ""
    """Why the run as a whole is not enough evidence; empty where its areas say so themselves, or it is."""
    broken: str = ""
    """Why it is broken as a whole, whatever single areas say."""

    def names(self) -> list[str]:
        """All areas that the run looked at."""
        return [*dict.fromkeys(subject.area for subject in self.areas if subject.kind != "overall"), *self.absent]


def in_points(found: Estimate | TooFew) -> Estimate | TooFew:
    """The same in points, where it holds fractions; other units as they are."""
    by = wording.factor(found.unit)
    if by == 1.0:
        return found
    if isinstance(found, TooFew):
        return found.model_copy(update={"value": None if found.value is None else by * found.value, "unit": "points"})
    scaled = {name: by * getattr(found, name) for name in ("value", "low", "high")}
    return found.model_copy(update={**scaled, "unit": "points"})


def gated_run(found: Record) -> GatedRun:
    """What can be judged of a result. Raises BadPolicy for a result that says nothing of areas."""
    match found:
        case Report():
            return _of_report(found)
        case Measurement():
            return _of_measurement(found)
        case LogComparison():
            return GatedRun(areas=tuple(map(_of_log, found.primary())), absent={})
        case _:
            raise BadPolicy(
                "A gate judges what `mneme audit`, `mneme measure` or `mneme compare-logs` found, and this run is of another "
                "command. Name one of theirs."
            )


def _of_report(report: Report) -> GatedRun:
    subjects = [gated_area(effect) for effect in report.effects]
    if report.broad is not None:
        subjects.append(
            GatedArea(area="all", label="all areas together", kind="overall", change=in_points(report.broad), worse="down")
        )
    open_ones = any(subject.finding == "not enough evidence" and not subject.intended for subject in subjects)
    return GatedRun(
        areas=tuple(subjects),
        absent={area.area: area.reason for area in report.absent},
        unsettled=report.reason if report.verdict == "inconclusive" and not open_ones else "",
        broken=report.reason if wording.broken_as_a_whole(report) else "",
    )


def gated_area(effect: Effect) -> GatedArea:
    """What can be judged of one effect of an audit."""
    change = in_points(effect.magnitude)
    factor = wording.factor(effect.magnitude.unit)
    likely = effect.finding is None and effect.reaches(wording.REPORTED)
    return GatedArea(
        area=effect.area,
        label=effect.area,
        kind=effect.kind,
        change=change,
        worse="down" if effect.kind == "capability" else "either",
        p_value=effect.q_value,
        probability=effect.probability,
        probability_fits=True,
        finding=effect.finding or ("affected" if likely else None),
        power=None if effect.power is None else factor * effect.power,
        intended=effect.intended,
    )


def _of_measurement(found: Measurement) -> GatedRun:
    primary = [change for change in found.changes if change.primary]
    if not primary:
        raise BadPolicy(
            "This measurement is of one model alone, so there is no change to judge. Measure the base and the tuned model."
        )
    several = len({change.model for change in primary}) > 1
    higher = found.suite.startswith(("lm-eval:", "inspect:"))
    return GatedRun(areas=tuple(_of_change(change, several=several, higher=higher) for change in primary), absent={})


def _of_change(change: MeasuredChange, *, several: bool, higher: bool) -> GatedArea:
    beside = [change.model] * several + [change.context] * (change.context != STANDARD)
    unit = change.estimate.unit
    p_value = change.p_holm
    affected = p_value is not None and p_value <= _FALSE_DISCOVERIES and abs(change.estimate.plain) >= change.margin
    return GatedArea(
        area=change.area,
        label=" · ".join([change.area, *beside]),
        kind="measured",
        change=in_points(change.estimate),
        # The rate of an open question of a suite of our own is a share of bad answers.
        worse="down" if higher or unit != "rate" else "up",
        p_value=p_value,
        finding=_finding(affected=affected, equivalent=change.equivalent),
        power=None if change.minimal_detectable is None else wording.factor(unit) * change.minimal_detectable,
    )


def _of_log(change: LogChange) -> GatedArea:
    unit = change.change.unit
    size = abs(wording.factor(unit) * change.change.plain)
    affected = change.p_holm is not None and change.p_holm <= _FALSE_DISCOVERIES and size >= change.margin
    return GatedArea(
        area=change.task,
        label=change.task,
        kind="measured",
        change=in_points(change.change),
        worse="down" if change.higher_is_better else "up",
        p_value=change.p_holm,
        finding=_finding(affected=affected, equivalent=change.equivalent),
        power=None if change.detectable is None else wording.factor(unit) * change.detectable,
    )


def _finding(*, affected: bool, equivalent: bool) -> Finding:
    return "affected" if affected else "unaffected" if equivalent else "not enough evidence"


def against(found: Sequence[GatedArea], approved: Sequence[GatedArea]) -> dict[str, Estimate | TooFew]:
    """Label -> change of a run minus that of the approved one, for what both have.

    Both intervals joined by MOVER (Zou & Donner 2008) as if the two runs were independent. They share base and text, so their
    errors are mostly alike and the interval is longer than it had to be, never shorter. Audits that kept their evidence do
    better (`compare.paired_changes`).
    """
    of = {subject.label: subject.change for subject in approved}
    return {one.label: difference(one.change, of[one.label]) for one in found if one.label in of}


def difference(one: Estimate | TooFew, two: Estimate | TooFew) -> Estimate | TooFew:
    """`one` minus `two`, independent, in the unit of both; TooFew where either is."""
    value = one.plain - two.plain
    few = [part for part in (one, two) if isinstance(part, TooFew)]
    if few:
        return few[0].model_copy(update={"value": value})
    assert isinstance(one, Estimate)
    assert isinstance(two, Estimate)
    low = value - ((one.value - one.low) ** 2 + (two.high - two.value) ** 2) ** 0.5
    high = value + ((one.high - one.value) ** 2 + (two.value - two.low) ** 2) ** 0.5
    return Estimate(value=value, low=low, high=high, unit=one.unit, n=min(one.n, two.n))
