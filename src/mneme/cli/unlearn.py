"""`mneme unlearn`: makes a model forget a text, keeps another, and says what is gone and whether it comes back."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mneme.cli.again import asked_again
from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import Json, say, say_json
from mneme.cli.stopping import working
from mneme.unlearn.options import UnlearnOptions

if TYPE_CHECKING:
    from mneme.results import Estimate, TooFew
    from mneme.results.unlearn import Unlearning


@from_options(UnlearnOptions)
def unlearn(
    options: UnlearnOptions,
    json: Json = False,
) -> None:
    """Make a model forget a text and keep another; fails, and writes no model, where the text is still known.

    The same command after a kill goes on at its last checkpoint. Audit the result for what went with it.
    """
    with working(options.machine, f"The same command goes on where it stopped; the state of training is in {options.out}."):
        with quick_imports():
            from mneme.unlearn.run import run_unlearn

        result = run_unlearn(options)
    show_unlearning(result, Path(options.out), json=json)


def show_unlearning(result: "Unlearning", out: Path, *, json: bool) -> None:
    """Writes the page of a finished run in `out`; prints it, as JSON or line by line, where page and model are, and how to
    audit it."""
    from mneme.report.unlearn import render_unlearning
    from mneme.runs import add_file

    page = add_file(out, "unlearn.html", render_unlearning(result, asked_again(out, "unlearn", UnlearnOptions)).encode())
    if json:
        say_json(result.to_json())
    else:
        for line in lines_of(result):
            say(line)
    words = shlex.join(["mneme", "audit", result.model, str(out / result.result)])
    say(f"Page: {page}", err=json)
    say(f"Model: {out / result.result}", err=json)
    say(f"Audit it: {words} --corpus FILE", err=json)


def lines_of(result: "Unlearning") -> list[str]:
    """What a finished run says on a terminal: one line a figure, each with interval and number of texts."""
    from mneme.options import counted
    from mneme.report.unlearn_view import unlearning_headline
    from mneme.results import Estimate

    settings = result.settings
    tensors = f"{result.weights.changed_tensors} of {counted(result.weights.total_tensors, 'tensor')}"
    lines = [
        unlearning_headline(result),
        f"{settings.method}, {counted(settings.steps, 'step')} at {settings.learning_rate:.2g}: {tensors} changed, by "
        f"{result.weights.relative:.2%} of their norm.",
    ]
    for name, change in (("forget", result.forget), ("retain", result.retain)):
        recalled = "nothing was recalled of it" if change.kept is None else f"kept {_share(change.kept)} of what was recalled"
        moved = change.change
        bounds = f"[{moved.low:+.3f}, {moved.high:+.3f}]" if isinstance(moved, Estimate) else f"[{moved.told()}]"
        lines.append(
            f"{name}: {recalled}; {change.nll_before.plain:.3f} -> {change.nll_after.plain:.3f} nats per token "
            f"({moved.plain:+.3f} {bounds}, {counted(moved.n, 'text')})"
        )
    for attack in result.relearning:
        before, after = (_share(share) if share else "none" for share in (attack.kept_before, attack.kept_after))
        texts = counted(attack.documents, f"{attack.kind} text")
        lines.append(f"relearning from {texts}: kept {before} -> {after} of what was recalled of unseen texts")
    return lines


def _share(share: "Estimate | TooFew") -> str:
    from mneme.results import TooFew

    return f"{share.plain:.1%} " + (
        f"[{share.told()}]" if isinstance(share, TooFew) else f"[{share.low:.1%}, {share.high:.1%}]"
    )
