"""What an audit will take on this machine, said before any weight is loaded: from the two configurations and the text.

Times come from trying the parts out at their real shapes, with random numbers: one and two blocks of the model's own
architecture on one batch, the arithmetic on one batch of logits, and a few steps of the dictionaries. They are then counted as
often as the audit will run them. Memory and bytes follow from shapes.
"""

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mneme.audit.dictionary import SWEEP, dictionary_size
from mneme.audit.inputs import trained_kinds
from mneme.audit.screening import batch_rows_for
from mneme.dictionaries.crosscoder import Kind
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.errors import BrokenWeights
from mneme.models.checkpoints import is_adapter, one_line, read_json, resolve_folder
from mneme.models.logits import kl_base_to_tuned, kl_tuned_to_base, token_log_probs

LATENTS_CHECKED = 20
"""Latents that an audit usually ablates at a layer."""
_CAUSAL_PASSES, _CAUSAL_ROWS = 7, 8
_LIBRARIES_BYTES = 560_000_000
"""Resident memory of Python with torch and transformers imported."""
_SERIAL_SHARE = 0.03


class Shape(NamedTuple):
    """A pair of models, known from their configurations."""

    config: Any
    parameters: int
    width: int
    layers: int
    vocab_size: int
    adapter: bool


class Forecast(NamedTuple):
    """What an audit will take."""

    tokens: int
    """Tokens of text; each goes through both models several times."""
    flops: float
    moved_bytes: float
    """Weights read from memory, once for every batch of every pass."""
    disk_bytes: int
    peak_bytes: int
    """Of each process."""
    seconds: float
    parts: dict[str, float]
    """Seconds of each part, summing to `seconds`."""


def shape_of(base: str | Path, tuned: str | Path, *, trust_remote_code: bool = False) -> Shape:
    """The shape of a pair, from config.json and adapter_config.json alone. Raises ModelNotFound or BrokenWeights."""
    folder = resolve_folder(base, trust_remote_code=trust_remote_code)
    if is_adapter(folder):
        folder = resolve_folder(read_json(folder / "adapter_config.json").get("base_model_name_or_path", ""))
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenWeights(
            f"{folder}/config.json describes no causal language model ({one_line(error)}). Expected what "
            "save_pretrained writes."
        ) from error
    text = config.get_text_config()
    return Shape(
        config,
        sum(parameter.numel() for parameter in model.parameters()),
        int(text.hidden_size),
        int(text.num_hidden_layers),
        int(text.vocab_size),
        is_adapter(resolve_folder(tuned, trust_remote_code=trust_remote_code)),
    )


def forecast(
    shape: Shape, tokens: int, row_length: int, kind: Kind | None, *, layers: list[int] | None = None, processes: int = 1
) -> Forecast:
    """Try the parts out and count them; takes a few seconds. `layers` None: the screen will choose one, taken here to lie in
    the middle. `processes` share the work of each part. What it takes to load the program and the models is not in it. Nobody
    else's random numbers are touched."""
    with torch.random.fork_rng(devices=[]):
        return _forecast(shape, tokens, row_length, kind, layers, processes)


