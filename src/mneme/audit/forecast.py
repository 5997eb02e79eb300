"""What an audit will take on this machine, said before any weight is loaded: from the two configurations and the text.

Times come from trying the parts out at their real shapes, with random numbers: one and two blocks of the model's own
architecture on one batch, the arithmetic on one batch of logits, and a few steps of the dictionaries. They are then counted as
often as the audit will run them. Memory and bytes follow from shapes.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from mneme.activations.harvest import ALONE
from mneme.audit.ablation import ROWS_A_LATENT
from mneme.audit.cost import audit_disk_bytes
from mneme.audit.dictionary import (
    CODED_TOKENS,
    CONTEXT_TOKENS,
    HELD_OUT_TOKENS,
    RESIDENT_BYTES,
    batch_size,
    crosscoder_k,
    dictionary_size,
    run_lengths,
    sweep_ks,
)
from mneme.audit.inputs import (
    LAYERS_TOKENS,
    check_chosen_layers,
    chosen_kind,
    first_device,
    precision_for,
    rows_of,
    trained_kinds,
)
from mneme.audit.latents import OVERALL
from mneme.audit.null import CHANGES, PART_TOKENS
from mneme.audit.surveying import batch_rows_for
from mneme.dictionaries.crosscoder import Kind
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.diff.causal import PASSES
from mneme.diff.survey import read_predictions
from mneme.models.adapter_files import named_base
from mneme.models.checkpoints import is_adapter, is_gguf, resolve_folder, weight_files
from mneme.models.pair import Precision
from mneme.models.ranks import Ranks
from mneme.models.safe_config import empty_model, read_config, read_gguf_config
from mneme.models.tokenizers import load_tokenizer, require_tokenizer
from mneme.text.documents import read_corpus

_LIBRARIES_BYTES = 680_000_000
"""Resident memory of Python with torch and transformers imported (423 MB with torch 2.13 on Linux), and what the allocator
keeps of small work."""
_SERIAL_SHARE = 0.03
"""Share of every part that is no faster with more processes: a guess, not fitted. Two processes were measured 1.47 and later
1.60 times as fast as one (docs/log.md, scale), start and end included, which these parts leave out."""
_LEAST_BLOCK_SHARE = 0.05
"""Share of a model of one block that a block takes at least, where the difference of two noisy times is less. Never varied."""
_FLOPS_A_WEIGHT = 6.0
"""Forward and backward of a matrix product: 2 and 4 operations a weight (Kaplan et al. 2020, arXiv 2001.08361, section
2.1)."""
_TRIALS = 3
"""Runs of what is timed, the first to warm up. A round number that was never varied."""
_LIKELY_K = 0.1
"""The k that the sweep is planned to choose: those found lie between 0.05 and 1 (docs/log.md, the first audit)."""
_FLOAT, _PAIR_OF_FLOATS = 4, 8
"""Bytes of a number in float32, and of m with q."""
_TABLE_BYTES, _TABLE_BYTES_A_LAYER = 80, 3
"""Of every token in memory: the survey's columns (26 bytes) beside the flat table made of them and sums in double precision;
of every layer |q|/|h| in half precision and the sinks. Counted, not measured."""
_TABLES_OF_WEIGHTS = 8
"""Alive of a dictionary in training: weights, gradients and two moments for encoder and decoder."""
_CODES_A_TOKEN, _BYTES_A_CODE = 32, 20
"""A crosscoder's codes, the densest (`CROSSCODER_K`): token, latent (8 bytes each) and value (4)."""


class Shape(NamedTuple):
    """A pair of models, known from their configurations."""

    config: Any
    parameters: int
    width: int
    layers: int
    vocab_size: int
    adapter: bool


class Machine(NamedTuple):
    """Where an audit runs, and in which precision."""

    device: str = "cpu"
    precision: Precision = "float32"

    @property
    def bytes_a_weight(self) -> int:
        """Of the models; stored ones may be wider than planned here."""
        return _FLOAT if self.precision == "float32" else _FLOAT // 2


HERE = Machine()


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
    """The shape of a pair, from config.json, adapter_config.json and the headers of the weights.

    Raises ModelNotFound, UnsafeWeights or BrokenWeights.
    """
    folder = resolve_folder(base, trust_remote_code=trust_remote_code)
    if is_adapter(folder):
        folder = resolve_folder(named_base(folder))
    if is_gguf(folder):
        config = read_gguf_config(folder)
    else:
        files = weight_files(folder) if any(folder.glob("*.safetensors")) else None
        config = read_config(folder, files, trust_remote_code)
    model = empty_model(config, trust_remote_code)
    text = config.get_text_config()
    return Shape(
        config,
        sum(parameter.numel() for parameter in model.parameters()),
        int(text.hidden_size),
        int(text.num_hidden_layers),
        int(text.vocab_size),
        is_adapter(resolve_folder(tuned, trust_remote_code=trust_remote_code)),
    )


