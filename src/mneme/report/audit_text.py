"""The terminal table: the same verdict, effects and words as the page, plain where the output is not a terminal."""

from rich.console import Console
from rich.text import Text

from mneme.plain import plain
from mneme.report import wording
from mneme.results import Effect, Report
from mneme.terminal import Listing

STYLES: dict[wording.Outcome, str] = {
    "side-effects": "bold red",
    "contained": "bold green",
    "silent": "bold green",
    "inconclusive": "bold yellow",
}
WIDE = 100
"""Columns of a terminal from which on the table also says which signal found an effect."""
QUIET_SHOWN = 20
"""Effects below the reported probability that the table still lists; the page has all."""


def _row(effect: Effect) -> tuple[Text, ...]:
    likely = wording.affected(effect)
    mark = "intended" if effect.intended else "side effect" if likely else (effect.finding or "")
    style = "dim" if not likely else "bold red" if effect.direction == "worse" and not effect.intended else "bold"
    return (
        Text(plain(effect.area), style=style),
        Text(wording.shown_chance(effect), style=style),
        Text(effect.direction if likely else ""),
        Text(wording.magnitude(effect.magnitude).split(" per ")[0], style="" if likely else "dim"),
        Text(wording.interval(effect.magnitude), style="dim"),
        Text(", ".join(filter(None, (mark, "self-written" if effect.self_written else "")))),
        Text(wording.FOUND_BY[effect.signal], style="dim"),
    )


def effects_table(report: Report, *, with_signal: bool = True) -> Listing:
    """One row an effect, most probable first; quiet ones beyond the first few are counted, not listed."""
    names = ["area", "P", "", "size", "95 % interval", " ", *(["found by"] if with_signal else [])]
    table = Listing(names, left=("", "95 % interval", " ", "found by"))
    quiet = 0
    for effect in wording.by_probability(report):
        quiet += not wording.affected(effect) and not effect.intended
        if quiet <= QUIET_SHOWN:
            table.add(*_row(effect)[: len(names)])
    return table


def _print_notes(report: Report, console: Console) -> None:
    """How models and text were read."""
    for number, note in enumerate(report.notes):
        console.print(Text(("" if number else "\n") + plain(note), style="dim"))


def _more_quiet(report: Report) -> int:
    """Effects that the table leaves out."""
    quiet = sum(not wording.affected(effect) and not effect.intended for effect in report.effects)
    return max(0, quiet - QUIET_SHOWN)


def print_report(report: Report, console: Console) -> None:
    """Prints verdict, effects with what stands behind each likely one, and what could not be judged."""
    kind = wording.outcome(report)
    console.print(Text(wording.TAGS[kind], style=STYLES[kind]))
    console.print(Text(plain(wording.headline(report)), style="bold"))
    console.print(Text(plain(report.reason)))
    if report.pair.outputs is not None and report.pair.outputs.same_to:
        console.print(Text(plain(wording.outputs_note(report))))
    if report.effects:
        if kind != "silent":
            console.print(Text(plain(wording.purpose_note(report)), style="dim"))
        console.print()
        console.print(effects_table(report, with_signal=console.width >= WIDE))
        if more := _more_quiet(report):
            console.print(Text(f"and {more} more that are not affected", style="dim"))
        if note := wording.family_note(report):
            console.print()
            console.print(Text(note, style="dim"))
    by_id = {latent.id: latent for latent in report.latents}
    for effect in wording.by_probability(report):
        found = [by_id[name] for name in effect.evidence if name in by_id][:3]
        if wording.affected(effect) and found:
            console.print()
            console.print(Text(f"Behind {plain(effect.area)}:", style="bold"))
            for latent in found:
                line = Text(plain(f"  {latent.id}  {wording.short(latent.description)}"))
                console.print(
                    line, no_wrap=True, overflow="ellipsis" if console.is_terminal else "ignore", crop=console.is_terminal
                )
    if report.absent:
        console.print()
        names = wording.listed([area.area for area in report.absent], 6)
        console.print(Text(plain(f"Nothing can be said about {names}: see the page for the reasons."), style="dim"))
    _print_notes(report, console)
