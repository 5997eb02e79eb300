"""What an audit costs at a nominal rate, from shapes alone: said before it starts, kept in the report, equal on every machine.

What it will take on this machine is tried out instead (`audit/forecast.py`; docs/decisions/0001).
"""

from typing import NamedTuple

from mneme.audit.ablation import ROWS_A_LATENT
from mneme.audit.dictionary import SWEEP, dictionary_size
from mneme.dictionaries.crosscoder import Kind
from mneme.diff.causal import PASSES
from mneme.models.pair import ModelPair
from mneme.results import Cost

NOMINAL_FLOPS = 2e10
"""Rate that planned seconds assume: 20 GFLOP/s, two ordinary cores; the same plan on every machine."""
_BYTES_A_TOKEN, _BYTES_A_TOKEN_AND_LAYER = 60, 2
"""Stored of every token: the survey's columns are 26 bytes, the rest is for the reading and the codes; of every layer |q|/|h|
in half precision."""
_BYTES_BESIDE = 64_000_000
"""Stored whatever the text: dictionaries, report and page. A round number that was never varied."""
_LATENTS_CHECKED = 24
"""Latents ablated at a layer: the 12 strongest and about as many behind effects. Never varied."""
_STEP_TOKENS, _SWEEP_STEPS, _FINAL_STEPS = 1024, 200, 400
"""A step, a run of the sweep and the shortest final run, as in `audit/dictionary.py` for all but short texts."""
_PRODUCTS_A_STEP = 3
"""A training step in products of the encoder: forward and two gradients, as if dense. Measured: 1.27 (docs/benchmarks.md)."""
_LIBRARIES_BYTES = 800_000_000
"""Memory of Python, torch and transformers and of small work: 680 MB measured (`audit/forecast.py`), rounded up."""
_BATCH_TOKENS, _BATCH_LOGITS = 4096, 1 << 26
"""A batch of the survey, and its logits at most (`batch_rows_for`)."""
_TABLES_OF_LOGITS = 3
"""Alive at once of each model: logits, log-probabilities, probabilities."""
_RESIDENT_BYTES = 1 << 30
"""Activations in memory at most, both halves of the text together and rounded up (`audit/dictionary.py` keeps to half of
it)."""
_FLOAT, _PAIR_OF_FLOATS = 4, 8
"""Bytes of a number in float32, and of m with q."""
_TABLES_OF_WEIGHTS = 4
"""Alive of a dictionary in training: weights, gradients and the two moments of Adam."""


class Plan(NamedTuple):
    """What an audit costs, and the space that its folder needs."""

    cost: Cost
    disk_bytes: int


def audit_disk_bytes(tokens: int, model_layers: int) -> int:
    """What a run writes: a row of numbers for every token, two more for every layer of the models, and 64 MB of the rest."""
    return tokens * (_BYTES_A_TOKEN + _BYTES_A_TOKEN_AND_LAYER * model_layers) + _BYTES_BESIDE


def nominal_cost(pair: ModelPair, tokens: int, row_length: int, n_layers: int, kind: Kind | None) -> Plan:
    """2 FLOPs a parameter and token forward; three products of the encoder a training step of the sweep and of the final
    dictionary; causal checks of about 24 latents a layer."""
    parameters, width = pair.n_parameters, pair.width
    n_layers = n_layers if kind else 0
    n_latents = dictionary_size(width, tokens // 2)
    survey = 2 * tokens * 2 * parameters
    harvest = 2 * tokens * 2 * parameters * n_layers
    members = len(SWEEP) if kind == "change" else 0
    learnt = _SWEEP_STEPS * _STEP_TOKENS * members + max(_FINAL_STEPS * _STEP_TOKENS, tokens // 2)
    inputs = width if kind == "change" else 2 * width
    dictionaries = _PRODUCTS_A_STEP * 2 * learnt * inputs * n_latents * n_layers
    checks = _LATENTS_CHECKED * PASSES * ROWS_A_LATENT * row_length * 2 * parameters * n_layers
    flops = float(survey + harvest + dictionaries + checks)
    logits = 2 * _TABLES_OF_LOGITS * min(_BATCH_TOKENS * pair.vocab_size, _BATCH_LOGITS) * _FLOAT
    models = parameters * _FLOAT * (1 if pair.adapter else 2)
    resident = min(tokens // 2 * width * _PAIR_OF_FLOATS, _RESIDENT_BYTES) * 2
    learning = members * n_latents * inputs * _TABLES_OF_WEIGHTS * _FLOAT
    peak = _LIBRARIES_BYTES + models + logits + resident + learning
    return Plan(
        Cost(seconds=round(flops / NOMINAL_FLOPS, 1), tokens=tokens * 2 * (2 + n_layers), peak_bytes=int(peak), flops=flops),
        disk_bytes=audit_disk_bytes(tokens, pair.n_layers),
    )
