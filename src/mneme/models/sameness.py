"""How far two models are from saying the same, on a few tokens: an adapter against its merge, a checkpoint against its export.

Whether they are the same *to rounding* is a statement about every weight: files that hold one model in two precisions differ,
at each element, by no more than the coarser of the two rounds off. Small weights of a change would hide below a norm, so no
norm is asked. Where both lie in one precision no rounding stands between them, and only equal weights are the same.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from mneme.models.checkpoints import is_adapter, is_gguf, weight_files
from mneme.models.hooks import read_residuals
from mneme.models.logits import token_kl_tuned_to_base
from mneme.models.matching import matched_tensors
from mneme.models.pair import ModelPair, Side
from mneme.models.probing import probe_ids, probe_logits
from mneme.models.slices import flat_slices

_EPSILONS = {"F64": 2.0**-52, "F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}
"""Distance of 1 to the next number, by the name that safetensors gives the format; its half is the largest rounding of a
normal number, the whole what two roundings in a row (a product, then a sum) may come to."""
_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_READ = 1e-5
"""Relative change of a residual stream that sums in float32 may leave, in another order: some 100 roundings of 2^-24."""
_SIDES: tuple[Side, Side] = ("base", "tuned")


class OutputDifference(NamedTuple):
    """Two models on one probe text."""

    kl: float
    """Mean KL(tuned || base) of the next token, nats."""
    largest: float
    """Largest difference of a logit, in units of the largest logit."""
    first_layer: int | None
    """First block behind which the residual streams differ by more than reading leaves; None: none does."""
    relative: float
    """|h_tuned - h_base| / |h_base| behind that block (Frobenius, over the probe); 0 where there is none."""
    same_to: str | None
    """The format whose rounding explains every difference of the weights; None where it does not."""


@torch.no_grad()
def output_difference(pair: ModelPair) -> OutputDifference:
    """Read the probe with both models; costs milliseconds beside the weights, which are compared element by element."""
    logits, streams = [], []
    layers = list(range(pair.n_layers))
    for side in _SIDES:
        with pair.using(side, exact=True) as parts:
            logits.append(probe_logits(parts.model, pair.vocab_size))
            found = read_residuals(parts, probe_ids(parts.model, pair.vocab_size), layers)
            streams.append([found[layer].float().cpu() for layer in layers])
    shares = [
        float((tuned - base).norm() / base.norm().clamp_min(_READ)) for base, tuned in zip(streams[0], streams[1], strict=True)
    ]
    first = next((layer for layer, share in enumerate(shares) if share > _READ), None)
    kl = token_kl_tuned_to_base(tuned_logits=logits[1], base_logits=logits[0]).mean()
    largest = (logits[1] - logits[0]).abs().max() / logits[0].abs().max().clamp_min(_READ)
    return OutputDifference(
        kl=float(kl),
        largest=float(largest),
        first_layer=first,
        relative=0.0 if first is None else shares[first],
        same_to=_same_to_rounding(pair),
    )


def _same_to_rounding(pair: ModelPair) -> str | None:
    """The coarser format of the two files, if its rounding explains every element. An adapter that is switched is a change of
    its base whatever its size; two models of one format are the same where they are equal."""
    if pair.adapter or pair.precision != "float32":
        return None
    formats = [coarsest_format(folder) for folder in (pair.base_folder, pair.tuned_folder)]
    if None in formats:
        return None
    whole = formats[0] != formats[1] or is_adapter(pair.base_folder) or is_adapter(pair.tuned_folder)
    coarse = max((one for one in formats if one), key=lambda name: _EPSILONS[name])
    epsilon = _EPSILONS[coarse] if whole else 0.0
    for _, base, tuned in matched_tensors(pair.base_parts, pair.tuned_parts):
        for first, second in flat_slices(base, tuned):
            one, other = first.float(), second.to(first.device).float()
            if bool(((one - other).abs() > epsilon * torch.maximum(one.abs(), other.abs())).any()):
                return None
    return _NAMES[coarse]


def coarsest_format(folder: Path) -> str | None:
    """The name, as safetensors has it, of the coarsest floating format of a folder's weights; None for formats that are
    quantized or otherwise not listed, and for GGUF."""
    if is_gguf(folder):
        return None
    found: set[str] = set()
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            found |= {opened.get_slice(name).get_dtype() for name in opened.keys()}  # noqa: SIM118 - not a dict
    found -= {"BOOL", "I64"}  # masks and positions
    if not found or not found <= set(_EPSILONS):
        return None
    return max(found, key=lambda name: _EPSILONS[name])
