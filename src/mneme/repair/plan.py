"""What a repair will take, said before it starts, from a small piece of its reading, here and now. Ours."""

from mneme.models.footprint import likelihood_footprint, peak_bytes
from mneme.options import counted
from mneme.repair.workbench import Workbench
from mneme.text.probes import Probe

_EVALUATIONS = 8
"""Strengths that the search tries of a method, on average."""


def second_order_flops(widths: list[tuple[int, int]]) -> float:
    """Floating-point operations of one application of `obs` to linear maps of (d_out, d_in): inverse, two Cholesky factors,
    two products with a Gram."""
    return float(sum(2 * d_in**3 + 5 * d_out * d_in**2 for d_out, d_in in widths))


def plan_repair(bench: Workbench, probes: dict[str, Probe], methods: list[str], gram_bytes: int) -> str:
    """One sentence: methods, tokens, seconds and memory here. Both models are in memory and have read the probes before this
    is said, so that what was needed until now is what will be, but for Grams, of which at most `gram_bytes` are held."""
    texts = [text for probe in probes.values() for text in probe.texts]
    tokens = sum(len(text.ids) for text in texts)
    own = likelihood_footprint(bench.work, texts, bench.work.embedding.parameters())
    seconds = own.forward_seconds * tokens * _EVALUATIONS * len(methods)
    widths = [(bench.base_weight(name).shape[0], bench.base_weight(name).shape[1]) for name in bench.names]
    grams = min(gram_bytes, sum(4 * d_in**2 for _, d_in in widths)) if {"obs", "regmean"} & set(methods) else 0
    if "obs" in methods:
        seconds += _EVALUATIONS * second_order_flops(widths) * own.forward_seconds / (2.0 * bench.pair.n_parameters)
    return (
        f"Plan: {counted(len(methods), 'method')}, about {_EVALUATIONS} strengths each, {tokens:,} tokens a strength, about "
        f"{seconds:,.0f} s here, peak memory about {(peak_bytes() + grams) / 1e9:.1f} GB."
    )
