"""`mneme audit`: predicts the side effects of a fine-tune, prints them, writes the page."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mneme.cli.importing import quick_imports
from mneme.cli.saying import say, say_json
from mneme.cli.stopping import OVERWRITE, stopped_with
from mneme.errors import BadOption

if TYPE_CHECKING:
    from mneme.results import Report


class Kind(StrEnum):
    """The dictionaries that can be trained on the change, or none."""

    change = "change"
    rotated = "rotated"
    batchtopk = "batchtopk"
    delta = "delta"
    none = "none"


class Precision(StrEnum):
    """Of matrix products."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def parse_layers(text: str | None) -> list[int] | None:
    """'2,3' -> [2, 3], each once, ascending; None stays None. Raises BadOption for anything else."""
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BadOption(
            f"--layers {text!r} is no list of layers. Expected numbers with commas, for example --layers 2,3."
        ) from None


def require_device(name: str) -> None:
    """Raises BadOption where torch cannot put a tensor on the device `name`; neither the CPU nor `auto` is asked."""
    if name in ("cpu", "auto"):
        return
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise BadOption(
            f"--device {name!r} cannot be used here: {reason}. Use cpu, or a device that this torch has."
        ) from error


def is_first_process() -> bool:
    """True but in processes 1, 2 … that torchrun started beside this one: only the first prints and writes pages."""
    return os.environ.get("RANK", "0") == "0"


def unintended(report: "Report", threshold: float) -> list[str]:
    """'area (P 0.93)' of every effect outside the named purpose whose probability reaches `threshold`."""
    found = [e for e in report.effects if not e.intended and e.probability >= threshold]
    return [f"{e.area} (P {e.probability:.2f})" for e in sorted(found, key=lambda e: -e.probability)]


def audit(
    base: Annotated[str | None, typer.Argument(help="The model before: a folder or a hub name.", show_default=False)] = None,
    tuned: Annotated[
        str | None, typer.Argument(help="The model after: a folder, a hub name or an adapter folder.", show_default=False)
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="Ordinary text: .txt, .jsonl, .parquet or a datasets name.", show_default=False
        ),
    ] = None,
    areas: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML list of areas; without it, the list that ships.", show_default=False),
    ] = None,
    intended: Annotated[
        list[str] | None, typer.Option(metavar="AREA", help="What the fine-tune was for; may be repeated.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where report.html and report.json go.")] = Path("runs/audit"),
    fail_on: Annotated[
        float | None,
        typer.Option(metavar="P", min=0, max=1, help="Exit with 1 when an unintended effect reaches P.", show_default=False),
    ] = None,
    dictionary: Annotated[
        Kind,
        typer.Option(metavar="change|rotated|batchtopk|delta|none", help="What is learned on the change; none: effects only."),
    ] = Kind.change,
    layers: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Layers to read, from 0; without it, the survey chooses.", show_default=False),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Read at most this many tokens.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")] = 0,
    describe: Annotated[
        str,
        typer.Option(metavar="offline|URL", help="How latents get their words: offline, or an OpenAI-compatible endpoint."),
    ] = "offline",
    json: Annotated[bool, typer.Option("--json", help="Print report.json to stdout; everything else goes to stderr.")] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A torch device: cpu, cuda, cuda:1; auto: all GPUs.")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(metavar="auto|float32|bfloat16", help="Of matrix products; auto: bfloat16 on GPUs only.")
    ] = Precision.auto,
    attention: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="transformers' attn_implementation, such as flash_attention_2.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of torch; without it, all cores.", show_default=False)
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what the run would take, before any weight is loaded, and stop.")
    ] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first answer: 8,192 tokens, few questions, no dictionary.")
    ] = False,
) -> None:
    """Predict which areas a fine-tune reached beyond its purpose, from the two models and ordinary text alone.

    Without models it audits the built-in pair. The same command after a kill goes on where it stopped.
    """
    chosen = parse_layers(layers)
    with stopped_with(f"The same command goes on where it stopped; finished stages are in {out}."):
        from mneme.terminal import Terminal

        with quick_imports():
            from mneme.audit.run import audit as run_audit

        require_device(device)
        if plan:
            show_plan(
                base,
                tuned,
                corpus,
                dictionary=dictionary.value,
                layers=chosen,
                tokens=tokens,
                threads=threads,
                device=device,
                precision=precision.value,
                trust_remote_code=trust_remote_code,
            )
            return
        report = run_audit(
            base,
            tuned,
            corpus=corpus,
            areas=areas,
            out=out,
            dictionary=dictionary.value,
            layers=chosen,
            tokens=tokens,
            seed=seed,
            describe=describe,
            intended=intended or [],
            threads=threads,
            device=device,
            precision=precision.value,
            attention=attention,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            quick=quick,
            console=Terminal(stderr=True),
        )
        if is_first_process():
            show_audit(report, out, json=json)
    reached = unintended(report, fail_on) if fail_on is not None else []
    if reached:
        say(f"mneme: --fail-on {fail_on:g} was reached by {', '.join(reached)}.", err=True)
        raise typer.Exit(1)


def show_plan(
    base: str | None,
    tuned: str | None,
    corpus: str | None,
    **options: Any,
) -> None:
    """Prints what the audit with these `options` would take. Raises BadOption where the models or the text are not named."""
    from mneme.audit.forecast import forecast_run as plan_run

    if base is None or tuned is None or corpus is None:
        raise BadOption("--plan needs BASE, TUNED and --corpus: the cost depends on their size.")
    found = plan_run(base, tuned, corpus=corpus, processes=int(os.environ.get("WORLD_SIZE", "1")), **options)
    lines = {
        "tokens of text": f"{found.tokens:,}",
        "arithmetic": f"{found.flops / 1e12:,.2f} TFLOP",
        "weights moved": f"{found.moved_bytes / 1e9:,.1f} GB",
        "disk": f"{found.disk_bytes / 1e6:,.0f} MB",
        "peak memory": f"{found.peak_bytes / 1e9:,.2f} GB a process",
        "time": f"about {found.seconds:,.0f} s",
        **{f"  {name}": f"{seconds:,.1f} s" for name, seconds in found.parts.items()},
    }
    for name, value in lines.items():
        say(f"{name:15} {value}")


def show_audit(report: "Report", out: Path, *, json: bool) -> None:
    """Writes the page of a finished run in `out`; prints the report, as JSON or as a table, and where the page is."""

    from mneme.report.audit import render_html
    from mneme.report.audit_text import print_report
    from mneme.report.reading import read_timings
    from mneme.runs import add_file
    from mneme.terminal import Terminal

    page = add_file(out, "report.html", render_html(report, read_timings(out)).encode())
    if json:
        say_json(report.to_json())
    else:
        print_report(report, Terminal())
        say()
    say(f"Page: {page}", err=json)