def forecast_run(
    base: str | Path,
    tuned: str | Path,
    *,
    corpus: str | Path,
    dictionary: str = "change",
    layers: Sequence[int] | None = None,
    tokens: int | None = None,
    processes: int = 1,
    threads: int | None = None,
    device: str = "cpu",
    precision: str = "auto",
    trust_remote_code: bool = False,
) -> Forecast:
    """What `audit` with the same arguments will take on this machine: both configurations, the tokenizer and the text are
    read, and the parts are tried out with random numbers.

    Errors: those of `audit` about its inputs.
    """
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    shape = shape_of(base, tuned, trust_remote_code=trust_remote_code)
    check_chosen_layers(layers, shape.layers)
    tokenizer = load_tokenizer(resolve_folder(base, trust_remote_code=trust_remote_code), trust_remote_code)
    longest = getattr(shape.config.get_text_config(), "max_position_embeddings", None)
    rows = rows_of(read_corpus(corpus, tokenizer=tokenizer), require_tokenizer(tokenizer, base), longest, tokens)
    chosen = list(layers or []) or None
    return forecast(
        shape,
        rows.ids.numel(),
        rows.ids.shape[1],
        chosen_kind(dictionary),
        machine=Machine(first_device(device), precision_for(device, precision)),
        layers=chosen,
        processes=processes,
    )