def _forecast(
    shape: Shape, tokens: int, row_length: int, kind: Kind | None, layers: list[int] | None, processes: int
) -> Forecast:
    rows = batch_rows_for(row_length, shape.vocab_size)
    deepest = [layer + 1 for layer in layers] if layers else [shape.layers // 2]
    if kind is None:
        deepest = []
    batches = tokens / (rows * row_length)
    fixed, block = _forward_seconds(shape.config, rows, row_length)
    whole = fixed + shape.layers * block
    output = _output_seconds(rows, row_length, shape.vocab_size)
    checks = LATENTS_CHECKED * len(deepest) * _CAUSAL_ROWS / rows
    null = min(1.0, 16_384 / tokens) * batches
    sampled = 4096 / (rows * row_length)
    kinds = trained_kinds(kind)
    parts = {
        "screen": batches * (2 * whole + output),
        "layers": sampled * ((2 + shape.layers) * (whole + output / 8) + 2 * shape.layers * block),
        "harvest": batches * sum(2 * depth * block for depth in deepest),
        "dictionaries": len(deepest) * _dictionary_seconds(shape.width, tokens // 2, kinds),
        "ablation": checks * (_CAUSAL_PASSES * (whole + output / 8)),
        "null": null * (2 * whole + output),
    }
    parts = {name: seconds * ((1 - _SERIAL_SHARE) / processes + _SERIAL_SHARE) for name, seconds in parts.items()}
    passes = 2 * batches + sampled * (2 + shape.layers) + _CAUSAL_PASSES * checks + 2 * null
    halves = sum(2 * batches * depth / shape.layers for depth in deepest)
    flops = 2.0 * shape.parameters * (passes + halves) * rows * row_length + _dictionary_flops(shape.width, tokens, kinds)
    return Forecast(
        tokens=tokens,
        flops=flops,
        moved_bytes=4.0 * shape.parameters * (passes + halves),
        disk_bytes=tokens * (60 + 2 * shape.layers) + 64_000_000,
        peak_bytes=_peak_bytes(shape, tokens, rows * row_length, kinds),
        seconds=sum(parts.values()),
        parts=parts,
    )


def _seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of a few runs, after one that warms up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


@torch.no_grad()
def _forward_seconds(config: Any, rows: int, row_length: int) -> tuple[float, float]:
    """Seconds of one batch: what does not depend on depth (embedding, head), and one block."""
    ids = torch.randint(0, config.get_text_config().vocab_size, (rows, row_length))
    times = []
    for n_blocks in (1, 2):
        shallow = copy.deepcopy(config)
        text = shallow.get_text_config()
        text.num_hidden_layers = n_blocks
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:n_blocks]
        model = AutoModelForCausalLM.from_config(shallow, dtype=torch.float32).eval()
        times.append(_seconds(lambda model=model: model(input_ids=ids, use_cache=False).logits))  # type: ignore[misc]
    block = max(times[1] - times[0], 0.05 * times[0])
    return max(times[0] - block, 0.0), block


@torch.no_grad()
def _output_seconds(rows: int, row_length: int, vocab_size: int) -> float:
    """Seconds of everything the screen computes from the two models' logits of one batch."""
    base, tuned = torch.randn(2, rows, row_length, vocab_size)
    target = torch.zeros(rows, row_length, dtype=torch.long)

    def work() -> None:
        for logits in (base, tuned):
            token_log_probs(logits, target)
            logits.argmax(-1)
        kl_tuned_to_base(tuned_logits=tuned, base_logits=base)
        kl_base_to_tuned(tuned_logits=tuned, base_logits=base)
        (tuned.softmax(-1) - base.softmax(-1)).sum((0, 1))

    return _seconds(work, repeats=2)


def _runs(width: int, tokens: int, kinds: tuple[Kind, ...]) -> list[Settings]:
    """The dictionaries that an audit trains on `tokens` training tokens: the sweep, then each kind for its full length."""
    n_latents = dictionary_size(width, tokens)
    batch = min(1024, max(16, tokens // 8))
    full = max(400, tokens // batch)
    runs = [Settings(kind, width, n_latents, (min(32.0, n_latents / 8),), (0,), full, batch) for kind in kinds]
    if "change" in kinds:
        ks = tuple(k for k in SWEEP if k <= n_latents / 8 and k * batch >= 1)
        runs[0] = Settings("change", width, n_latents, (0.1,), (0,), full, batch)
        runs.append(Settings("change", width, n_latents, ks, (0,), min(200, max(50, 4 * tokens // batch)), batch))
    return runs


def _dictionary_seconds(width: int, tokens: int, kinds: tuple[Kind, ...]) -> float:
    total = 0.0
    for run in _runs(width, tokens, kinds):
        inputs = run.input_width
        trainer = Trainer(run, torch.zeros(inputs), torch.ones(inputs))
        x = torch.randn(run.batch_size, inputs)
        total += run.n_steps * _seconds(lambda trainer=trainer, x=x: trainer.step_normalised(x))  # type: ignore[misc]
    return total


def _dictionary_flops(width: int, tokens: int, kinds: tuple[Kind, ...]) -> float:
    return math.fsum(
        6.0 * run.n_steps * run.batch_size * run.n_latents * run.input_width * len(run.runs)
        for run in _runs(width, tokens // 2, kinds)
    )


def _peak_bytes(shape: Shape, tokens: int, batch_tokens: int, kinds: tuple[Kind, ...]) -> int:
    """The larger of the screen (logits of both models and their softmax) and the dictionaries (activations held twice while
    they are joined, weights with gradients and two moments)."""
    models = shape.parameters * 4 * (1 if shape.adapter else 2)
    logits = 5 * batch_tokens * shape.vocab_size * 4
    table = tokens * (120 + 9 * shape.layers)
    activations = 2 * min(tokens * shape.width * 8, 1 << 30) if kinds else 0
    learnt = max(
        (run.n_latents * run.input_width * 8 * 4 * len(run.runs) for run in _runs(shape.width, tokens // 2, kinds)), default=0
    )
    return int(_LIBRARIES_BYTES + models + table + max(logits, activations + learnt))
