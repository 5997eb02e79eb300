"""`mneme repair`: undoes a side effect, keeps what the fine-tune was for, and shows what both cost."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mneme.cli.audit import require_device
from mneme.cli.importing import quick_imports
from mneme.cli.saying import say, say_json
from mneme.cli.stopping import OVERWRITE, stopped_with

if TYPE_CHECKING:
    from mneme.results.repair import RepairReport


class RepairName(StrEnum):
    """The ladder, or one of its methods."""

    ladder = "ladder"
    scale = "scale"
    random = "random"
    antidote = "antidote"
    wanda_delta = "wanda-delta"
    project = "project"
    arithmetic = "arithmetic"
    obs = "obs"
    regmean = "regmean"
    patch = "patch"
    retrain = "retrain"
    ablate = "ablate"


def repair(
    base: Annotated[str | None, typer.Argument(help="The model before: a folder or a hub name.", show_default=False)] = None,
    tuned: Annotated[
        str | None, typer.Argument(help="The model after: a folder, a hub name or an adapter folder.", show_default=False)
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text on which the model shall be as the base again.", show_default=False),
    ] = None,
    retain: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Text of the purpose, on which it shall stay as tuned.", show_default=False),
    ] = None,
    other: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ordinary text, to measure drift on.", show_default=False)
    ] = None,
    from_run: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="A finished audit: models and text come from it.", show_default=False),
    ] = None,
    method: Annotated[
        RepairName, typer.Option(metavar="NAME", help="ladder tries all; the controls scale and random always run.")
    ] = RepairName.ladder,
    close: Annotated[
        float, typer.Option("--close", "--budget", metavar="SHARE", help="Share of the gap to close, and no more.")
    ] = 0.8,
    unaligned: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model before alignment: for project and arithmetic.", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of patch and retrain.")] = 60,
    lr: Annotated[float, typer.Option(metavar="RATE", min=0, help="Learning rate of patch and retrain.")] = 2e-3,
    retain_weight: Annotated[
        float, typer.Option(metavar="X", min=0, help="retrain: how hard it is held to TUNED on retained text; 0: not at all.")
    ] = 1.0,
    no_reaudit: Annotated[bool, typer.Option("--no-reaudit", help="With --from: do not audit the repaired model.")] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model/, repair.html and repair.json go.")] = Path(
        "runs/repair"
    ),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print repair.json to stdout; everything else goes to stderr.")] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A torch device: cpu, cuda, cuda:1, mps.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of torch; without it, all cores.", show_default=False)
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Undo a side effect and keep the purpose: the weakest repair that closes a stated share of the gap, and its cost.

    Exit code 1 where no method closes that share; then no model is written. The same command after a kill goes on.
    """
    with stopped_with(f"The same command goes on where it stopped; finished strengths are in {out}."):
        from mneme.terminal import Terminal

        with quick_imports():
            from mneme.repair.run import repair as run_repair

        require_device(device)
        report = run_repair(
            base,
            tuned,
            target=target,
            retain=retain,
            other=other,
            from_run=from_run,
            method=method.value,
            close=close,
            out=out,
            unaligned=unaligned,
            steps=steps,
            learning_rate=lr,
            retain_weight=retain_weight,
            reaudit=not no_reaudit,
            seed=seed,
            threads=threads,
            device=device,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            console=Terminal(stderr=True),
        )
        show_repair(report, out, json=json)
    if report.chosen is None:
        say(f"mneme: no method closes {close:g} of the gap; no model was written.", err=True)
        raise typer.Exit(1)


def show_repair(report: "RepairReport", out: Path, *, json: bool) -> None:
    """Writes the page of a finished repair in `out`; prints the report, as JSON or as a table, and where the page is."""

    from mneme.report.repair import print_repair, render_repair
    from mneme.runs import add_file
    from mneme.terminal import Terminal

    page = add_file(out, "repair.html", render_repair(report).encode())
    if json:
        say_json(report.to_json())
    else:
        print_repair(report, Terminal())
        say()
    say(f"Page: {page}", err=json)
    if report.saved is not None:
        say(f"Repaired {report.saved.kind}: {out / report.saved.folder}", err=json)
