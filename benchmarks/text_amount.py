"""One pair read with more and more text: do the effects agree, and does P fall with text?

    python benchmarks/text_amount.py [--tokens 5000,20000,80000,320000] [--out runs/text-amount] [--write]

The built-in pair (biology unlearned; chemistry is tied to it) and its text, audited without a dictionary. Finished audits are
kept and not repeated.
"""

import argparse
import itertools
from pathlib import Path

from rich.console import Console
from tables import markdown_table, write_section

from mneme.audit.run import BUILT_IN, audit
from mneme.options import Machine, Progress
from mneme.results.audit import Effect, Report
from mneme.worlds.catalogue import build_organism


def read(tokens: int, out: Path) -> Report:
    """The finished audit on this much of the text."""
    organism = build_organism(BUILT_IN)
    return audit(
        organism.base,
        organism.tuned,
        corpus=organism.corpus,
        areas=organism.areas,
        tokens=tokens,
        dictionary="none",
        out=out / str(tokens),
        machine=Machine(threads=1),
        progress=Progress(Console(quiet=True)),
    )


def cell(effect: Effect | None) -> str:
    """Points with their interval and P."""
    if effect is None:
        return "absent"
    chance = "open" if effect.probability is None else f"{effect.probability:.3f}"
    size = effect.magnitude
    return f"{100 * size.value:+.1f} [{100 * size.low:+.1f}, {100 * size.high:+.1f}], P {chance}"


def main() -> None:
    """Audits what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="5000,20000,80000,320000")
    parser.add_argument("--out", type=Path, default=Path("runs/text-amount"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    amounts = [int(number) for number in given.tokens.split(",")]
    reports = []
    for tokens in amounts:
        reports.append(read(tokens, given.out))
        print(tokens, reports[-1].corpus.tokens, reports[-1].verdict, flush=True)
    by_area = [{effect.area: effect for effect in report.effects} for report in reports]
    last = by_area[-1]
    rows = [[area, *(cell(found.get(area)) for found in by_area)] for area in last]
    judged, held, fell = 0, 0, []
    for less in by_area[:-1]:
        for area, effect in less.items():
            if area in last:
                judged += 1
                held += effect.magnitude.low <= last[area].magnitude.value <= effect.magnitude.high
    for area, effect in last.items():
        told = [found[area].probability for found in by_area if area in found]
        sure = [p for p in told if p is not None]
        if effect.finding == "affected" and any(after < before for before, after in itertools.pairwise(sure)):
            fell.append(area)
    head = ["area", *(f"{report.corpus.tokens:,} tokens" for report in reports)]
    note = (
        "Change of what is known, points, with its 95 % interval, and P(material). The interval read with less text holds the "
        f"value that is read with most in {held} of {judged} cases. Affected areas whose P falls with text: "
        f"{', '.join(fell) or 'none'}."
    )
    text = f"{note}\n\n{markdown_table(head, rows)}"
    print(text)
    if given.write:
        write_section("text-amount", "One pair, more and more text", "python benchmarks/text_amount.py --write", text)


if __name__ == "__main__":
    main()
