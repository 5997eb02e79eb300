"""`mneme screen`: which training rows or preference pairs will do harm, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mneme.cli.audit import require_device
from mneme.cli.importing import quick_imports
from mneme.cli.saying import say, say_json
from mneme.cli.stopping import OVERWRITE, stopped_with

if TYPE_CHECKING:
    from mneme.results import Estimate
    from mneme.results.screen import RowScreening


def screen(
    model: Annotated[str, typer.Argument(help="The model that would be trained: a folder or a hub name.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="Training rows or pairs: .jsonl or .parquet.", show_default=False)],
    pairs: Annotated[bool, typer.Option("--pairs", help="The data are preference pairs: prompt, chosen, rejected.")] = False,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Rows: gradient, projection, projection-prompt, gap. Pairs: ln-ches, ches, last-hidden, edit. May be "
            "repeated; the first ranks.",
            show_default="gradient, with --pairs ln-ches",
        ),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the data that is kept.", show_default="0.8, with --pairs 0.15"),
    ] = None,
    unwanted: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows that show what is unwanted.", show_default=False)
    ] = None,
    wanted: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rows that show the opposite.", show_default=False)
    ] = None,
    vector: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A direction for projection: safetensors, one vector.", show_default=False),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Layer of the direction, from 0.", show_default=False)
    ] = None,
    other: Annotated[
        str | None, typer.Option(metavar="MODEL", help="For gap: a model that has the behaviour.", show_default=False)
    ] = None,
    trial_steps: Annotated[
        int, typer.Option(metavar="N", min=0, help="Steps of the trial trainings; 0 leaves them out.")
    ] = 40,
    trial_lr: Annotated[float, typer.Option(metavar="RATE", min=0, help="Learning rate of the trial trainings.")] = 2e-4,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where ranked.jsonl, kept.jsonl and screening.json go.")] = Path(
        "runs/screen"
    ),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print screening.json to stdout; everything else goes to stderr.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A torch device: cpu, cuda, cuda:1, mps.")] = "cpu",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Rank training rows or preference pairs by the harm to expect of them, keep the rest, and measure what that buys.

    The same command after a kill goes on where it stopped.
    """
    with stopped_with(f"The same command goes on where it stopped; finished stages are in {out}."):
        from mneme.terminal import Terminal

        with quick_imports():
            from mneme.screen.run import screen as run_screen

        require_device(device)
        screening = run_screen(
            model,
            data,
            out=out,
            pairs=pairs,
            scores=score or [],
            keep=keep,
            unwanted=unwanted,
            wanted=wanted,
            vector=vector,
            layer=layer,
            other=other,
            trial_steps=trial_steps,
            trial_rate=trial_lr,
            seed=seed,
            device=device,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            console=Terminal(stderr=True),
        )
    if json:
        say_json(screening.to_json())
    else:
        _print(screening)
    say(f"Kept: {out / 'kept.jsonl'}", err=json)


def _print(screening: "RowScreening") -> None:
    """The most suspect rows, then what filtering buys."""
    from rich.table import Table
    from rich.text import Text

    from mneme.terminal import Terminal

    console = Terminal()
    name = screening.ranked_by
    table = Table(title=f"{screening.rows} {screening.kind}, the most suspect first", title_justify="left")
    for heading in ("row", name, "question", "answer"):
        table.add_column(heading, overflow="ellipsis", no_wrap=True)
    for row in screening.top:
        table.add_row(str(row.row), f"{row.scores[name]:.4g}", Text(row.question), Text(row.answer))
    console.print(table)
    console.print(f"{screening.kept} of {screening.rows} kept. {name}: {_unit(screening)}.", markup=False)
    value = screening.value
    if value is None:
        console.print(f"What filtering buys was not measured: {screening.no_value}.", markup=False)
        return
    console.print(f"Trial of {value.steps} steps on each; {value.measure}:", markup=False)
    for arm in value.arms:
        console.print(f"  {arm.name:7} {arm.rows:6} {screening.kind}  {_interval(arm.shift)}", markup=False)
    if value.avoided is None:
        console.print("The whole data does not shift it clearly, so there is nothing to avoid.", markup=False)
    elif value.avoided_at_random is not None:
        console.print(
            f"Filtering avoids {_interval(value.avoided)} of it; dropping as many at random "
            f"{_interval(value.avoided_at_random)}.",
            markup=False,
        )


def _unit(screening: "RowScreening") -> str:
    return next(summary.unit for summary in screening.scores if summary.name == screening.ranked_by)


def _interval(estimate: "Estimate") -> str:
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
