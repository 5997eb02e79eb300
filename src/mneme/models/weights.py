"""Which weights of a pair differ, by how much and at what rank: free, and it already answers "nothing changed"."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mneme.models.pair import ModelPair

RANK_LIMIT = 2048
"""Effective ranks are computed of matrices whose smaller side is at most this (a second each on one core at the limit)."""


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
    pieces = _adapter_deltas(pair, rank_limit) if pair.adapter else _deltas(pair, rank_limit)
    for name, base, norm, singular in pieces:
        size = _norm(base)
        squares_change += norm**2
        squares_base += size**2
        relative = 0.0 if norm == 0 else (norm / size if size > 0 else 1.0)
        rank = None if singular is None or norm == 0 else effective_rank(singular)
        changes.append(TensorChange(name, tuple(base.shape), relative, rank))
    ranks = [change.effective_rank for change in changes if change.effective_rank is not None]
    return WeightChanges(
        tensors=tuple(changes),
        changed=sum(change.relative_change > 0 for change in changes),
        total=len(changes),
        relative_change=(squares_change / squares_base) ** 0.5 if squares_base else 0.0,
        median_rank=statistics.median(ranks) if ranks else None,
    )


_Delta = tuple[str, Tensor, float, Tensor | None]
"""Name, base weight, norm of the change, singular values of the change (None: not a matrix, or too large)."""


def _deltas(pair: ModelPair, rank_limit: int) -> Iterator[_Delta]:
    tuned = dict(pair.tuned_parts.model.named_parameters())
    for name, base in pair.base_parts.model.named_parameters():
        yield _dense(name, base, tuned[name], rank_limit)


def _dense(name: str, base: Tensor, tuned: Tensor, rank_limit: int) -> _Delta:
    if base is tuned or (base.dtype == tuned.dtype and torch.equal(base, tuned.to(base.device))):
        return name, base, 0.0, None
    delta = tuned.detach().to(base.device, torch.float64) - base.detach().double()
    return name, base, _norm(delta), _singular(delta, rank_limit)


def _norm(weight: Tensor) -> float:
    return float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float64))


def _singular(delta: Float[Tensor, "*shape"], rank_limit: int) -> Tensor | None:
    if delta.ndim != 2 or min(delta.shape) > rank_limit:
        return None
    delta = delta.double()
    gram = delta @ delta.T if delta.shape[0] <= delta.shape[1] else delta.T @ delta
    singular: Tensor = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    return singular


_Change = tuple[float, Tensor | None]


def _adapter_deltas(pair: ModelPair, rank_limit: int) -> Iterator[_Delta]:
    """Of a model whose adapter is switched: what the active adapter adds to each of the base's own tensors."""
    model = pair.peft_model.get_base_model()
    active = pair.peft_model.active_adapter
    prefix = pair.peft_model.base_model.prefix  # how the names of peft's own parameters begin
    changed: dict[int, _Change] = {}  # by identity of the base's parameter, whatever peft has named it
    for module in model.modules():
        if active in getattr(module, "modules_to_save", {}):
            copies = dict(module.modules_to_save[active].named_parameters())
            for key, original in module.original_module.named_parameters():
                _, _, norm, singular = _dense(key, original, copies[key], rank_limit)
                changed[id(original)] = norm, singular
        elif hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            changed |= _layer_deltas(module, active, rank_limit)
    for name, base in model.named_parameters():
        of_adapter = any(part.startswith((prefix, "modules_to_save")) for part in name.split("."))
        if id(base) in changed or not of_adapter:
            norm, singular = changed.get(id(base), (0.0, None))
            yield name.replace(".base_layer", "").replace(".original_module", ""), base, norm, singular


def _layer_deltas(layer: Any, active: str, rank_limit: int) -> dict[int, _Change]:
    base = layer.get_base_layer()
    plain = active in getattr(layer, "lora_A", {}) and not getattr(layer, "use_dora", {}).get(active, False)
    if plain and isinstance(base, nn.Linear) and type(layer.lora_A[active]) is nn.Linear:
        down = layer.lora_A[active].weight.detach().double()
        up = layer.lora_B[active].weight.detach().double() * layer.scaling[active]
        core = torch.linalg.qr(up).R @ torch.linalg.qr(down.T).R.T
        singular = torch.linalg.svdvals(core)
        return {id(base.weight): (float(singular.norm()), singular)}
    own = dict(base.named_parameters(recurse=False))
    before = {key: weight.detach().clone() for key, weight in own.items()}
    layer.merge(adapter_names=[active])
    found: dict[int, _Change] = {}
    for key, weight in own.items():
        _, _, norm, singular = _dense(key, before[key], getattr(base, key), rank_limit)
        if norm > 0:
            found[id(weight)] = norm, singular
    layer.unmerge()
    for key in own:
        getattr(base, key).data.copy_(before[key])  # unmerging subtracts, which leaves rounding behind
    return found
