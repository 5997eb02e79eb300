"""Which weights of a pair differ, by how much and at what rank: free, and it already answers "nothing changed"."""

import copy
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mneme.models.matching import matched_tensors, other_differences
from mneme.models.pair import ModelPair, Side
from mneme.models.probing import probe_logits, rounding, same_logits
from mneme.models.sameness import OutputDifference
from mneme.models.slices import blocks_along, flat_slices, frobenius

RANK_LIMIT = 2048
"""Effective ranks are computed of matrices whose smaller side is at most this (a second each on one core at the limit)."""

_SIDES: tuple[Side, Side] = ("base", "tuned")
_ALIKE = 1e-6
"""Relative: two norms of one change, summed in another order."""
_SAME_SUMS = 4
"""Two models of equal tensors run the same sums in the same order; on a GPU some of them come out a little different."""


@dataclass(frozen=True)
class TensorChange:
    """How one tensor of the tuned model differs from the base's."""

    name: str
    shape: tuple[int, ...]
    relative_change: float
    """|W_tuned - W_base| / |W_base| (Frobenius); 1.0 where the base is all zero and the tuned is not."""
    effective_rank: float | None
    """Of W_tuned - W_base; None = unchanged, not a matrix, or larger than the limit."""


@dataclass(frozen=True)
class WeightChanges:
    """Every tensor, and what they come to together. Tied tensors count once."""

    tensors: tuple[TensorChange, ...]
    changed: int
    total: int
    relative_change: float
    """|W_tuned - W_base| / |W_base| over all tensors together (Frobenius)."""
    median_rank: float | None
    """Median effective rank of the changed matrices; None = none changed, or all are larger than the limit."""
    others: tuple[str, ...] = ()
    """What else differs: buffers and settings by name, and the logits of the probe where no tensor does."""
    outputs: OutputDifference | None = None
    """How far the two are from saying the same; None where nobody asked."""

    @property
    def nothing(self) -> bool:
        """True where tensors, buffers, settings and the logits of a probe are all equal: only then has nothing changed."""
        return self.changed == 0 and not self.others


def effective_rank(singular: Float[Tensor, " rank"]) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007): k for k equal ones.

    0.0 for a matrix of zeros.
    """
    total = singular.sum()
    if float(total) <= 0:
        return 0.0
    shares = singular / total
    return float(torch.special.entr(shares).sum().exp())


@torch.no_grad()
def weight_changes(pair: ModelPair, *, rank_limit: int = RANK_LIMIT) -> WeightChanges:
    """Compare the two models tensor by tensor; memory: a few copies of the largest tensor in float64.

    A switched LoRA adapter is read from its factors, other adapters (DoRA, full copies of a module) from the weights they
    make. Differences from an SVD: ranks come from the eigenvalues of the smaller Gram matrix in float64.
    """
    changes: list[TensorChange] = []
    squares_change = squares_base = 0.0
    unwritten: list[str] = []
    pieces = _adapter_deltas(pair, rank_limit, unwritten) if pair.adapter else _deltas(pair, rank_limit)
    for name, base, norm, singular in pieces:
        size = frobenius(base)
        squares_change += norm**2
        squares_base += size**2
        relative = 0.0 if norm == 0 else (norm / size if size > 0 else 1.0)
        rank = None if singular is None or norm == 0 else effective_rank(singular)
        changes.append(TensorChange(name, tuple(base.shape), relative, rank))
    ranks = [change.effective_rank for change in changes if change.effective_rank is not None]
    changed = sum(change.relative_change > 0 for change in changes)
    return WeightChanges(
        tensors=tuple(changes),
        changed=changed,
        total=len(changes),
        relative_change=(squares_change / squares_base) ** 0.5 if squares_base else 0.0,
        median_rank=statistics.median(ranks) if ranks else None,
        others=_others(pair, changed, unwritten),
    )


def _others(pair: ModelPair, changed: int, unwritten: list[str]) -> tuple[str, ...]:
    """What differs beside tensors. `unwritten`: modules whose outputs an adapter changes by more than a change of weights."""
    found = other_differences(pair.base_parts, pair.tuned_parts)
    if unwritten:
        found += (f"outputs of {unwritten[0]}" + (f" and {len(unwritten) - 1} more" if unwritten[1:] else ""),)
    if changed or (pair.base_parts.model is pair.tuned_parts.model and not pair.adapter):
        return found
    logits = []
    for side in _SIDES:
        with pair.using(side, exact=True) as parts:
            logits.append(probe_logits(parts.model, pair.vocab_size))
    same = same_logits(*logits, eps=rounding(pair.base_parts.model, _SAME_SUMS))
    return found if same else (*found, "logits of a probe")


_Delta = tuple[str, Tensor, float, Tensor | None]
"""Name, base weight, norm of the change, singular values of the change (None: not a matrix, or too large)."""


def _deltas(pair: ModelPair, rank_limit: int) -> Iterator[_Delta]:
    norms: dict[int, float] = {}
    for name, base, tuned in matched_tensors(pair.base_parts, pair.tuned_parts):
        delta = _dense(name, base, tuned, rank_limit)
        first = norms.setdefault(base.data_ptr(), delta[2])
        if first is not delta[2] and (delta[2] == 0 or abs(delta[2] - first) <= _ALIKE * first):
            continue  # tied in BASE, and this side of it tells nothing that the other has not told
        yield delta


def _dense(name: str, base: Tensor, tuned: Tensor, rank_limit: int) -> _Delta:
    if base is tuned or (base.dtype == tuned.dtype and torch.equal(base, tuned.to(base.device))):
        return name, base, 0.0, None
    if base.ndim != 2 or min(base.shape) > rank_limit:
        parts = ((one.to(other.device, torch.float64) - other.double()) for one, other in flat_slices(tuned, base))
        return name, base, float(sum(float(part.square().sum()) for part in parts)) ** 0.5, None
    # Slices along the longer side, whose Gram matrices add up: a vocabulary's matrix in float64 is larger than many a model.
    longer = int(base.shape[0] <= base.shape[1])
    gram = torch.zeros(min(base.shape), min(base.shape), dtype=torch.float64, device=base.device)
    for one, other in zip(blocks_along(tuned, longer), blocks_along(base, longer), strict=True):
        delta = one.to(other.device, torch.float64) - other.double()
        gram += delta @ delta.T if longer else delta.T @ delta
    return name, base, float(gram.trace()) ** 0.5, torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()


_Found = dict[str, tuple[Tensor, float, Tensor | None]]
"""Of one module: name of the parameter -> base weight, norm of the change, its singular values."""
_KEPT = {"original_module", "modules_to_save", "ln_tuning_layers"}
"""Where wrappers of peft keep whole modules; what is in them is the wrapper's own business."""
_INSIDE = re.compile(r"\.(base_layer|token_adapter)\b")


