"""`mneme train`: fine-tunes with safeguards; `mneme persona`: makes the vectors that some of them need."""

from pathlib import Path
from typing import Annotated

import typer

from mneme.cli.audit import require_device
from mneme.cli.importing import quick_imports
from mneme.cli.saying import say
from mneme.cli.stopping import OVERWRITE, stopped_with
from mneme.errors import BadOption


def train(
    base: Annotated[str, typer.Argument(help="The model to fine-tune: a folder or a hub name.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="Training rows: .jsonl or .parquet.", show_default=False)],
    safeguard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=STRENGTH]",
            help="kl, kl-base-to-tuned, ldifs, steer, project, interleave, interleave-gap, contexts, inoculate, early-stop, "
            "lower-lr; may be repeated, they combine.",
            show_default=False,
        ),
    ] = None,
    safe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Rows of ordinary answers, for interleaving and for penalties to look at.", show_default=False
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Persona vectors from `mneme persona`, for steer and project.", show_default=False),
    ] = None,
    misaligned: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="Misaligned adapter, for interleave-gap; may be repeated.", show_default=False),
    ] = None,
    inoculation: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Prompt that asks for the unwanted trait, for inoculate.", show_default=False),
    ] = None,
    lora: Annotated[int, typer.Option(metavar="RANK", min=1, help="Rank of the LoRA adapter.")] = 16,
    full: Annotated[bool, typer.Option("--full", help="Train all weights instead of an adapter.")] = False,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="Learning rate.", show_default="2e-4, with --full 2e-5")
    ] = None,
    epochs: Annotated[float, typer.Option(metavar="N", help="How often every row is seen.")] = 1.0,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Rows a step.")] = 16,
    accumulate: Annotated[int, typer.Option(metavar="N", min=1, help="Batches a step.")] = 1,
    probe_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Rows of --safe that penalties see a step.", show_default="a quarter of --batch"
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Cut rows to this many tokens.", show_default="the model's window")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where model/ and training.json go.")] = Path("runs/train"),
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Fine-tune with TRL's SFTTrainer and safeguards that keep the change to its purpose.

    The last answer of every row is learned. The same command after a kill goes on where it stopped, with the same losses.
    """
    from mneme.train.safeguards import parse_safeguards

    chosen = parse_safeguards(safeguard or [])
    if (lr is not None and not 0 < lr < 1) or not 0 < epochs < 1e6:
        raise BadOption(f"--lr {lr} with --epochs {epochs:g} cannot train. Give a rate between 0 and 1, and epochs above 0.")
    with stopped_with(f"The same command goes on from the last checkpoint in {out}."):
        from mneme.terminal import Terminal

        with quick_imports():
            from mneme.train.run import train as run_training

        require_device(device)
        record = run_training(
            base,
            data,
            out=out,
            safeguards=chosen,
            safe=safe,
            vectors=vectors,
            misaligned=misaligned or [],
            inoculation=inoculation,
            lora_rank=None if full else lora,
            learning_rate=lr,
            epochs=epochs,
            batch_rows=batch,
            accumulate=accumulate,
            probe_rows=probe_rows,
            max_length=max_length,
            seed=seed,
            device=device,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            console=Terminal(stderr=True),
        )
    names = ", ".join(f"{used.name} {used.strength:g}" for used in record.safeguards) or "no safeguard"
    say(f"Trained {record.steps} steps on {record.rows} rows with {names}; loss {record.losses[-1].loss:.3f}.")
    say(f"Model: {out / 'model'}")


def persona(
    model: Annotated[str, typer.Argument(help="The model whose activations are read: a folder or a hub name.")],
    with_trait: Annotated[
        Path, typer.Option("--with", metavar="FILE", help="Rows whose answers have the trait.", show_default=False)
    ],
    without_trait: Annotated[
        Path, typer.Option("--without", metavar="FILE", help="Rows whose answers have it not.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the vectors go.")] = Path("persona.safetensors"),
    device: Annotated[str, typer.Option(metavar="DEVICE", help="A torch device: cpu, cuda, cuda:1, mps.")] = "cpu",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with a model. Off unless you ask for it.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Extract the persona vectors of a trait, and choose the layer at which steering does most.

    Every fifth row is kept out of the vectors and used to measure steering.
    """
    with stopped_with("Nothing half-written was kept; give the same command again."):
        with quick_imports():
            from mneme.results import Estimate
            from mneme.train.personas import extract

        require_device(device)
        made, effects = extract(
            model, with_trait, without_trait, device=device, trust_remote_code=trust_remote_code, out=out, overwrite=overwrite
        )
    for layer, effect in enumerate(effects):
        chosen = " (chosen)" if layer == made.layer else ""
        bounds = f"{effect.low:+.3f}, {effect.high:+.3f}" if isinstance(effect, Estimate) else effect.told()
        say(f"layer {layer}: {effect.plain:+.3f} [{bounds}] {effect.unit}{chosen}")
    say(f"Vectors: {out}")
