"""Values that several commands share: where work runs, and how much is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from mneme.errors import BadOption
from mneme.options.fields import Option, Part, settle

MOST_THREADS = 4096
"""More than any machine has; a typing error above it would only make the operating system refuse."""
MOST_SEED = 2**32 - 1
"""The largest seed that NumPy's legacy generator takes, which transformers seeds beside torch's."""

MOST_RANK = 2**16
"""Of an adapter: wider than any matrix of a model that is out."""
MOST_WEIGHT = 1e6
"""Weights and strengths in a loss: beyond a million the other terms are lost in float32's seven digits."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the models run, and what may run with them.

    ```python
    mneme.audit(base, tuned, corpus="text.jsonl", machine=mneme.Machine(device="cuda", precision="bfloat16"))
    mneme.measure(base, tuned, machine=mneme.Machine(threads=4))
    ```
    """

    device: Annotated[str, Option("A torch device: cpu, cuda, cuda:1, mps; auto: all GPUs.", metavar="DEVICE")] = "cpu"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Option("Of matrix products; auto: bfloat16 on GPUs only.", metavar="auto|float32|bfloat16"),
    ] = "auto"
    attention: Annotated[
        str | None, Option("transformers' attn_implementation, such as flash_attention_2.", metavar="NAME")
    ] = None
    threads: Annotated[
        int | None,
        Option("Threads of torch; without it OMP_NUM_THREADS, else all cores.", metavar="N", least=1, most=MOST_THREADS),
    ] = None
    """None leaves torch as it is; the command line takes OMP_NUM_THREADS or the cores that this process may use."""
    trust_remote_code: Annotated[bool, Option("Run code that comes with a model. Off unless you ask for it.")] = False

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)


@runtime_checkable
class _Loads(Protocol):
    """The options of a command that loads models."""

    @property
    def machine(self) -> Machine: ...

    @property
    def adapter_base(self) -> str | Path | None: ...

    @property
    def chat_template(self) -> str | Path | None: ...


def loading(options: _Loads) -> dict[str, Any]:
    """What `mneme.models.pair.load_model` and `load_pair` take of a command's options."""
    machine = options.machine
    return {
        "device": machine.device,
        "trust_remote_code": machine.trust_remote_code,
        "adapter_base": options.adapter_base,
        "chat_template": options.chat_template,
    }


@dataclass(frozen=True, kw_only=True)
class Training:
    """How much is trained, and how fast. None: what the command says. A command uses some of it and refuses the rest.

    ```python
    mneme.train(base, rows, out="run", training=mneme.Training(epochs=2, lora_rank=8))
    mneme.unlearn(model, forget=a, retain=b, training=mneme.Training(steps=200))
    mneme.dpo(model, pairs, out="run", training=mneme.Training(lora_rank=0))  # all weights
    ```
    """

    steps: Annotated[int | None, Option("Optimizer steps.", metavar="N", least=1, decides=True)] = None
    epochs: Annotated[float | None, Option("How often every row is seen.", metavar="N", above=0, most=1e6, decides=True)] = (
        None
    )
    learning_rate: Annotated[
        float | None, Option("Learning rate.", metavar="RATE", flag="--lr", least=0, below=1, decides=True)
    ] = None
    batch: Annotated[int | None, Option("Rows, pairs or texts in a batch.", metavar="N", least=1, decides=True)] = None
    accumulate: Annotated[int | None, Option("Batches in a step.", metavar="N", least=1, decides=True)] = None
    lora_rank: Annotated[
        int | None,
        Option(
            "Train a LoRA adapter of this rank; 0: all weights.",
            metavar="RANK",
            flag="--lora",
            least=0,
            most=MOST_RANK,
            decides=True,
        ),
    ] = None

    def __post_init__(self) -> None:
        """Raises BadOption outside the ranges above."""
        settle(self)

    def settled(self) -> "SettledTraining":
        """As a job reads it: what its command does not have is 1, and an adapter of rank 0 is none."""
        return SettledTraining(
            steps=self.steps,
            epochs=1.0 if self.epochs is None else self.epochs,
            learning_rate=self.learning_rate,
            batch=1 if self.batch is None else self.batch,
            accumulate=1 if self.accumulate is None else self.accumulate,
            lora_rank=self.lora_rank or None,
        )


@dataclass(frozen=True, kw_only=True)
class SettledTraining:
    """`Training` with a command's defaults in it."""

    steps: int | None
    epochs: float
    learning_rate: float | None
    batch: int
    accumulate: int
    lora_rank: int | None
    """None: all weights are trained."""


def parse_names(text: str) -> list[str]:
    """'a,b' -> ['a', 'b']."""
    return [part.strip() for part in text.split(",")]


def joined(values: Sequence[object]) -> list[str]:
    """The reverse of `parse_names` and `parse_numbers`, as one word."""
    return [",".join(map(str, values))]


def parse_numbers(text: str) -> list[int]:
    """'2,3' -> [2, 3], each once, ascending. Raises BadOption for anything else."""
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BadOption(f"{text!r} is no list of numbers. Expected numbers with commas, for example 2,3.") from None


Seed = Annotated[int, Option("Seed of everything random.", metavar="N", least=0, most=MOST_SEED, decides=True)]
Overwrite = Annotated[
    bool, Option("Remove another finished run from --out (only files that mneme wrote), and work beside files of others.")
]
AdapterBase = Annotated[
    str | Path | None,
    Option(
        "The base of a model that is an adapter; without it, the one that the adapter names.",
        metavar="MODEL",
        flag="--base",
        decides=True,
    ),
]
"""Of every command that can be given an adapter alone; models that are none ignore it."""
ChatTemplate = Annotated[
    str | Path | None,
    Option("A file (.jinja) whose chat template is used in the place of the model's own.", metavar="FILE", decides=True),
]
"""Of every command that writes conversations."""
Where = Annotated[Machine, Part()]
Here = Annotated[Machine, Part(("device", "threads", "trust_remote_code"))]
"""Of commands that work in one process and in the precision of the weights."""