def _adapter_deltas(pair: ModelPair, rank_limit: int, unwritten: list[str]) -> Iterator[_Delta]:
    """Of a model whose adapter is switched: what the active adapter adds to each of the base's own tensors. Modules to which
    it adds what no change of their weights could go to `unwritten`.

    Where an adapter changes only one of the modules that share a tensor (a tied head), or both otherwise, each stands for
    itself.
    """
    changed: dict[int, dict[str, tuple[Tensor, float, Tensor | None]]] = {}
    active = pair.peft_model.active_adapter
    for name, module in pair.peft_model.get_base_model().named_modules():
        if not _KEPT.isdisjoint(name.split(".")):
            continue
        deltas = _module_deltas(module, active, rank_limit)
        if deltas is None:
            unwritten.append(_INSIDE.sub("", name))
            continue
        for key, change in deltas.items():
            changed.setdefault(id(change[0]), {})[f"{_INSIDE.sub('', name)}.{key}"] = change
    for name, base in pair.own:
        found = changed.pop(id(base), {})
        _, norm, singular = found.pop(name, (base, 0.0, None))
        yield name, _shared_rows(base, pair), norm, singular
        for other, (_, size, values) in found.items():
            if abs(size - norm) > _ALIKE * norm:
                yield other, _shared_rows(base, pair), size, values
    for found in changed.values():  # tensors that the base does not have
        for name, (base, norm, singular) in found.items():
            yield name, base, norm, singular


def _module_deltas(module: Any, active: str, rank_limit: int) -> _Found | None:
    if active in getattr(module, "modules_to_save", {}):
        copies = dict(module.modules_to_save[active].named_parameters())
        pairs = ((key, base, copies[key]) for key, base in module.original_module.named_parameters())
        return {key: (base, *_dense(key, base, copy, rank_limit)[2:]) for key, base, copy in pairs}
    if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
        return _layer_deltas(module, active, rank_limit)
    return {}


def _shared_rows(weight: Tensor, pair: ModelPair) -> Tensor:
    """Without the rows of vocabulary that only TUNED has."""
    modules = (pair.base_parts.embedding, pair.base_parts.head)
    of_vocabulary = any(weight is own for module in modules for own in module.parameters())
    return weight[: pair.vocab_size] if of_vocabulary and len(weight) > pair.vocab_size else weight


def _layer_deltas(layer: Any, active: str, rank_limit: int) -> _Found | None:
    """None where what the adapter adds to the layer is no change of its weights. Kinds differ in how well they take back a
    merge, so a copy of the layer is merged."""
    base = layer.get_base_layer()
    if _of_two_factors(layer, base, active):
        return _factors(layer, base, active)
    copied = copy.deepcopy(layer)
    try:
        copied.merge(adapter_names=[active])
    except (NotImplementedError, ValueError, RuntimeError, AttributeError):
        return None
    merged = dict(copied.get_base_layer().named_parameters(recurse=False))  # some kinds put another module there
    found: _Found = {}
    for key, weight in base.named_parameters(recurse=False):
        _, _, norm, singular = _dense(key, weight, merged[key], rank_limit)
        if norm > 0:
            found[key] = weight, norm, singular
    return found


def _of_two_factors(layer: Any, base: nn.Module, active: str) -> bool:
    """Is the change up @ down of two plain matrices, and nothing beside it (no magnitude, no variant of LoRA)?"""
    if active not in getattr(layer, "lora_A", {}):
        return False
    if active in getattr(layer, "lora_variant", {}) or getattr(layer, "use_dora", {}).get(active, False):
        return False
    return isinstance(base, nn.Linear) and type(layer.lora_A[active]) is type(layer.lora_B[active]) is nn.Linear


def _factors(layer: Any, base: nn.Linear, active: str) -> _Found:
    """A LoRA's product from its factors: exact ranks without a dense matrix; and the bias that it may have."""
    down = layer.lora_A[active].weight.detach().double()
    up = layer.lora_B[active].weight.detach().double() * layer.scaling[active]
    core = torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T
    singular = torch.linalg.svdvals(core)
    found: _Found = {"weight": (base.weight, float(singular.norm()), singular)}
    bias = layer.lora_B[active].bias
    if bias is not None:
        before = base.bias if base.bias is not None else torch.zeros_like(bias)
        found["bias"] = before, frobenius(bias) * abs(layer.scaling[active]), None
    return found
