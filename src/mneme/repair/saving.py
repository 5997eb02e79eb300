"""Write a repaired model: as an adapter of the tuned model's rank where it still is one, else as a whole model. safetensors
only.

The best adapter of rank r is the truncated SVD of every change (Eckart & Young 1936); what it leaves out is the residual.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.errors import BadRun
from mneme.repair.workbench import Workbench
from mneme.results.repair import SavedRepair
from mneme.runs import RunFolder

LARGEST_RESIDUAL = 0.01
"""An adapter that leaves out more than this share of the change (Frobenius) is not written; the whole model is."""


def low_rank(
    delta: Float[Tensor, "d_out d_in"], rank: int
) -> tuple[Float[Tensor, "d_out rank"], Float[Tensor, "rank d_in"], float]:
    """(up, down, |delta - up down|): the best approximation of rank `rank`; both factors carry the root of the singular
    values."""
    left, singular, right = torch.linalg.svd(delta.float(), full_matrices=False)
    root = singular[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank], float(singular[rank:].norm())


def save_repaired(bench: Workbench, run: RunFolder, name: str = "model") -> SavedRepair:
    """Write the working copy as it stands into the folder `name` of the run, whole or not at all.

    Raises BadRun where it cannot be written.
    With an adapter: the rank of each of its layers is kept, and so is its configuration, if the residual allows.
    """
    factors, residual = _adapter_factors(bench)
    keeps_adapter = bool(factors) and residual <= LARGEST_RESIDUAL
    run.clear_workspace(name)
    draft = run.workspace(name)
    try:
        if keeps_adapter:
            _write_adapter(bench, factors, draft)
        else:
            bench.work.model.save_pretrained(draft)
            bench.pair.tokenizer.save_pretrained(draft)
    except OSError as error:
        run.clear_workspace(name)
        raise BadRun(
            f"Cannot write {run.folder / name}: {error.strerror}. Free some space, or give another folder with --out."
        ) from error
    run.adopt(draft, name)
    if keeps_adapter:
        rank = max(down.shape[0] for _, down in factors.values())
        return SavedRepair(kind="adapter", folder=name, rank=rank, residual=residual)
    return SavedRepair(kind="model", folder=name, rank=None, residual=residual if factors else None)


def _adapter_factors(bench: Workbench) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
    """Factors of every adapted layer at its own rank, and |D - D_r| / |D| over all of them; none for a pair of whole
    models."""
    if not bench.pair.adapter:
        return {}, 0.0
    model, active = bench.pair.peft_model.get_base_model(), bench.pair.peft_model.active_adapter
    factors, left_out, whole = {}, 0.0, 0.0
    for name in bench.names:
        delta = bench.repaired_delta(name)
        up, down, missing = low_rank(delta, model.get_submodule(name).lora_A[active].weight.shape[0])
        factors[name] = up, down
        left_out += missing**2
        whole += float(delta.double().square().sum())
    return factors, (left_out / whole) ** 0.5 if whole > 0 else 0.0


def _write_adapter(bench: Workbench, factors: dict[str, tuple[Tensor, Tensor]], folder: Path) -> None:
    """Put the factors into the adapter, save it, and put its own weights back."""
    model, active = bench.pair.peft_model.get_base_model(), bench.pair.peft_model.active_adapter
    before = {}
    try:
        for name, (up, down) in factors.items():
            layer = model.get_submodule(name)
            first, second = layer.lora_A[active].weight, layer.lora_B[active].weight
            before[name] = first.detach().clone(), second.detach().clone()
            first.data.copy_(down)
            second.data.copy_(up / layer.scaling[active])
        bench.pair.peft_model.save_pretrained(folder)
    finally:
        for name, (first, second) in before.items():
            layer = model.get_submodule(name)
            layer.lora_A[active].weight.data.copy_(first)
            layer.lora_B[active].weight.data.copy_(second)
    bench.pair.tokenizer.save_pretrained(folder)
