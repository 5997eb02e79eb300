"""`mneme dpo`: preference training that watches for displacement, filters its pairs, and can hold the chosen answers up."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mneme.cli.audit import require_device
from mneme.cli.importing import quick_imports
from mneme.cli.saying import say, say_json
from mneme.cli.stopping import OVERWRITE, stopped_with

if TYPE_CHECKING:
    from mneme.results.dpo import PreferenceRun


class Optimizer(StrEnum):
    """What moves the weights."""

    adamw = "adamw"
    rmsprop = "rmsprop"


class Filter(StrEnum):
    """Scores by which pairs can be filtered."""

    ln_ches = "ln-ches"
    ches = "ches"
    last_hidden = "last-hidden"
    edit = "edit"
    none = "none"


def dpo(
    model: Annotated[str, typer.Argument(help="The model to train: a folder or a hub name.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="Pairs (prompt, chosen, rejected): .jsonl or .parquet.", show_default=False)],
    filter_by: Annotated[
        Filter, typer.Option("--filter", metavar="|".join(Filter), help="Score by which pairs are left out.")
    ] = Filter.ln_ches,
    keep: Annotated[float, typer.Option(metavar="SHARE", help="Share of the pairs that the filter keeps.")] = 0.15,
    sft: Annotated[
        float, typer.Option(metavar="W", min=0, help="DPO+SFT: weight of the chosen answers' loss per token.")
    ] = 0.0,
    dpop: Annotated[float, typer.Option(metavar="W", min=0, help="DPOP: weight of their fall below the reference.")] = 0.0,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Reward calibration: rebalance the two gradients.")] = False,
    beta: Annotated[float, typer.Option(metavar="X", min=0, help="Of DPO.")] = 0.1,
    optimizer: Annotated[Optimizer, typer.Option(metavar="adamw|rmsprop", help="What moves the weights.")] = Optimizer.adamw,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", min=0, help="Learning rate.", show_default="5e-5, with --full 1e-6")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Steps.", show_default="one epoch")] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Pairs in a batch.")] = 16,
    accumulate: Annotated[int, typer.Option(metavar="N", min=1, help="Batches in a step.")] = 1,
    lora: Annotated[int, typer.Option(metavar="RANK", min=1, help="Rank of the adapter.")] = 16,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of an adapter.")] = False,
    watch: Annotated[int, typer.Option(metavar="N", min=2, help="Pairs that are watched.")] = 32,
    watch_every: Annotated[int, typer.Option(metavar="N", min=1, help="Steps between two looks.")] = 10,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model/ and preferences.json go.")] = Path("runs/dpo"),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print preferences.json to stdout; the rest goes to stderr.")] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A torch device: cpu, cuda, cuda:1, mps.")] = "cpu",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Train on preference pairs with TRL's DPO, and see whether the chosen answers become less likely.

    The same command after a kill goes on where it stopped.
    """
    with stopped_with(f"The same command goes on from the last checkpoint in {out}."):
        from mneme.terminal import Terminal

        with quick_imports():
            from mneme.dpo.run import dpo as run_dpo

        require_device(device)
        record = run_dpo(
            model,
            data,
            out=out,
            filter_by=None if filter_by is Filter.none else filter_by.value,
            keep=keep,
            sft=sft,
            dpop=dpop,
            calibrate=calibrate,
            beta=beta,
            optimizer=optimizer.value,
            learning_rate=lr,
            steps=steps,
            batch_pairs=batch,
            accumulate=accumulate,
            lora_rank=None if full else lora,
            watch=watch,
            watch_every=watch_every,
            seed=seed,
            device=device,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            console=Terminal(stderr=True),
        )
    if json:
        say_json(record.to_json())
    else:
        _print(record)
    say(f"Model: {out / 'model'}", err=json)


def _print(record: "PreferenceRun") -> None:
    """The watched pairs over time, then the tokens that rose."""
    from rich.table import Table

    from mneme.results import TooFew
    from mneme.terminal import Terminal

    console = Terminal()
    console.print(f"{record.trained_pairs} of {record.pairs} pairs trained on (filter: {record.filter}).", markup=False)
    table = Table(title="Watched pairs: change of log-probability, nats per answer", title_justify="left")
    for heading in ("step", "chosen", "rejected", "chosen fell", "in the band"):
        table.add_column(heading, justify="right")
    for look, band in zip(record.displacement, record.band, strict=True):
        changes = (look.chosen_change, look.rejected_change)
        bounds = [e.told() if isinstance(e, TooFew) else f"{e.low:+.2f}, {e.high:+.2f}" for e in changes]
        cells = [f"{e.plain:+.2f} [{told}]" for e, told in zip(changes, bounds, strict=True)]
        table.add_row(str(look.step), *cells, f"{look.displaced.plain:.0%}", "yes" if band.inside else "no")
    console.print(table)
    rising = ", ".join(f"{rise.token!r} (+{rise.rise:.3f})" for rise in record.displacement[-1].rising)
    console.print(f"Tokens that rose where the chosen answers stand: {rising or 'none'}.", markup=False)
