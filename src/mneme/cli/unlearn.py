"""`mneme unlearn`: makes a model forget a text, keeps another, and says what is gone and whether it comes back."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mneme.cli.audit import parse_layers, require_device
from mneme.cli.importing import quick_imports
from mneme.cli.saying import say, say_json
from mneme.cli.stopping import OVERWRITE, stopped_with

if TYPE_CHECKING:
    from mneme.results import Estimate, TooFew
    from mneme.results.unlearn import Unlearning


class UnlearnName(StrEnum):
    """The methods of unlearning."""

    grad_ascent = "grad-ascent"
    grad_diff = "grad-diff"
    npo = "npo"
    simnpo = "simnpo"
    rmu = "rmu"
    undial = "undial"


class RetainLoss(StrEnum):
    """How the text that stays is held."""

    nll = "nll"
    kl = "kl"


def unlearn(
    model: Annotated[str, typer.Argument(help="The model: a folder or a hub name.", show_default=False)],
    forget: Annotated[
        str,
        typer.Option(
            metavar="FILE|NAME", help="What is to go: .txt, .jsonl, .parquet or a datasets name.", show_default=False
        ),
    ],
    retain: Annotated[str, typer.Option(metavar="FILE|NAME", help="What has to stay: text near it, too.", show_default=False)],
    method: Annotated[
        UnlearnName, typer.Option(metavar="|".join(UnlearnName), help="How it is made to go.")
    ] = UnlearnName.npo,
    lora: Annotated[
        int | None,
        typer.Option(metavar="RANK", min=1, help="Train an adapter of this rank, not the weights.", show_default=False),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of training.")] = 100,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="RATE", min=0, help="Learning rate; without it, the method's default, by width.", show_default=False
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(metavar="X", help="Strength, by method; without it, the method's default.", show_default=False),
    ] = None,
    forget_weight: Annotated[
        float | None, typer.Option(metavar="X", min=0, help="Weight of the loss that forgets.", show_default=False)
    ] = None,
    retain_weight: Annotated[
        float | None, typer.Option(metavar="X", min=0, help="Weight of the loss that retains.", show_default=False)
    ] = None,
    retain_loss: Annotated[
        RetainLoss, typer.Option(metavar="nll|kl", help="Hold the text that stays by likelihood, or to the model as it was.")
    ] = RetainLoss.nll,
    layers: Annotated[
        str | None, typer.Option(metavar="N,N", help="rmu: blocks whose output is misdirected, from 0.", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Texts of either set in one step.")] = 8,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=2, help="Longer texts are cut into pieces of this.")] = 512,
    relearn: Annotated[
        int, typer.Option(metavar="N", min=0, help="Attack the result: train on N texts of either set and measure again.")
    ] = 0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model/ and unlearn.json go.")] = Path("runs/unlearn"),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print unlearn.json to stdout; everything else goes to stderr.")
    ] = False,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A torch device: cpu, cuda, cuda:1, mps.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Threads of torch; without it, all cores.", show_default=False)
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Make a model forget a text and keep another; fails, and writes no model, where the text is still known.

    The same command after a kill goes on at its last checkpoint. Audit the result for what went with it.
    """
    chosen = parse_layers(layers)
    with stopped_with(f"The same command goes on where it stopped; the state of training is in {out}."):
        from mneme.terminal import Terminal

        with quick_imports():
            from mneme.unlearn.run import unlearn as run_unlearn

        require_device(device)
        result = run_unlearn(
            model,
            forget=forget,
            retain=retain,
            method=method.value,
            lora=lora,
            steps=steps,
            learning_rate=lr,
            beta=beta,
            forget_weight=forget_weight,
            retain_weight=retain_weight,
            retain_loss=retain_loss.value,
            layers=chosen,
            batch_documents=batch,
            max_tokens=max_tokens,
            relearn_documents=relearn,
            seed=seed,
            out=out,
            threads=threads,
            device=device,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            console=Terminal(stderr=True),
        )
    if json:
        say_json(result.to_json())
    else:
        for line in lines_of(result):
            say(line)
    words = shlex.join(["mneme", "audit", model, str(out / result.result)])
    say(f"Model: {out / result.result}", err=json)
    say(f"Audit it: {words} --corpus FILE", err=json)


def lines_of(result: "Unlearning") -> list[str]:
    """What a finished run says on a terminal: one line a figure, each with interval and number of texts."""
    from mneme.results import Estimate

    settings = result.settings
    lines = [
        f"{settings.method}, {settings.steps} steps at {settings.learning_rate:.2g}: {result.weights.changed_tensors} of "
        f"{result.weights.total_tensors} tensors changed, by {result.weights.relative:.2%} of their norm."
    ]
    for name, change in (("forget", result.forget), ("retain", result.retain)):
        known = "nothing was known of it" if change.kept is None else f"kept {_share(change.kept)} of what was known"
        moved = change.change
        bounds = f"[{moved.low:+.3f}, {moved.high:+.3f}]" if isinstance(moved, Estimate) else f"[{moved.told()}]"
        lines.append(
            f"{name}: {known}; {change.nll_before.plain:.3f} -> {change.nll_after.plain:.3f} nats per token "
            f"({moved.plain:+.3f} {bounds}, {moved.n} texts)"
        )
    for attack in result.relearning:
        before, after = (_share(share) if share else "none" for share in (attack.kept_before, attack.kept_after))
        lines.append(
            f"relearning from {attack.documents} {attack.kind} texts: kept {before} -> {after} of what was known unseen"
        )
    return lines


def _share(share: "Estimate | TooFew") -> str:
    from mneme.results import TooFew

    return f"{share.plain:.1%} " + (
        f"[{share.told()}]" if isinstance(share, TooFew) else f"[{share.low:.1%}, {share.high:.1%}]"
    )
