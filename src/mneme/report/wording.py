"""The words and number formats that the page and the terminal table share, so that both say the same thing.

Units: an estimate whose unit is accuracy, rate, share or probability holds fractions and is shown in points (x 100);
a unit that starts with "point" already holds points; everything else (nats per token) is shown as it is, with its unit.
"""

import math
import re
import shlex
from typing import Literal

from mneme.options import counted
from mneme.report.places import place
from mneme.results import KNOWN_UNIT, Direction, Effect, Estimate, Report, TooFew
from mneme.results.audit import AFFECTED_AS_A_WHOLE, BROKEN_AS_A_WHOLE

REPORTED = 0.5
"""An effect counts in the verdict sentence from this probability on: more likely than not."""

MINUS = "\N{MINUS SIGN}"
Outcome = Literal["side-effects", "contained", "silent", "inconclusive"]
_HARDLY = 0.9
"""Share of a power above which another is not worth a word."""
FRACTIONS = ("accuracy", "rate", "share", "probability", "fraction")
GOT: dict[Direction, str] = {
    "worse": "got worse",
    "better": "got better",
    "more": "became more likely",
    "less": "became less likely",
    "changed": "changed",
}
FOUND_BY = {
    "likelihood": "likelihood",
    "latents": "latents",
    "both": "likelihood, latents",
    "none": "no signal",
}
TAGS: dict[Outcome, str] = {
    "side-effects": "Side effects found",
    "contained": "No side effect found",
    "silent": "No difference",
    "inconclusive": "Inconclusive",
}


def number(value: float | int, digits: int = 2, *, signed: bool = False) -> str:
    """`value` with a true minus sign and about `digits` significant digits, never in scientific notation above 1e-4."""
    if value == 0:
        return "0"
    if abs(value) >= 10**6 or abs(value) < 1e-4:
        text = f"{value:.{max(digits - 1, 0)}e}".replace("e-0", "e-").replace("e+0", "e")
    else:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
    return ("+" if signed and value > 0 else "") + text.replace("-", MINUS)


def shown_probability(value: float | int | None) -> str:
    """A probability with two decimals that never pretends to certainty: '>0.99', '<0.01'; exactly 0 stays '0'; None is
    'uncalibrated'."""
    if value is None:
        return "uncalibrated"
    if value == 0:
        return "0"
    if value > 0.99:
        return ">0.99"
    return "<0.01" if value < 0.01 else f"{value:.2f}"


def shown_chance(effect: Effect) -> str:
    """P of an effect. 'open' where the evidence is not enough to settle the area. Reports of earlier versions have a P there,
    and a small one is no sign that nothing happened."""
    unsettled = effect.finding == "not enough evidence" and effect.calibrated
    if unsettled and (effect.probability is None or effect.probability < REPORTED):
        return "open"
    return shown_probability(effect.probability)


def percent(value: float | int) -> str:
    """A fraction in percent with two significant digits: 0.0042 -> '0.42 %'."""
    scaled = 100 * value
    return f"{f'{scaled:.0f}'.replace('-', MINUS) if abs(scaled) >= 10 else number(scaled)} %"


def factor(unit: str) -> float:
    """What an estimate of this unit is multiplied by before it is shown."""
    return 100.0 if set(unit.lower().split()) & set(FRACTIONS) and "point" not in unit.lower() else 1.0


def unit_name(unit: str) -> str:
    """The unit as it is shown: fractions are shown in points."""
    return "points" if factor(unit) != 1.0 or unit.lower().startswith("point") else unit


def measured_in(unit: str) -> str:
    """What the points are points of: 'points of accuracy'; other units as they are."""
    return f"points of {unit}" if factor(unit) != 1.0 else unit


