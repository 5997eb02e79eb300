"""`mneme verify`: hashes and computes a finished audit again, prints what holds, ends with 1 where something was changed."""

from typing import TYPE_CHECKING

import typer

from mneme.cli.commands import from_options
from mneme.cli.endings import DONE, REFUSED
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import answered, stopped_with
from mneme.verify.options import VerifyOptions

if TYPE_CHECKING:
    from mneme.results.verify import Verification


@from_options(VerifyOptions)
def verify(
    options: VerifyOptions,
    json: Json = False,
) -> None:
    """Check a finished audit that somebody else made: hashes of models, text and options, and every figure computed again.

    Offline, without torch. Exit 0 where nothing that was looked at was changed, 1 where something was.
    """
    with stopped_with("Nothing was changed."):
        with quick_imports():
            from mneme.verify.run import run_verify

        found = run_verify(options)
        code = DONE if found.verified else REFUSED
        with answered(code):
            if json:
                say_json(found.to_json())
            else:
                show_verification(found)
    if code != DONE:
        raise typer.Exit(code)


def show_verification(found: "Verification") -> None:
    """One line a part, and the digest that a sender can tell."""
    from mneme.terminal import Terminal

    console = Terminal()
    changed = [check.what for check in found.checks if check.outcome == "changed"]
    said = "Verified: nothing that was looked at was changed." if found.verified else f"Changed: {', '.join(changed)}."
    console.print(said, style="bold")
    for check in found.checks:
        console.print(f"{check.what:20} {check.outcome:12} {check.detail}", style="" if check.outcome != "changed" else "red")
    say(f"SHA-256 of the manifest: {found.manifest_sha256}")
