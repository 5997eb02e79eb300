"""What an audit will take on this machine, said before any weight is loaded: from the two configurations and the text.

Times come from trying the parts out at their real shapes, with random numbers: one and two blocks of the model's own
architecture on one batch, the arithmetic on one batch of logits, and a few steps of the dictionaries. They are then counted as
often as the audit will run them. Memory and bytes follow from shapes.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from mneme.activations.harvest import ALONE
from mneme.audit.ablation import ROWS_A_LATENT
from mneme.audit.choosing import text_to_read
from mneme.audit.cost import audit_disk_bytes
from mneme.audit.dictionary import (
    CODED_TOKENS,
    CONTEXT_TOKENS,
    HELD_OUT_TOKENS,
    planned_runs,
    shared_out,
)
from mneme.audit.halves import RESIDENT_BYTES
from mneme.audit.inputs import (
    check_chosen_layers,
    chosen_kind,
    first_device,
    planned_tokenizer,
    precision_for,
    required_corpus,
    trained_kinds,
    with_quick,
)
from mneme.audit.lacking import may_write, wanted_text
from mneme.audit.options import AuditOptions
from mneme.audit.surveying import batch_rows_for
from mneme.audit.work import NOTHING, Work, count_work, find_layout
from mneme.audit.writing import WRITTEN_TOGETHER
from mneme.dictionaries.crosscoder import Kind
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.diff.causal import PASSES
from mneme.diff.patching import PLACES
from mneme.diff.survey import read_predictions
from mneme.models.adapter_files import named_base
from mneme.models.batching import BATCH_TOKENS
from mneme.models.checkpoints import is_adapter, is_gguf, resolve_folder, weight_files
from mneme.models.pair import Precision
from mneme.models.ranks import Ranks
from mneme.models.safe_config import empty_model, read_config, read_gguf_config
from mneme.models.threads import at_once
from mneme.predict.areas import default_areas, read_areas
from mneme.text.documents import read_corpus

LATENTS_CHECKED = 12
"""Latents ablated at a layer: the strongest. Up to twice as many where effects are found, which nothing tells beforehand."""
_LIBRARIES_BYTES = 680_000_000
"""Resident memory of Python with torch and transformers imported, and what the allocator keeps of small work."""
_SERIAL_SHARE = 0.03
"""Share of every part that is no faster with more processes: a guess, not fitted. Two processes were measured 1.47 and later
1.60 times as fast as one (docs/log.md, scale), start and end included, which these parts leave out."""
_TRIED_ROWS, _HEAD_ROWS, _TRIED_VOCABULARY = 8, 256, 4096
"""What the parts are tried out on: rows of text in a block, places for the head, and a vocabulary for the embedding, whose
size costs nothing but memory."""
_HEAD_VOCABULARY = 1 << 15
"""Ids of the head that are tried, and multiplied up: with 262,144 the trial took more memory than the audit."""
_BLOCK_WIDTHS = 16
"""Residual widths that a block holds of each token while it runs: attention's and the wider layer's, beside each other."""
_LOGITS_COPIES = 5
"""Logits of some places at once, at most 64 MB: both models', their shares, and what is made of them."""


class Shape(NamedTuple):
    """A pair of models, known from their configurations."""

    config: Any
    parameters: int
    width: int
    layers: int
    vocab_size: int
    adapter: bool


class Hardware(NamedTuple):
    """Where an audit runs, and in which precision."""

    device: str = "cpu"
    precision: Precision = "float32"
    processes: int = 1
    """They share the work of each part."""

    @property
    def bytes_a_weight(self) -> int:
        """Of the models; stored ones may be wider than planned here."""
        return 4 if self.precision == "float32" else 2


HERE = Hardware()


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
    """The shape of a pair, from config.json, adapter_config.json and the headers of the weights. Raises ModelNotFound,
    UnsafeWeights or BrokenWeights."""
    folder = resolve_folder(base, trust_remote_code=trust_remote_code)
    if is_adapter(folder):
        folder = resolve_folder(named_base(folder))
    if is_gguf(folder):
        config = read_gguf_config(folder)
    else:
        files = weight_files(folder) if any(folder.glob("*.safetensors")) else None
        config = read_config(folder, files, trust_remote_code)
    model, text = empty_model(config, trust_remote_code), config.get_text_config()
    return Shape(
        config=config,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        width=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
        vocab_size=int(text.vocab_size),
        adapter=is_adapter(resolve_folder(tuned, trust_remote_code=trust_remote_code)),
    )


