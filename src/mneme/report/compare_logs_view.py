"""The words of a comparison of logs, shared by its page and the terminal."""

from mneme.options import counted
from mneme.report import wording
from mneme.results import Estimate, TooFew
from mneme.results.compare_logs import Flip, LogChange, LogComparison

RATE = 0.05
"""Family-wise error of what is said to have changed."""


def changed(change: LogChange) -> bool:
    """Told from no change, over all tasks."""
    return change.p_holm is not None and change.p_holm <= RATE


def log_direction(change: LogChange) -> str:
    """worse, better, same (shown to be within the margin), or nothing."""
    if changed(change):
        return "worse" if (change.change.plain < 0) == change.higher_is_better else "better"
    return "same" if change.equivalent else ""


def said(change: LogChange) -> str:
    """What is said of a task."""
    if not change.primary:
        return ""
    words = {"worse": "worse", "better": "better", "same": "equivalent"}
    return words.get(log_direction(change)) or ("not worse" if change.not_worse else "not shown either way")


def log_figure(value: float, change: LogChange) -> str:
    """A mean of one log, in the unit of its change."""
    return f"{100 * value:.1f}" if wording.factor(change.change.unit) != 1.0 else wording.number(value, 3)


def log_moved(found: Estimate | TooFew) -> str:
    """'−4.2 points'."""
    if isinstance(found, TooFew):
        return "–" if found.value is None else wording.number(wording.factor(found.unit) * found.value, signed=True)
    return wording.magnitude(found)


def log_bounds(found: Estimate | TooFew) -> str:
    """Its interval, or why there is none."""
    return found.told() if isinstance(found, TooFew) else wording.interval(found)


def p_told(value: float | None) -> str:
    """A p-value."""
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def log_detectable(change: LogChange) -> str:
    """The change that would have been shown."""
    if change.detectable is None:
        return "–"
    by = wording.factor(change.change.unit)
    return wording.number(by * change.detectable) if by == 1.0 else f"{by * change.detectable:.1f}"


def flipped(change: LogChange) -> str:
    """'12 lost, 5 gained'."""
    return "–" if change.lost is None else f"{change.lost} lost, {change.gained} gained"


def logs_headline(found: LogComparison) -> str:
    """What moved, which way and how far; names of tasks stay as they are written, as they are what is typed."""
    primary = found.primary()
    moved_ones = [change for change in primary if changed(change)]
    if not moved_ones:
        shown = [change for change in primary if change.equivalent]
        tasks = counted(len(primary), "task")
        if len(shown) == len(primary):
            return f"All of {tasks} are shown to be equivalent."
        return f"No change is shown in {tasks}; {len(shown)} of them are shown to be equivalent."
    told = [f"{one.task} got {log_direction(one)} ({log_moved(one.change)})" for one in moved_ones]
    return f"{wording.listed(told)}."


def logs_outcome(found: LogComparison) -> str:
    """The class of the verdict."""
    directions = [log_direction(change) for change in found.primary()]
    if "worse" in directions:
        return "side-effects"
    return "contained" if directions and all(directions) else "inconclusive"


def flips_by_task(found: LogComparison) -> list[tuple[str, list[Flip]]]:
    """Task -> flips that are shown, lost ones first."""
    tasks = dict.fromkeys(flip.task for flip in found.flips)
    return [(task, [flip for flip in found.flips if flip.task == task]) for task in tasks]
