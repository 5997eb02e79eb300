"""The words of a preference training, shared by its page and the terminal."""

from mneme.report import wording
from mneme.report.lines import Point
from mneme.results import Estimate, TooFew
from mneme.results.dpo import PreferenceRun


def preferences_headline(run: PreferenceRun) -> str:
    """What happened to the chosen answers of the watched pairs, which way and how far."""
    change = run.displacement[-1].chosen_change
    told = f"{wording.number(change.plain, signed=True)} nats per answer"
    if isinstance(change, TooFew):
        return f"Too few pairs were watched to say what happened to the chosen answers ({told})."
    if change.high < 0:
        return f"The chosen answers became less likely ({told}): they were displaced."
    if change.low > 0:
        return f"The chosen answers became more likely ({told})."
    return f"The chosen answers are not shown to have moved either way ({told})."


def preferences_outcome(run: PreferenceRun) -> str:
    """The class of the verdict: side-effects where the chosen answers fell, contained where they rose, else inconclusive."""
    change = run.displacement[-1].chosen_change
    if isinstance(change, TooFew) or change.low <= 0 <= change.high:
        return "inconclusive"
    return "side-effects" if change.high < 0 else "contained"


def points_of(estimates: list[tuple[int, Estimate | TooFew]]) -> list[Point]:
    """Points of a line over the steps; without intervals where there are too few pairs."""
    found = []
    for step, estimate in estimates:
        low, high = (estimate.plain,) * 2 if isinstance(estimate, TooFew) else (estimate.low, estimate.high)
        found.append(Point(step, estimate.plain, low, high))
    return found


def fixes(run: PreferenceRun) -> str:
    """What was done against displacement, in words."""
    named = [
        f"filter {run.filter}" if run.filter != "none" else "",
        f"SFT weight {run.sft_weight:g}" if run.sft_weight else "",
        f"DPOP weight {run.dpop_weight:g}" if run.dpop_weight else "",
        "reward calibration" if run.reward_calibration else "",
    ]
    return ", ".join(name for name in named if name) or "none"
