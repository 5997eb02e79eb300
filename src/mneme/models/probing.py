"""A few tokens through a model: what it says there is how mneme proves that it reads what the library reads."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

_PROBE = 24
"""Tokens of the probe: milliseconds, and every block, norm and head takes part."""


@torch.no_grad()
def probe_logits(model: nn.Module, vocab: int | None = None) -> Float[Tensor, "token vocab"]:
    """Logits at `_PROBE` ids spread over the first `vocab` of the vocabulary (None: the whole embedding), float32, on the CPU.

    Only those `vocab` ids are read of the output too, so that models whose vocabularies differ at the end can be compared.
    """
    ids = probe_ids(model, vocab)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, :, : int(ids[0, -1]) + 1].float().cpu()


def probe_ids(model: nn.Module, vocab: int | None = None) -> Int[Tensor, "1 token"]:
    """The ids of the probe, spread over the first `vocab` of the vocabulary, on the model's device."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    rows = vocab or int(weight.shape[0])
    return torch.linspace(0, rows - 1, _PROBE).long()[None].to(weight.device)


def same_logits(one: Float[Tensor, "token vocab"], other: Float[Tensor, "token vocab"], *, eps: float) -> bool:
    """Equal up to `eps` of the largest of them, NaN nowhere."""
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= eps * other.abs().max().clamp_min(1e-12))


def rounding(model: nn.Module, sums: int) -> float:
    """Relative rounding that `sums` additions in the model's narrowest dtype may leave."""
    widest = max((torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point()), default=1e-7)
    return sums * widest
