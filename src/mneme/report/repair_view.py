"""The words of a repair, shared by its page and the terminal: headline, before and after, shares in percent."""

from typing import NamedTuple

from mneme.options import counted
from mneme.report import wording
from mneme.results import Estimate, TooFew
from mneme.results.repair import ProbeText, RepairMethod, RepairReport


class RepairRow(NamedTuple):
    """One line of before and after."""

    name: str
    note: str
    before: str
    after: str


def most(method: RepairMethod) -> float:
    """The largest share that any strength of this method closed; 0 where none was tried."""
    return max([0.0, *(point.closed.plain for point in method.points)])


def chosen(report: RepairReport) -> RepairMethod | None:
    """The method whose model was written; None where none closes the goal."""
    return next((method for method in report.methods if method.method == report.chosen), None)


def repair_headline(report: RepairReport) -> str:
    """One sentence: what was undone, and what it cost."""
    best = chosen(report)
    if best is None or best.chosen is None:
        return f"No method undoes {wording.percent(report.goal)} of the side effect."
    undone, lost = wording.share(best.chosen.closed), wording.share(best.chosen.lost)
    return f"{undone} of the side effect is undone, {lost} of the purpose is lost."


def reason(report: RepairReport) -> str:
    """One sentence more: the method, the controls beside it, and what was written."""
    best = chosen(report)
    if best is None or best.chosen is None:
        return "No model was written. Ask for less with --close, or give other text."
    controls = [m for m in report.methods if m.control and m.chosen is not None and m is not best]
    beside = ", ".join(f"{m.method} loses {wording.share(m.chosen.lost)}" for m in controls if m.chosen is not None)
    text = f"{best.method}: {best.description}."
    if beside:
        text += f" To undo as much, {beside}."
    if report.saved is not None and report.saved.kind == "adapter":
        residual = wording.percent(report.saved.residual or 0.0)
        text += f" Written as an adapter of rank {report.saved.rank}; what the rank leaves out is {residual} of the change."
    elif report.saved is not None:
        text += " Written as a whole model."
    return text


def before_after(report: RepairReport) -> list[RepairRow]:
    """What is compared between the tuned and the repaired model."""
    best = chosen(report)
    point = best.chosen if best is not None else None
    coherent, other = (best.coherent, best.other_change) if best is not None else (None, None)
    absent = "not repaired"
    rows = [
        RepairRow(
            "Side effect that is left", "share of the target's change", "100 %", _rest(point.closed) if point else absent
        ),
        RepairRow(
            "Purpose that is left", "share of the retained text's change", "100 %", _rest(point.lost) if point else absent
        ),
        RepairRow(
            "Coherent continuations",
            counted(report.tuned_coherent.n, "prompt"),
            f"{wording.share(report.tuned_coherent)} {wording.share_range(report.tuned_coherent)}",
            f"{wording.share(coherent)} {wording.share_range(coherent)}" if coherent is not None else absent,
        ),
    ]
    if report.tuned_other_change is not None:
        before = f"{wording.nats(report.tuned_other_change)} {wording.nats_range(report.tuned_other_change)}"
        after = f"{wording.nats(other)} {wording.nats_range(other)}" if other is not None else absent
        rows.append(RepairRow("Other text", "log-likelihood against the base, nats per token", before, after))
    return rows


def _rest(estimate: Estimate | TooFew) -> str:
    if isinstance(estimate, TooFew):
        return f"{wording.share(estimate.model_copy(update={'value': 1 - estimate.plain}))} {wording.share_range(estimate)}"
    low, high = 1 - estimate.high, 1 - estimate.low
    rest = estimate.model_copy(update={"value": 1 - estimate.value, "low": low, "high": high})
    return f"{wording.share(rest)} {wording.share_range(rest)}"


def ranked_methods(report: RepairReport) -> list[RepairMethod]:
    """Highest selectivity first; those that do not reach the goal last."""
    return sorted(report.methods, key=lambda m: -m.chosen.selectivity.plain if m.chosen is not None else 9.0)


def texts(report: RepairReport) -> list[tuple[str, ProbeText]]:
    """The probes under the names that a reader knows."""
    named = [("Target: as the base again", report.target), ("Retained: as tuned", report.retain)]
    return named + ([("Other text", report.other)] if report.other is not None else [])
