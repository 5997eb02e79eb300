"""`mneme card`: writes the model-card section of a finished audit and its badge."""

from pathlib import Path

from mneme.card.options import CardOptions
from mneme.cli.commands import from_options
from mneme.cli.saying import say
from mneme.cli.stopping import stopped_with


@from_options(CardOptions)
def card(
    options: CardOptions,
) -> None:
    """Write the section of a model card, its metadata and a badge of a finished audit; --into puts them into a README.md."""
    from mneme.card.run import run_card

    with stopped_with("Nothing was changed."):
        made = run_card(options)
    run = Path(options.run)
    out = Path(options.out) if options.out is not None else (run if run.is_dir() else run.parent)
    for line in made.section.splitlines():
        say(line)
    say(f"Card: {out / 'card.md'}", err=True)
    say(f"Badge: {out / 'badge.svg'}", err=True)
    if options.into is not None:
        say(f"Put into: {options.into}", err=True)
