"""The terminal table: the same verdict, effects and words as the page, plain where the output is not a terminal."""

from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mneme.plain import plain
from mneme.report import wording
from mneme.results import Effect, Report

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
        Text(mark),
        Text(wording.FOUND_BY[effect.signal], style="dim"),
    )


def _longest_word(report: Report) -> int:
    """So wide that no word of an area's name is cut, at most 24."""
    return min(24, max((len(word) for effect in report.effects for word in effect.area.split()), default=1))


def effects_table(report: Report, *, with_signal: bool = True) -> Table:
    """One row an effect, most probable first; quiet ones beyond the first few are counted, not listed."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    names = ["area", "P", "", "size", "95 % interval", "", *(["found by"] if with_signal else [])]
    for name in names:
        justify: Literal["left", "right"] = "right" if name in ("P", "size") else "left"
        table.add_column(
            name,
            justify=justify,
            no_wrap=name not in ("area", "", "found by"),
            min_width=_longest_word(report) if name == "area" else None,
            header_style="dim",
        )
    quiet = 0
    for effect in wording.by_probability(report):
        quiet += not wording.affected(effect) and not effect.intended
        if quiet <= QUIET_SHOWN:
            table.add_row(*_row(effect)[: len(table.columns)])
    if quiet > QUIET_SHOWN:
        table.add_row(Text(f"and {quiet - QUIET_SHOWN} more that are not affected", style="dim"))
    return table


def _print_notes(report: Report, console: Console) -> None:
    """How models and text were read."""
    for number, note in enumerate(report.notes):
        console.print(Text(("" if number else "\n") + plain(note), style="dim"))


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
