"""`mneme gate`: holds a finished run against a policy, prints what does not hold, ends with the answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mneme.cli.commands import from_options
from mneme.cli.endings import DONE, NOT_ENOUGH, REFUSED
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import answered, stopped_with
from mneme.gate.options import GateOptions

if TYPE_CHECKING:
    from mneme.results.gate import GateResult

CODES = {"pass": DONE, "fail": REFUSED, "not enough evidence": NOT_ENOUGH}
"""Exit code of every outcome."""
_SAID = {"fail": "fails", "not enough evidence": "open", "waived": "waived"}
"""In the terminal's table, whose rows are short."""


@from_options(GateOptions)
def gate(
    options: GateOptions,
    json: Json = False,
) -> None:
    """Hold a finished audit or measurement against a policy: exit 0 pass, 1 fail, 2 unusable, 3 not enough evidence.

    Writes gate.json, gate.md (for a job summary or a pull request) and junit.xml beside the run.
    """
    from mneme.gate.run import result_file, run_gate

    with stopped_with("Nothing was changed."):
        result = run_gate(options)
        out = Path(options.out) if options.out is not None else result_file(Path(options.run)).parent
        with answered(CODES[result.outcome]):
            if json:
                say_json(result.to_json())
            show_gate(result, out, err=json)
    if CODES[result.outcome] != DONE:
        raise typer.Exit(CODES[result.outcome])


def worst_code(results: "Sequence[GateResult]") -> int:
    """Of several gates: 1 where one fails, else 3 where one has not enough evidence, else 0."""
    codes = {CODES[result.outcome] for result in results}
    return next((code for code in (REFUSED, NOT_ENOUGH) if code in codes), DONE)


def show_gate(result: "GateResult", out: Path, *, err: bool = False) -> None:
    """Prints what does not hold, and where the files are."""
    from mneme.gate.outputs import by_outcome, gate_headline
    from mneme.report.wording import interval, magnitude
    from mneme.results import Estimate
    from mneme.terminal import Listing, Terminal

    console = Terminal(stderr=err)
    console.print(gate_headline(result), style="bold")
    shown = [check for check in by_outcome(result) if check.outcome != "pass"]
    if shown:
        table = Listing(("area", "", "limit", "found"), left=("", "limit"), short=("limit", "found"))
        for check in shown:
            found = check.found
            told = f"{magnitude(found)} {interval(found)}" if isinstance(found, Estimate) else check.reason
            table.add(check.area, _SAID[check.outcome], check.allowed, told)
        console.print(table)
    for note in result.notes:
        console.print(note, style="dim")
    say(f"Files: {out / 'gate.json'}, gate.md, junit.xml", err=err)
