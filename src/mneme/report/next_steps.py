"""What to do now: the commands that follow from what a report says, each in one line that can be typed."""

import shlex
from typing import NamedTuple

from mneme.options import counted
from mneme.report.places import place
from mneme.report.wording import affected, changed_everywhere, listed, outcome, side_effects
from mneme.results import Effect, Report

_DEFAULT_OUT = "runs/audit"
_OPEN_SHOWN = 4
"""Areas whose evidence is not enough that are named in a sentence; the page lists all of them."""


class Step(NamedTuple):
    """One thing to do."""

    why: str
    """A sentence."""
    command: str
    """Empty where nothing is to be typed."""


def next_steps(report: Report) -> list[Step]:
    """What a reader can do now, the most useful first."""
    kind = outcome(report)
    models = [place(report.pair.base), place(report.pair.tuned)]
    if kind == "silent":
        return [Step("The weights are equal: if they should not be, look whether TUNED is the folder that you meant.", "")]
    steps: list[Step] = []
    purpose = [effect.area for effect in report.effects if effect.intended]
    found = side_effects(report)
    if kind == "side-effects":
        measure = shlex.join(["mneme", "measure", *models, "--suite", "standard"])
        steps.append(Step("Ask both models, to see what this forecast comes to in answers.", measure))
        if found and not purpose:
            area = found[0].area
            why = f"If {area} was the purpose, say so: nothing is read again, and the rest are then the side effects."
            steps.append(Step(why, _again(report, ["--intended", area])))
        if found and purpose and report.latents:
            repair = shlex.join(["mneme", "repair", "--from", _out(report)])
            steps.append(Step(f"Take {listed([e.area for e in found])} out again and keep {listed(purpose)}.", repair))
    unsettled = [effect for effect in report.effects if effect.finding == "not enough evidence"]
    if unsettled and not changed_everywhere(report):
        steps.append(_more_text(report, unsettled))
    if kind == "contained" and not unsettled:
        gate = shlex.join(["mneme", "gate", _out(report), "--policy", "policy.yaml"])
        steps.append(Step("Keep it so: a gate in your pipeline, with what you allow in policy.yaml (docs/gate.md).", gate))
    return steps


def _more_text(report: Report, unsettled: list[Effect]) -> Step:
    names = listed([effect.area for effect in unsettled], _OPEN_SHOWN)
    if "--quick" in shlex.split(report.command or ""):
        return Step(
            f"Read all of the text, not the beginning alone: {names} may settle.", _again(report, [], without="--quick")
        )
    if report.corpus.self_written:
        return Step(f"Give text that people wrote: {names} may settle.", _again(report, ["--corpus", "your-text.jsonl"]))
    most = max((effect.more_passages or 0 for effect in unsettled), default=0)
    more = f", about {counted(most, 'passage')} more of each" if most else ""
    tokens = str(2 * report.corpus.tokens)
    return Step(f"Give more text about {names}{more}.", _again(report, ["--tokens", tokens], without="--tokens"))


def _again(report: Report, more: list[str], without: str = "") -> str:
    """The command of this report with more words, and without an option (and its value)."""
    words = [place(word) for word in shlex.split(report.command)] if report.command else _plain(report)
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
            continue
        if without and word == without:
            skip = without != "--quick"
            continue
        kept.append(word)
    return shlex.join([*kept, *more])


def _plain(report: Report) -> list[str]:
    return ["mneme", "audit", place(report.pair.base), place(report.pair.tuned), "--corpus", place(report.corpus.source)]


def _out(report: Report) -> str:
    words = shlex.split(report.command or "")
    return words[words.index("--out") + 1] if "--out" in words[:-1] else _DEFAULT_OUT


def not_judged(report: Report) -> list[Effect]:
    """Areas that were looked at and about which the evidence is not enough, those closest to being settled first."""
    found = [effect for effect in report.effects if effect.finding == "not enough evidence" and not affected(effect)]
    return sorted(found, key=lambda effect: effect.more_passages or float("inf"))


STEPS = {
    "Reading areas": ("words", "answers", "behaviours"),
    "Surveying the text": ("survey", "layers"),
    "Learning directions": ("dictionary",),
    "Checking directions": ("causal", "descriptions"),
    "Null checks": ("purposeless",),
}
"""The five steps of an audit, and how the names of their stages begin (docs/audit.md)."""


def steps_of(timings: dict[str, float]) -> dict[str, float]:
    """Seconds of each of the five steps that was taken; a stage that is none of theirs keeps its own name."""
    found: dict[str, float] = {}
    for stage, seconds in timings.items():
        name = next((step for step, begins in STEPS.items() if stage.startswith(begins)), stage.replace("_", " "))
        found[name] = found.get(name, 0.0) + seconds
    order = [*STEPS]
    return dict(sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order)))
