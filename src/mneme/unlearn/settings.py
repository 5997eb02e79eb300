"""What decides an unlearning run, and the default of everything that was not asked for: a published value, or ours.

Learning rates are those for models of width 4,096 and full fine-tuning. They are carried over to other widths as 1/width, as
the best rate of Adam goes for hidden matrices (Yang et al. 2022, arXiv 2203.03466), and are ten times as high for LoRA, whose
best rate is about that of full fine-tuning times ten at any rank (Schulman et al. 2025, "LoRA Without Regret"). The schedule
(warm-up, then linearly down) and the number of steps are ours.

Where published values left a small world (not one that the table of docs/benchmarks.md is about) as it was or broke it, ours
stand instead, and `source` says which. rmu at its paper's 5e-5 and retain weight 1,200 forgot nothing in 100 steps; at 1.5e-4
and 100 (the code's own retain weight) it forgets. undial without a retain term lost half of all other facts; its authors take
a strength of 3 to 10 and no retain term. simnpo at 4.5 and 0.125, published for short answers (TOFU), stops at one nat a
token, which running text reaches without its facts being gone. The authors' other runs of it, on running text (MUSE: beta 0.7
and 0.75, retain weight 0.1), are by code that puts raw logits where the paper has the mean log-likelihood, so that their beta
is not on this scale: strength and weights of simnpo are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from mneme.errors import BadOption
from mneme.unlearn.options import Method, RetainLoss, UnlearnOptions

METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_WIDTH = 4096
LORA_RATE = 10.0


@dataclass(frozen=True)
class Defaults:
    """What one method runs with where nothing else is asked for, for a model of width 4,096."""

    learning_rate: float
    beta: float
    """npo: inverse temperature · simnpo: the same · undial: logits taken off the true token · rmu: length of the control
    vector in mean lengths of the residual stream there · the others: not used."""
    forget_weight: float
    retain_weight: float
    source: str
    """Of the loss, and of the numbers: which are published and which are ours."""


DEFAULTS: dict[Method, Defaults] = {
    "grad-ascent": Defaults(
        learning_rate=1e-5, beta=0.0, forget_weight=1.0, retain_weight=0.0, source="TOFU, arXiv 2401.06121"
    ),
    "grad-diff": Defaults(learning_rate=1e-5, beta=0.0, forget_weight=1.0, retain_weight=1.0, source="TOFU, arXiv 2401.06121"),
    "npo": Defaults(learning_rate=1e-5, beta=0.1, forget_weight=1.0, retain_weight=1.0, source="arXiv 2404.05868"),
    "simnpo": Defaults(
        learning_rate=1e-5,
        beta=0.7,
        forget_weight=1.0,
        retain_weight=1.0,
        source="arXiv 2410.07163; strength and weights ours",
    ),
    "rmu": Defaults(
        learning_rate=1.5e-4,
        beta=5.0,
        forget_weight=1.0,
        retain_weight=100.0,
        source="arXiv 2403.03218, control vector as long as in arXiv 2408.06223, retain weight of the code; rate ours",
    ),
    "undial": Defaults(
        learning_rate=1e-4,
        beta=10.0,
        forget_weight=1.0,
        retain_weight=1.0,
        source="arXiv 2402.10052; rate and strength of open-unlearning (d3d7cf9), retain weight ours",
    ),
}


@dataclass(frozen=True)
class UnlearnSettings:
    """Everything that decides the weights, given model and texts."""

    method: Method
    steps: int
    learning_rate: float
    beta: float
    forget_weight: float
    retain_weight: float
    retain_loss: RetainLoss
    layers: tuple[int, ...]
    """rmu: the blocks after which the residual stream is misdirected; empty for the other methods."""
    batch_documents: int
    lora_rank: int | None
    seed: int


def settings_for(options: UnlearnOptions, *, width: int, n_layers: int) -> UnlearnSettings:
    """What was asked for, and the method's defaults for the rest (None). `width`: d_model.

    Errors: BadOption for a number out of range, a layer that does not exist, layers without rmu.
    """
    default, training = DEFAULTS[options.method], options.training.settled()
    rate = default.learning_rate * DEFAULT_WIDTH / width * (LORA_RATE if training.lora_rank else 1.0)
    if training.steps is None:
        raise BadOption("Unlearning needs a number of steps. Give training.steps, such as 100.")
    chosen = UnlearnSettings(
        method=options.method,
        steps=training.steps,
        learning_rate=rate if training.learning_rate is None else training.learning_rate,
        beta=default.beta if options.beta is None else options.beta,
        forget_weight=default.forget_weight if options.forget_weight is None else options.forget_weight,
        retain_weight=default.retain_weight if options.retain_weight is None else options.retain_weight,
        retain_loss=options.retain_loss,
        layers=_layers(options.method, options.layers, n_layers),
        batch_documents=training.batch,
        lora_rank=training.lora_rank,
        seed=options.seed,
    )
    if chosen.method in ("npo", "simnpo", "rmu", "undial") and chosen.beta <= 0:
        raise BadOption(f"--beta has to be above 0 for {chosen.method}; at 0 it pushes nothing.")
    return chosen


def _layers(method: Method, layers: Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    if method != "rmu":
        if layers:
            raise BadOption(
                f"--layers is for rmu, which works on the residual stream; {method} has none to choose. Leave it out."
            )
        return ()
    for layer in layers or ():
        if not 0 <= layer < n_layers:
            raise BadOption(f"No layer {layer}: this model has {n_layers} blocks, so layers go from 0 to {n_layers - 1}.")
    # Published: after block 7 of 32.
    return tuple(layers or ()) or (round(7 / 31 * (n_layers - 1)),)