def forecast_run(options: AuditOptions, *, processes: int = 1) -> Forecast:
    """What the audit with these `options` (BASE, TUNED and text named) will take on this machine: both configurations, the
    tokenizer and the text are read, and the parts are tried out with random numbers.

    Errors: those of `audit` about its inputs.
    """
    options = with_quick(options)
    assert options.base is not None
    assert options.tuned is not None
    trust, device = options.machine.trust_remote_code, options.machine.device
    base = options.base
    if options.adapter_base is not None and is_adapter(resolve_folder(base, trust_remote_code=trust)):
        base = options.adapter_base
    elif is_adapter(resolve_folder(base, trust_remote_code=trust)):
        base = named_base(resolve_folder(base, trust_remote_code=trust))
    shape = shape_of(base, options.tuned, trust_remote_code=trust)
    check_chosen_layers(options.layers, shape.layers)
    tokenizer = planned_tokenizer(options, base)
    longest = getattr(shape.config.get_text_config(), "max_position_embeddings", None)
    documents = read_corpus(required_corpus(options.corpus), tokenizer=tokenizer)
    areas, quick = read_areas(Path(options.areas)) if options.areas else default_areas(), options.quick
    documents, rows = text_to_read(documents, tokenizer, areas, longest, options.tokens)
    laid = find_layout(documents, rows, areas, tokenizer, longest=longest, seed=options.seed, quick=quick)
    texts = wanted_text(laid, areas, options.tokens, writing=may_write(options)).texts()
    return forecast(
        shape,
        rows.ids.numel(),
        rows.ids.shape[1],
        chosen_kind(options.dictionary),
        machine=Hardware(first_device(device), precision_for(device, options.machine.precision), processes),
        layers=list(options.layers or []) or None,
        work=count_work(laid, longest=longest, quick=quick, texts=texts),
    )