def _shown(estimate: Estimate, value: float, *, signed: bool) -> str:
    """`value` with the decimals of the whole estimate: tenths of a point only where everything is below 10 points."""
    scaled = value * factor(estimate.unit)
    if unit_name(estimate.unit) != "points":
        return number(scaled, signed=signed)
    largest = factor(estimate.unit) * max(abs(estimate.value), abs(estimate.low), abs(estimate.high))
    text = f"{scaled:.{0 if largest >= 10 else 1}f}"
    if not text.strip("-0."):
        return "0"
    return ("+" if signed and scaled > 0 else "") + text.replace("-", MINUS)


def magnitude(estimate: Estimate, *, signed: bool = True) -> str:
    """'−46 points', '+0.31 nats per token'."""
    return f"{_shown(estimate, estimate.value, signed=signed)} {unit_name(estimate.unit)}".strip()


def interval(estimate: Estimate, *, signed: bool = True) -> str:
    """'[−52, −40]', in the unit of `magnitude`."""
    low, high = (_shown(estimate, bound, signed=signed) for bound in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def share_interval(estimate: Estimate) -> str:
    """A share with its interval in percent: '34 % [28, 40]'."""
    value, low, high = (f"{round(100 * x)}".replace("-", MINUS) for x in (estimate.value, estimate.low, estimate.high))
    return f"{value} % [{low}, {high}]"


def share(estimate: Estimate | TooFew) -> str:
    """A share as whole percent: '34 %'."""
    return f"{round(100 * estimate.plain)} %".replace("-", MINUS)


def share_range(estimate: Estimate | TooFew) -> str:
    """Its interval in percent, '[28, 40]', or 'too few (3 texts, 8 needed)'."""
    if isinstance(estimate, TooFew):
        return estimate.told()
    low, high = (f"{round(100 * bound)}".replace("-", MINUS) for bound in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def nats(estimate: Estimate | TooFew, *, signed: bool = True) -> str:
    """Nats, or any figure that is shown as it is."""
    return number(estimate.plain, signed=signed)


def nats_range(estimate: Estimate | TooFew, *, signed: bool = True) -> str:
    """Their interval, or why there is none."""
    if isinstance(estimate, TooFew):
        return estimate.told()
    return f"[{number(estimate.low, signed=signed)}, {number(estimate.high, signed=signed)}]"


def figure_name(key: str) -> str:
    """The name of a whole-corpus figure for people: 'kl_tuned_to_base' -> 'KL tuned to base'."""
    known = {"kl": "KL", "nll": "loss"}
    return " ".join(known.get(word, word) for word in key.split("_"))


def seconds(value: float | int) -> str:
    """'8.4 s', '2 min 40 s', '3 h 05 min'."""
    if value < 60:
        return f"{number(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: float | int) -> str:
    """Bytes for people, powers of 1000: '3.1 GB'."""
    power = 0
    while value >= 1000 and power < 4:
        value, power = value / 1000, power + 1
    return f"{number(value)} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def cut(text: str, longest: int) -> str:
    """`text` in at most `longest` characters: cut behind a word and ended by an ellipsis where it is longer. A single word
    that is longer is cut itself."""
    whole = " ".join(text.split())
    if len(whole) <= longest:
        return whole
    begun = whole[:longest]
    words = begun[: begun.rfind(" ")] if " " in begun else begun[: longest - 1]
    return words.rstrip(" ,;:–-") + "…"


def cut_lines(text: str, longest: int) -> str:
    """The same for text whose lines are kept, such as a prompt as a model read it."""
    if len(text) <= longest:
        return text
    begun = text[:longest]
    ends = max(begun.rfind(" "), begun.rfind("\n"))
    return (begun[:ends] if ends > 0 else begun[: longest - 1]).rstrip() + "…"


def short(description: str, longest: int = 100) -> str:
    """The first clause of a description, for lists; where it stands open the whole is shown."""
    return cut(description.split("; ")[0].strip(), longest)


def together(text: str) -> str:
    """A headline whose numbers stay on one line with their units."""
    return re.sub(r"(?<=\d) (?=%|points?\b|nats\b)", "\N{NO-BREAK SPACE}", text)


def listed(names: list[str], limit: int = 3) -> str:
    """'a', 'a and b', 'a, b and c', 'a, b, c and 4 more'."""
    shown = names[:limit]
    if len(names) > limit:
        shown.append(f"{len(names) - limit} more")
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def affected(effect: Effect) -> bool:
    """The area is said to be affected; where nothing was judged (unlisted effects), it is more likely than not."""
    return effect.finding == "affected" if effect.finding else effect.reaches(REPORTED)


def said_of(effect: Effect) -> str:
    """The verdict on one area, with what would settle it and what would have been found: 'unaffected; a change of 7 points
    would have been found', 'not enough evidence: about 40 more passages; ...'."""
    if effect.finding is None:
        return ""
    if effect.finding == "affected":
        return effect.finding + (", beyond the others" if effect.beyond else "")
    more = f": about {counted(effect.more_passages, 'more passage')}" if effect.more_passages else ""
    return f"{effect.finding}{more}{_would_be_found(effect)}"


def _would_be_found(effect: Effect) -> str:
    """The change that the area would have shown, beside a verdict that shows none; nothing where it was not asked for."""
    if effect.q_value is None:
        return ""
    if effect.power is None:
        return "; no change would have been found"
    alone = easier(effect)
    return f"; a change of {number(100 * effect.power)} points would have been found{f' ({alone})' if alone else ''}"


def easier(effect: Effect) -> str:
    """The smaller change that would have been found where it comes word by word; nothing where that is hardly another."""
    if effect.power is None or effect.power_singly is None or effect.power_singly > _HARDLY * effect.power:
        return ""
    return f"{number(100 * effect.power_singly)} where words change one by one"


def side_effects(report: Report) -> list[Effect]:
    """Affected areas outside the named purpose, most probable first."""
    return [e for e in by_probability(report) if not e.intended and affected(e)]


def by_probability(report: Report) -> list[Effect]:
    """Effects, most probable first (`Effect.standing`); equal ones in the order of the report."""
    return sorted(report.effects, key=lambda effect: -effect.standing)


def outcome(report: Report) -> Outcome:
    """What the reader must decide on, in one of four words."""
    if report.verdict == "no detectable change":
        return "silent"
    if report.verdict == "inconclusive":
        return "inconclusive"
    return "side-effects" if side_effects(report) or changed_everywhere(report) else "contained"


def changed_everywhere(report: Report) -> bool:
    """No single area is affected, but all of them together are."""
    nothing = not any(affected(effect) for effect in report.effects)
    everything = report.broad is not None or broken_as_a_whole(report) or affected_as_a_whole(report)
    return report.verdict == "change" and everything and nothing


def broken_as_a_whole(report: Report) -> bool:
    """All text became so unlikely to the tuned model that single areas say little."""
    return report.reason.startswith(BROKEN_AS_A_WHOLE)


def affected_as_a_whole(report: Report) -> bool:
    """Ordinary text became less likely by more than the margin, though no area is told apart."""
    return report.reason.startswith(AFFECTED_AS_A_WHOLE)


def _change(effect: Effect) -> str:
    name = effect.area if effect.kind != "unlisted" else f"“{effect.area}”"
    points = unit_name(effect.magnitude.unit) == "points" and not magnitude(effect.magnitude).startswith("0 ")
    return f"{name} {GOT[effect.direction]}" + (f" ({magnitude(effect.magnitude)})" if points else "")


def headline(report: Report) -> str:
    """The verdict as one plain sentence: what moved outside the purpose, which way and how far."""
    kind = outcome(report)
    found = side_effects(report)
    purpose = [e.area for e in by_probability(report) if e.intended]
    if kind == "silent":
        return "The two models are the same: this audit cannot detect any difference."
    if broken_as_a_whole(report):
        return "The tuned model is broken as a whole: ordinary text became unlikely to it."
    if affected_as_a_whole(report):
        return "The tuned model is affected as a whole: ordinary text became less likely to it."
    if changed_everywhere(report) and report.broad is not None:
        known = " of what is known" if report.broad.unit == KNOWN_UNIT else ""
        return f"Everything changed ({magnitude(report.broad)}{known}), no area more than the others."
    if report.verdict == "no material change":
        return "The models differ, and every area is shown to be unaffected."
    if kind == "inconclusive":
        return "The models differ, but the evidence does not say where."
    if kind == "contained":
        if purpose:
            return f"The change stays within its purpose, {listed(purpose)}."
        return "The models differ, but no area is affected."
    beyond = f"Beyond its purpose ({listed(purpose)}), " if purpose else ""
    sentence = f"{beyond}{listed([_change(e) for e in found])}."
    return sentence[0].upper() + sentence[1:]


def purpose_note(report: Report) -> str:
    """How intended and unintended effects were told apart."""
    purpose = [e.area for e in report.effects if e.intended]
    missed = [e.area for e in report.effects if e.intended and not affected(e)]
    if purpose:
        unseen = f" This audit sees no effect in {listed(missed, 6)}." if missed else ""
        return f"Named as the purpose of the fine-tune: {listed(purpose, 6)}.{unseen}"
    return "No area was named as the purpose of the fine-tune, so every effect counts as a side effect."


def outputs_note(report: Report) -> str:
    """How far the two are from saying the same, on a probe of a few tokens; empty where nothing was asked."""
    seen = report.pair.outputs
    if seen is None:
        return ""
    far = f"KL {number(seen.kl)} nats a token, logits up to {percent(seen.largest)} apart"
    if seen.same_to:
        return f"One model in two formats: no weight differs by more than {seen.same_to} rounds off ({far} on a probe text)."
    if seen.first_layer is None:
        return f"On a probe text: {far}; no block before the output differs by more than rounding."
    return (
        f"On a probe text: {far}; the first block behind which they differ is {seen.first_layer}, by {percent(seen.relative)}."
    )


def family_note(report: Report) -> str:
    """How many claims about areas were corrected for, and what the areas that are not affected would have shown; empty where
    no area has an interval."""
    judged = [effect for effect in report.effects if effect.q_value is not None]
    if not judged:
        return ""
    # Reports of earlier versions do not say it: there every area was read in one way.
    claims = report.claims or len(judged) + sum(effect.excess is not None for effect in judged)
    told = f"False discoveries are held at 5 % over the {claims} claims made of areas."
    quiet = [effect for effect in judged if not affected(effect)]
    silent = [effect.power for effect in quiet if effect.power is not None]
    blind = len(quiet) - len(silent)
    none = f" In {counted(blind, 'of them', 'of them')} none would have been." if blind else ""
    if not silent:
        return told
    least, most = percent(min(silent)), percent(max(silent))
    seen = least if least == most else f"{least} to {most}"
    # In simulated audits such losses are found in 75 to 93 % (docs/benchmarks.md), so no more is said than "about".
    power = "however it comes (power about 80 %, by simulation)"
    return f"{told} In areas that are not affected a loss of {seen} would probably have been found, {power}.{none}"


def shown_command(command: str) -> str:
    """A command as a page shows it, quoted for a shell: absolute paths by their names alone."""
    return shlex.join(place(word) for word in shlex.split(command))


def command(report: Report) -> str:
    """The command that makes this report again, quoted for a shell; absolute paths by their names alone."""
    if report.command:
        return shown_command(report.command)
    words = ["mneme", "audit", place(report.pair.base), place(report.pair.tuned), "--corpus", place(report.corpus.source)]
    words += ["--dictionary", report.environment.dictionary, "--seed", str(report.environment.seed)]
    for area in (e.area for e in report.effects if e.intended):
        words += ["--intended", area]
    return shlex.join(words)
