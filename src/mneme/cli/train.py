"""`mneme train`: fine-tunes with safeguards; `mneme persona`: makes the vectors that some of them need."""

from pathlib import Path
from typing import TYPE_CHECKING

from mneme.cli.commands import from_options
from mneme.cli.importing import quick_imports
from mneme.cli.saying import say
from mneme.cli.stopping import working
from mneme.train.options import PersonaOptions, TrainOptions

if TYPE_CHECKING:
    from mneme.results.train import TrainingRecord


@from_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Fine-tune with TRL's SFTTrainer and safeguards that keep the change to its purpose.

    The last answer of every row is learned. The same command after a kill goes on where it stopped, with the same losses.
    """
    with working(options.machine, f"The same command goes on from the last checkpoint in {options.out}."):
        with quick_imports():
            from mneme.train.run import run_train

        record = run_train(options)
    show_training(record)
    say(f"Model: {Path(options.out) / 'model'}")


def show_training(record: "TrainingRecord") -> None:
    """What was trained with which safeguards, in one line, and how model and rows were read."""
    from mneme.options import counted

    names = ", ".join(f"{used.name} {used.strength:g}" for used in record.safeguards) or "no safeguard"
    done = f"{counted(record.steps, 'step')} on {counted(record.rows, 'row')}"
    say(f"Trained {done} with {names}; loss {record.losses[-1].loss:.3f}.")
    for note in record.notes:
        say(note)


@from_options(PersonaOptions)
def persona(options: PersonaOptions) -> None:
    """Extract the persona vectors of a trait, and choose the layer at which steering does most.

    Every fifth row is kept out of the vectors and used to measure steering. The same command after a kill goes on where it
    stopped: until the vectors are written, finished pieces lie beside them in a folder of the same name with .parts.
    """
    with working(options.machine, "The same command goes on from the last finished piece."):
        with quick_imports():
            from mneme.results import Estimate
            from mneme.train.extracting import extract

        made, effects = extract(options)
    for layer, effect in enumerate(effects):
        chosen = " (chosen)" if layer == made.layer else ""
        bounds = f"{effect.low:+.3f}, {effect.high:+.3f}" if isinstance(effect, Estimate) else effect.told()
        say(f"layer {layer}: {effect.plain:+.3f} [{bounds}] {effect.unit}{chosen}")
    say(f"Vectors: {options.out}")
