"""What `mneme train` and `mneme persona` are asked."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mneme.options import Machine, Option, Part, Progress, Training, settle
from mneme.options.values import AdapterBase, ChatTemplate, Here, Overwrite, Seed
from mneme.train.safeguards import parse_safeguards

if TYPE_CHECKING:
    from mneme.train.personas import PersonaVectors
else:
    PersonaVectors = Any  # torch is not loaded for a record

Rows = Sequence[Mapping[str, Any]]
"""Training rows given in Python (`mneme.text.rows`)."""


@dataclass(frozen=True)
class TrainOptions:
    """What decides a training with safeguards.

    ```python
    mneme.train("base", "rows.jsonl", out="runs/plain")
    mneme.train("base", "rows.jsonl", out="runs/safe", safeguards={"kl": 1.0}, safe="ordinary.jsonl")
    mneme.train("base", "rows.jsonl", out="runs/full", training=mneme.Training(lora_rank=0, epochs=2, batch=8))
    ```
    """

    base: Annotated[str | Path, Option("The model to fine-tune: a folder or a hub name.")]
    data: Annotated[str | Path | Rows, Option("Training rows: .jsonl, .json, .parquet or .csv.")]
    _: KW_ONLY
    out: Annotated[str | Path, Option("Where model/ and training.json go.", metavar="DIR")] = "runs/train"
    safeguards: Annotated[
        Mapping[str, float],
        Option(
            "kl, kl-base-to-tuned, ldifs, steer, project, interleave, interleave-gap, contexts, inoculate, early-stop, "
            "lower-lr; may be repeated, they combine.",
            metavar="NAME[=STRENGTH]",
            flag="--safeguard",
            parse=parse_safeguards,
            write=lambda chosen: [f"{name}={strength:g}" for name, strength in chosen.items()],
        ),
    ] = field(default_factory=dict)
    """Name -> strength, see `SAFEGUARDS`; those of strength 0 are none."""
    safe: Annotated[
        str | Path | Rows | None,
        Option("Rows of ordinary answers, for interleaving and for penalties to look at.", metavar="FILE"),
    ] = None
    vectors: Annotated[
        str | Path | PersonaVectors | None,
        Option("Persona vectors from `mneme persona`, for steer and project.", metavar="FILE"),
    ] = None
    misaligned: Annotated[
        Sequence[str | Path], Option("Misaligned adapter, for interleave-gap; may be repeated.", metavar="DIR")
    ] = ()
    inoculation: Annotated[
        str | None, Option("Prompt that asks for the unwanted trait, for inoculate.", metavar="TEXT", decides=True)
    ] = None
    probe_rows: Annotated[
        int | None,
        Option(
            "Rows of --safe that penalties see a step.",
            metavar="N",
            least=1,
            decides=True,
            default_told="a quarter of --batch",
        ),
    ] = None
    max_length: Annotated[
        int | None,
        Option("Cut rows to this many tokens.", metavar="N", least=2, decides=True, default_told="the model's window"),
    ] = None
    training: Annotated[
        Training,
        Part(
            ("epochs", "learning_rate", "batch", "accumulate", "lora_rank"),
            defaults=Training(epochs=1.0, batch=16, accumulate=1, lora_rank=16),
            default_told=(("learning_rate", "2e-4, with --lora 0 2e-5"),),
        ),
    ] = Training()
    seed: Seed = 0
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Overwrite = False
    machine: Here = Machine()
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)

    @property
    def chosen(self) -> dict[str, float]:
        """The safeguards that are on, by name."""
        return {name: strength for name, strength in self.safeguards.items() if strength > 0}

    @property
    def learning_rate(self) -> float:
        """Before the safeguard `lower-lr`: what was asked for, else the default of an adapter or of all weights."""
        asked = self.training.learning_rate
        return asked if asked is not None else 2e-4 if self.training.lora_rank else 2e-5


@dataclass(frozen=True)
class PersonaOptions:
    """What decides the persona vectors of a trait.

    ```python
    mneme.train.extracting.extract(PersonaOptions("model", with_trait="cruel.jsonl", without_trait="kind.jsonl"))
    ```
    """

    model: Annotated[str | Path, Option("The model whose activations are read: a folder or a hub name.")]
    _: KW_ONLY
    with_trait: Annotated[str | Path, Option("Rows whose answers have the trait.", metavar="FILE", flag="--with")]
    without_trait: Annotated[str | Path, Option("Rows whose answers have it not.", metavar="FILE", flag="--without")]
    out: Annotated[str | Path, Option("Where the vectors go.", metavar="FILE")] = "persona.safetensors"
    adapter_base: AdapterBase = None
    chat_template: ChatTemplate = None
    overwrite: Annotated[bool, Option("Replace other vectors in --out.")] = False
    machine: Here = Machine()
    progress: Progress = Progress()

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)