def forecast(
    shape: Shape,
    tokens: int,
    row_length: int,
    kind: Kind | None,
    *,
    machine: Hardware = HERE,
    layers: list[int] | None = None,
    work: Work = NOTHING,
    ranks: Ranks = ALONE,
) -> Forecast:
    """Try the parts out and count them; takes about a second. `work`: what is read beside the dictionaries. `layers` None: the
    survey will choose one, taken here to lie in the middle. What it takes to load the program and the models is not in it. The
    trials are shared out among `ranks`, which must all call this. Nobody else's random numbers are touched."""
    rows = batch_rows_for(row_length, shape.vocab_size)
    runs = planned_runs(shape.width, tokens // 2, trained_kinds(kind))
    trials = [
        *(partial(_blocks_seconds, shape, depth, (_TRIED_ROWS, row_length), machine) for depth in (1, 2)),
        partial(_head_seconds, shape, machine.device),
        partial(_output_seconds, shape.vocab_size, machine.device),
        *(partial(_step_seconds, run, machine.device) for run in runs),
        *(partial(_blocks_seconds, shape, depth, (WRITTEN_TOGETHER, 1), machine) for depth in (1, 2) if work.written.tokens),
    ]
    found = torch.zeros(len(trials), dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        for index in ranks.own(range(len(trials))):
            found[index] = trials[index]()
    one, two, head, output, *more = ranks.total(found).tolist()
    block, ends = _of_depth(one, two, _TRIED_ROWS * row_length)
    steps, written = more[: len(runs)], more[len(runs) :]
    word, beside = _of_depth(written[0], written[1], WRITTEN_TOGETHER) if written else (0.0, 0.0)
    times = _Times(
        block=block,
        ends=ends,
        head=head / _HEAD_ROWS,
        output=output / _HEAD_ROWS,
        steps=steps,
        word=beside + shape.layers * word,
    )
    return _counted(shape, tokens, (rows, row_length), kind, layers, work, times, machine)


def _of_depth(one: float, two: float, tokens: int) -> tuple[float, float]:
    """Seconds of one of `tokens` tokens in a block and beside the blocks, from those of models of one and two blocks."""
    block = max(two - one, 0.05 * one)
    return block / tokens, max(one - block, 0.0) / tokens


class _Times(NamedTuple):
    """Seconds of one token in a block, and in what does not depend on depth; of one place at which the head is asked, and at
    which all is computed from the logits of both models; of one step of each training run."""

    block: float
    ends: float
    head: float
    output: float
    steps: list[float]
    word: float
    """Of one token that is written, in all blocks: some texts at once, one token after another."""


def _counted(
    shape: Shape,
    tokens: int,
    batch_shape: tuple[int, int],
    kind: Kind | None,
    layers: list[int] | None,
    work: Work,
    times: _Times,
    machine: Hardware,
) -> Forecast:
    rows, row_length = batch_shape
    a_batch = rows * row_length
    deepest = [] if kind is None else [layer + 1 for layer in layers] if layers else [shape.layers // 2]
    runs = planned_runs(shape.width, tokens // 2, trained_kinds(kind))
    harvested = _harvested_tokens(shape.width, tokens, runs)
    body = times.ends + shape.layers * times.block
    logits = body + times.head
    checked = LATENTS_CHECKED * ROWS_A_LATENT * row_length
    columns, sampled = (tokens, min(tokens, 4096)) if kind else (0, 0)
    # Layers are looked for in two rounds, every so many and then those between; where they are named only those are patched.
    patches, rounds = (len(layers), 1) if layers else (2 * math.sqrt(shape.layers), 2)
    ablated = sum(shape.layers + (PASSES - 2) * (shape.layers - depth) for depth in deepest)
    parts = {
        "own words": 2 * (work.words.tokens * body + work.words.rows * times.head),
        "paired answers": 2 * (work.answers.tokens * body + work.answers.rows * times.head),
        "behaviours": 2 * (work.behaviours.tokens * body + work.behaviours.rows * times.head),
        "survey": columns / 2 * (2 * logits + times.output + max(deepest, default=0) * times.block),
        "layers": sampled * (2 * (1 + rounds) + patches / 2) * shape.layers * times.block
        + min(sampled, PLACES) * 2 * (patches + rounds) * times.head,
        "harvest": harvested * sum(2 * depth * times.block for depth in deepest),
        "dictionaries": len(deepest) * sum(_steps(run, tokens // 2) * s for run, s in zip(runs, times.steps, strict=True)),
        "ablation": checked * (len(deepest) * (body + PASSES * times.head / 2) + times.block * ablated),
        "null": work.null_readings * (work.null.tokens * body + work.null.rows * times.head),
        "writing": work.written.tokens * (times.word + times.head),
        "written words": 2 * (work.written.tokens * body + work.written.rows * times.head)
        + work.null_readings * (work.written_null.tokens * body + work.written_null.rows * times.head),
    }
    parts = {name: seconds * ((1 - _SERIAL_SHARE) / machine.processes + _SERIAL_SHARE) for name, seconds in parts.items()}
    read: float = (
        2 * (work.words.tokens + work.answers.tokens + work.behaviours.tokens) + work.null_readings * work.null.tokens
    )
    read += work.null_readings * work.written_null.tokens + 3 * work.written.tokens
    read += columns * (1 + max(deepest, default=0) / shape.layers / 2) + sampled * (2 * (1 + rounds) + patches / 2)
    passed = read + sum(2 * harvested * depth / shape.layers for depth in deepest)
    passed += checked * (len(deepest) + ablated / shape.layers)
    learnt = math.fsum(6.0 * run.n_steps * run.batch_size * run.n_latents * run.input_width * len(run.runs) for run in runs)
    return Forecast(
        tokens=tokens,
        flops=2.0 * shape.parameters * passed + len(deepest) * learnt,
        moved_bytes=float(machine.bytes_a_weight) * shape.parameters * passed / a_batch,
        disk_bytes=audit_disk_bytes(tokens, shape.layers),
        peak_bytes=_peak_bytes(shape, tokens, a_batch, runs, machine, work),
        seconds=sum(parts.values()),
        parts=parts,
    )


def _harvested_tokens(width: int, tokens: int, runs: list[Settings]) -> float:
    """How many tokens the harvest of one layer reads: all once where their activations stay in memory, else anew for the
    sweep, for the final dictionaries and for the codes."""
    if not runs or tokens * width * 8 <= RESIDENT_BYTES:
        return float(tokens)
    lengths = sorted({run.n_steps for run in runs})
    buffer = min(RESIDENT_BYTES // (width * 16), tokens // 2)
    return sum(steps * runs[0].batch_size + buffer for steps in lengths) + tokens / 2 + 3 * HELD_OUT_TOKENS


def _steps(run: Settings, tokens: int) -> float:
    """Steps of a run, with those that thresholds and quality on held-out tokens and the codes of the other half are worth."""
    extra = 2 * HELD_OUT_TOKENS + (tokens / 2 if len(run.runs) == 1 else 0.0)
    return run.n_steps + extra / run.batch_size


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The faster of two runs, after one that warms up."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


@torch.no_grad()
def _blocks_seconds(shape: Shape, n_blocks: int, size: tuple[int, int], machine: Hardware) -> float:
    """Seconds of rows of that size through one of the two models, `n_blocks` deep: half of what both take where they run at
    the same time (`mneme.models.sides`)."""
    device, narrow = torch.device(machine.device), machine.precision == "bfloat16"
    shallow = copy.deepcopy(shape.config)
    text = shallow.get_text_config()
    text.num_hidden_layers = n_blocks
    text.vocab_size = min(text.vocab_size, _TRIED_VOCABULARY)
    ids = torch.randint(0, text.vocab_size, size, device=device)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:n_blocks]
    model = AutoModelForCausalLM.from_config(shallow, dtype=torch.bfloat16 if narrow else torch.float32).eval().to(device)

    def forward() -> None:
        with torch.autocast(device.type, torch.bfloat16) if narrow else nullcontext():
            model.base_model(input_ids=ids, use_cache=False)

    sides = _at_the_same_time(shape, machine)
    return _seconds(lambda: at_once([forward] * sides), device) / sides


def _at_the_same_time(shape: Shape, machine: Hardware) -> int:
    """Models that run at once (`mneme.models.sides`)."""
    return 2 if machine.device == "cpu" and not shape.adapter and torch.get_num_threads() > 1 else 1


@torch.no_grad()
def _head_seconds(shape: Shape, device: str) -> float:
    """Seconds of the head, with the softmax, at `_HEAD_ROWS` places."""
    tried = min(shape.vocab_size, _HEAD_VOCABULARY)
    states, weight = torch.randn(_HEAD_ROWS, shape.width, device=device), torch.randn(tried, shape.width, device=device)
    return shape.vocab_size / tried * _seconds(lambda: (states @ weight.T).logsumexp(-1), torch.device(device))


@torch.no_grad()
def _output_seconds(vocab_size: int, device: str) -> float:
    """Seconds of everything the survey computes from the two models' logits of `_HEAD_ROWS` places."""
    tried = min(vocab_size, _HEAD_VOCABULARY)
    base, tuned = torch.randn(2, 1, _HEAD_ROWS, tried, device=device)
    target = torch.zeros(1, _HEAD_ROWS, dtype=torch.long, device=device)
    return vocab_size / tried * _seconds(lambda: read_predictions(base, tuned, target), torch.device(device))


def _step_seconds(run: Settings, device: str) -> float:
    zeros, ones = torch.zeros(run.input_width, device=device), torch.ones(run.input_width, device=device)
    parts = shared_out(run.ks, torch.device(device))
    trainers = [Trainer(dataclasses.replace(run, ks=ks), zeros, ones) for ks in parts]
    x = torch.randn(run.batch_size, run.input_width, device=device)
    return _seconds(lambda: at_once([partial(trainer.step_normalised, x) for trainer in trainers]), torch.device(device))


def _peak_bytes(shape: Shape, tokens: int, batch_tokens: int, runs: list[Settings], machine: Hardware, work: Work) -> int:
    """The larger of the survey (logits and residual streams of both models) and the dictionaries (activations, weights with
    gradients and two moments, codes of the context dictionary, of which a copy is joined). Of the device: on a GPU the program
    and its tables lie elsewhere."""
    models = shape.parameters * machine.bytes_a_weight * (1 if shape.adapter else 2)
    together = min(BATCH_TOKENS, work.words.tokens + work.answers.tokens)
    places = 4 * shape.vocab_size * (work.words.rows + work.answers.rows)
    reading = _at_the_same_time(shape, machine) * together * shape.width * _BLOCK_WIDTHS * 4 + _LOGITS_COPIES * min(
        places, 1 << 26
    )
    survey = 2 * batch_tokens * (shape.vocab_size + shape.layers * shape.width) * 4 if runs else 0
    table = tokens * (80 + 3 * shape.layers)
    whole, buffer = tokens * shape.width * 8, RESIDENT_BYTES // 2 + 3 * HELD_OUT_TOKENS * shape.width * 8
    kept = 0 if not runs else whole if whole <= RESIDENT_BYTES else buffer
    learnt = max((run.n_latents * run.input_width * 8 * 4 * len(run.runs) for run in runs), default=0)
    coded = 0 if not runs else min(tokens // 2, CONTEXT_TOKENS if len(runs) > 2 else CODED_TOKENS)
    codes = 2 * 20 * 32 * coded
    outside = 0 if machine.device.startswith("cuda") else _LIBRARIES_BYTES + table
    return int(outside + models + max(reading, survey, kept + max(learnt, codes)))
