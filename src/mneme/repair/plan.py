"""What a repair will cost, from shapes and the length of the probes alone. Ours."""

from mneme.repair.workbench import Workbench
from mneme.text.probes import Probe

_EVALUATIONS = 8
"""Strengths that the search tries of a method, on average."""
_RATE = 20e9
"""Nominal FLOP/s of two ordinary cores, as in the plan of an audit."""


def second_order_flops(widths: list[tuple[int, int]]) -> float:
    """Floating-point operations of one application of `obs` to linear maps of (d_out, d_in): inverse, two Cholesky factors,
    two products with a Gram."""
    return float(sum(2 * d_in**3 + 5 * d_out * d_in**2 for d_out, d_in in widths))


def plan_repair(bench: Workbench, probes: dict[str, Probe], n_methods: int) -> str:
    """One sentence: methods, tokens, GFLOP, minutes."""
    tokens = sum(len(text.ids) for probe in probes.values() for text in probe.texts)
    parameters = bench.pair.n_parameters
    forward = 2.0 * parameters * tokens * _EVALUATIONS * n_methods
    widths = [(bench.base_weight(name).shape[0], bench.base_weight(name).shape[1]) for name in bench.names]
    flops = forward + 2 * _EVALUATIONS * second_order_flops(widths)
    return (
        f"Plan: {n_methods} methods, about {_EVALUATIONS} strengths each, {tokens:,} tokens a strength, "
        f"{flops / 1e9:,.0f} GFLOP, about {flops / _RATE / 60:.1f} min on two ordinary cores."
    )
