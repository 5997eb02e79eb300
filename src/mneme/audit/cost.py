"""What an audit costs at a nominal rate, from shapes alone: said before it starts, kept in the report, equal on every machine.

What it will take on this machine is tried out instead (`audit/forecast.py`; docs/decisions/0001).
"""

from typing import NamedTuple

from mneme.audit.dictionary import SWEEP, dictionary_size
from mneme.dictionaries.crosscoder import Kind
from mneme.models.pair import ModelPair
from mneme.results import Cost

NOMINAL_FLOPS = 2e10
"""Rate that planned seconds assume: 20 GFLOP/s, two ordinary cores; the same plan on every machine."""


class Plan(NamedTuple):
    """What an audit costs, and the space that its folder needs."""

    cost: Cost
    disk_bytes: int


def audit_disk_bytes(tokens: int, model_layers: int) -> int:
    """What a run writes: a row of numbers for every token, two more for every layer of the models, and 64 MB of the rest."""
    return tokens * (60 + 2 * model_layers) + 64_000_000


def nominal_cost(pair: ModelPair, tokens: int, row_length: int, n_layers: int, kind: Kind | None) -> Plan:
    """2 FLOPs a parameter and token forward; the sweep's and the final dictionary's encoder product three times over (forward
    and two sparse gradients); causal checks 7 passes of 8 rows for about 24 latents a layer."""
    parameters, width = pair.n_parameters, pair.width
    n_layers = n_layers if kind else 0
    n_latents = dictionary_size(width, tokens // 2)
    survey = 2 * tokens * 2 * parameters
    harvest = 2 * tokens * 2 * parameters * n_layers
    members = len(SWEEP) if kind == "change" else 0
    learnt = 200 * 1024 * members + max(400 * 1024, tokens // 2)
    inputs = width if kind == "change" else 2 * width
    dictionaries = 3 * 2 * learnt * inputs * n_latents * n_layers
    checks = 24 * 7 * 8 * row_length * 2 * parameters * n_layers
    flops = float(survey + harvest + dictionaries + checks)
    logits = 2 * 3 * min(4096 * pair.vocab_size, 1 << 26) * 4
    models = parameters * 4 * (1 if pair.adapter else 2)
    resident = min(tokens // 2 * width * 8, 1 << 30) * 2
    peak = 800_000_000 + models + logits + resident + members * n_latents * inputs * 4 * 4
    return Plan(
        Cost(seconds=round(flops / NOMINAL_FLOPS, 1), tokens=tokens * 2 * (2 + n_layers), peak_bytes=int(peak), flops=flops),
        disk_bytes=audit_disk_bytes(tokens, pair.n_layers),
    )