def forecast(
    shape: Shape,
    tokens: int,
    row_length: int,
    kind: Kind | None,
    *,
    machine: Machine = HERE,
    layers: list[int] | None = None,
    processes: int = 1,
    ranks: Ranks = ALONE,
) -> Forecast:
    """Try the parts out and count them; takes about a second. `layers` None: the survey will choose one, taken here to lie in
    the middle. `processes` share the work of each part. What it takes to load the program and the models is not in it. The
    trials are shared out among `ranks`, which must all call this. Nobody else's random numbers are touched."""
    rows = batch_rows_for(row_length, shape.vocab_size)
    runs = _runs(shape.width, tokens // 2, trained_kinds(kind))
    trials = [
        partial(_blocks_seconds, shape.config, 1, rows, row_length, machine),
        partial(_blocks_seconds, shape.config, 2, rows, row_length, machine),
        partial(_output_seconds, rows, row_length, shape.vocab_size, machine.device),
        *(partial(_step_seconds, run, machine.device) for run in runs),
    ]
    found = torch.zeros(len(trials), dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        for index in ranks.own(range(len(trials))):
            found[index] = trials[index]()
    one, two, output, *steps = ranks.total(found).tolist()
    block = max(two - one, _LEAST_BLOCK_SHARE * one)
    times = _Times(block, one - block, output, steps)
    return _counted(shape, tokens, (rows, row_length), kind, layers, processes, times, machine)


class _Times(NamedTuple):
    """Seconds of one batch of rows: a block, what does not depend on depth (embedding, head), all that is read from the
    logits; and of one step of each training run."""

    block: float
    ends: float
    output: float
    steps: list[float]


def _counted(
    shape: Shape,
    tokens: int,
    batch_shape: tuple[int, int],
    kind: Kind | None,
    layers: list[int] | None,
    processes: int,
    times: _Times,
    machine: Machine,
) -> Forecast:
    rows, row_length = batch_shape
    a_batch = rows * row_length
    deepest = [] if kind is None else [layer + 1 for layer in layers] if layers else [shape.layers // 2]
    runs = _runs(shape.width, tokens // 2, trained_kinds(kind))
    batches, harvested = tokens / a_batch, _harvested_tokens(shape.width, tokens, runs) / a_batch
    whole = max(times.ends, 0.0) + shape.layers * times.block
    checks = OVERALL * len(deepest) * ROWS_A_LATENT / rows  # up to twice as many where effects are found
    null = min(1.0, CHANGES * PART_TOKENS / tokens) * batches
    sampled = min(tokens, LAYERS_TOKENS) / a_batch
    parts = {
        "survey": batches * (2 * whole + times.output),
        "layers": sampled * ((2 + shape.layers) * (whole + times.output / 2) + 2 * shape.layers * times.block),
        "harvest": harvested * sum(2 * depth * times.block for depth in deepest),
        "dictionaries": len(deepest) * sum(_steps(run, tokens // 2) * s for run, s in zip(runs, times.steps, strict=True)),
        "ablation": checks * (PASSES * (whole + times.output / 2)),
        "null": null * (2 * whole + times.output),
    }
    parts = {name: seconds * ((1 - _SERIAL_SHARE) / processes + _SERIAL_SHARE) for name, seconds in parts.items()}
    passes = 2 * batches + sampled * (2 + shape.layers) + PASSES * checks + 2 * null
    passes += sum(2 * harvested * depth / shape.layers for depth in deepest)
    learnt = math.fsum(
        _FLOPS_A_WEIGHT * run.n_steps * run.batch_size * run.n_latents * run.input_width * len(run.runs) for run in runs
    )
    return Forecast(
        tokens=tokens,
        flops=2.0 * shape.parameters * passes * a_batch + len(deepest) * learnt,
        moved_bytes=float(machine.bytes_a_weight) * shape.parameters * passes,
        disk_bytes=audit_disk_bytes(tokens, shape.layers),
        peak_bytes=_peak_bytes(shape, tokens, a_batch, runs, machine),
        seconds=sum(parts.values()),
        parts=parts,
    )


def _harvested_tokens(width: int, tokens: int, runs: list[Settings]) -> float:
    """How many tokens the harvest of one layer reads: all once where their activations stay in memory, else anew for the
    sweep, for the final dictionaries and for the codes."""
    if not runs or tokens * width * _PAIR_OF_FLOATS <= RESIDENT_BYTES:
        return float(tokens)
    lengths = sorted({run.n_steps for run in runs})
    buffer = min(RESIDENT_BYTES // (2 * width * _PAIR_OF_FLOATS), tokens // 2)
    return (
        sum(steps * runs[0].batch_size + buffer for steps in lengths) + tokens / 2 + 3 * HELD_OUT_TOKENS
    )  # two samples to learn scales by, one to judge


def _steps(run: Settings, tokens: int) -> float:
    """Steps of a run, with those that thresholds and quality on held-out tokens and the codes of the other half are worth."""
    extra = 2 * HELD_OUT_TOKENS + (tokens / 2 if len(run.runs) == 1 else 0.0)
    return run.n_steps + extra / run.batch_size


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The faster of two runs, after one that warms up."""
    times = []
    for _ in range(_TRIALS):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


@torch.no_grad()
def _blocks_seconds(config: Any, n_blocks: int, rows: int, row_length: int, machine: Machine) -> float:
    """Seconds of one batch through a model of that configuration, `n_blocks` deep."""
    device, narrow = torch.device(machine.device), machine.precision == "bfloat16"
    ids = torch.randint(0, config.get_text_config().vocab_size, (rows, row_length), device=device)
    shallow = copy.deepcopy(config)
    text = shallow.get_text_config()
    text.num_hidden_layers = n_blocks
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:n_blocks]
    model = AutoModelForCausalLM.from_config(shallow, dtype=torch.bfloat16 if narrow else torch.float32).eval().to(device)
    with torch.autocast(device.type, torch.bfloat16) if narrow else nullcontext():
        return _seconds(lambda: model(input_ids=ids, use_cache=False).logits, device)


@torch.no_grad()
def _output_seconds(rows: int, row_length: int, vocab_size: int, device: str) -> float:
    """Seconds of everything the survey computes from the two models' logits of one batch."""
    base, tuned = torch.randn(2, rows, row_length, vocab_size, device=device)
    target = torch.zeros(rows, row_length, dtype=torch.long, device=device)
    return _seconds(lambda: read_predictions(base, tuned, target), torch.device(device))


def _runs(width: int, tokens: int, kinds: tuple[Kind, ...]) -> list[Settings]:
    """The dictionaries that an audit trains on `tokens` training tokens: each kind for its full length, then the sweep."""
    n_latents, batch = dictionary_size(width, tokens), batch_size(tokens)
    short, full = run_lengths(tokens, batch)
    runs = [Settings(kind, width, n_latents, (crosscoder_k(n_latents),), (0,), full, batch) for kind in kinds]
    if "change" in kinds:
        runs[0] = Settings("change", width, n_latents, (_LIKELY_K,), (0,), full, batch)
        runs.append(Settings("change", width, n_latents, sweep_ks(n_latents, batch), (0,), short, batch))
    return runs


def _step_seconds(run: Settings, device: str) -> float:
    trainer = Trainer(run, torch.zeros(run.input_width, device=device), torch.ones(run.input_width, device=device))
    x = torch.randn(run.batch_size, run.input_width, device=device)
    return _seconds(lambda: trainer.step_normalised(x), torch.device(device))


def _peak_bytes(shape: Shape, tokens: int, batch_tokens: int, runs: list[Settings], machine: Machine) -> int:
    """The larger of the survey (logits and residual streams of both models) and the dictionaries (activations, weights with
    gradients and two moments, codes of the context dictionary, of which a copy is joined). Of the device: on a GPU the program
    and its tables lie elsewhere."""
    models = shape.parameters * machine.bytes_a_weight * (1 if shape.adapter else 2)
    survey = 2 * batch_tokens * (shape.vocab_size + shape.layers * shape.width) * _FLOAT
    table = tokens * (_TABLE_BYTES + _TABLE_BYTES_A_LAYER * shape.layers)
    a_token = shape.width * _PAIR_OF_FLOATS
    whole, buffer = tokens * a_token, RESIDENT_BYTES // 2 + 3 * HELD_OUT_TOKENS * a_token  # 3: as in `_harvested_tokens`
    kept = 0 if not runs else whole if whole <= RESIDENT_BYTES else buffer
    learnt = max((run.n_latents * run.input_width * _TABLES_OF_WEIGHTS * _FLOAT * len(run.runs) for run in runs), default=0)
    coded = 0 if not runs else min(tokens // 2, CONTEXT_TOKENS if len(runs) > 2 else CODED_TOKENS)
    codes = 2 * _BYTES_A_CODE * _CODES_A_TOKEN * coded  # twice: a copy is joined
    outside = 0 if machine.device.startswith("cuda") else _LIBRARIES_BYTES + table
    return int(outside + models + max(survey, kept + max(learnt, codes)))
