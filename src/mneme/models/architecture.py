"""Where the parts of a causal language model are: found by structure, proven by a forward pass, never by class name.

Any decoder that adds to one residual stream fits: embedding -> a stack of blocks -> final norm -> head. The proof compares
what the parts say with what the model itself says (`output_hidden_states`, `logits`) on a few token ids. Two common
endings of the head are understood: a soft cap (Gemma 2, RecurrentGemma) and a constant factor (Cohere, Granite).
"""

import inspect
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from mneme.errors import UnsupportedArchitecture


@dataclass(frozen=True)
class Parts:
    """The parts of one model that every other module works with.

    `blocks[i]` writes the residual stream that is called "after block i" (0-based); `decoder` is the module that holds
    them, and runs without the head. `logits = cap(scale * head(norm(h)))`, see `lens`.
    """

    model: PreTrainedModel
    decoder: nn.Module
    embedding: nn.Module
    blocks: nn.ModuleList
    norm: nn.Module
    head: nn.Module
    logit_scale: float = 1.0
    logit_softcap: float | None = None

    @property
    def device(self) -> torch.device:
        """Where token ids have to be put for this model."""
        weight: Tensor = self.embedding.weight  # type: ignore[assignment]
        return weight.device

    @property
    def width(self) -> int:
        """d_model, from the embedding matrix or, where that is narrower, from the configuration."""
        return int(self.model.config.get_text_config().hidden_size)


def find_parts(model: PreTrainedModel) -> Parts:
    """The proven parts of `model`.

    Raises UnsupportedArchitecture where there is no block stack, or where norm and head do not reproduce the logits.
    Runs one forward pass on 8 token ids; the model must be in eval mode (dropout would break the proof).
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding is None or head is None:
        raise UnsupportedArchitecture(
            f"{type(model).__name__} has no input or no output embedding; mneme needs a causal language model "
            "(one that AutoModelForCausalLM loads with its head)."
        )
    n_layers = int(model.config.get_text_config().num_hidden_layers)
    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    stacks.sort(key=lambda pair: pair[0].count("."))  # the outermost one; experts and heads lie deeper
    ids = _probe_ids(int(embedding.weight.shape[0]), embedding.weight.device)
    reasons = []
    for name, stack in stacks:
        decoder = model.get_submodule(name.rpartition(".")[0])
        parts = Parts(model=model, decoder=decoder, embedding=embedding, blocks=stack, norm=nn.Identity(), head=head)
        try:
            return _prove(parts, ids)
        except UnsupportedArchitecture as reason:
            reasons.append(f"{name}: {reason}")
    raise UnsupportedArchitecture(
        f"{type(model).__name__}: no stack of {n_layers} blocks passes the proof ({'; '.join(reasons) or 'no such list'}). "
        "mneme reads decoders with one residual stream, a final norm and a head."
    )


def lens(parts: Parts, hidden: Float[Tensor, "token d_model"]) -> Float[Tensor, "token vocab"]:
    """Logits that the model's own norm and head give for residual vectors: exact after the last block, elsewhere the
    logit lens (nostalgebraist, 2020). In the model's dtype."""
    weight: Tensor = parts.embedding.weight  # type: ignore[assignment]
    logits: Tensor = parts.head(parts.norm(hidden.to(weight.dtype))) * parts.logit_scale
    if parts.logit_softcap is not None:
        logits = parts.logit_softcap * torch.tanh(logits / parts.logit_softcap)
    return logits


def block_output(output: object) -> Float[Tensor, "batch seq d_model"]:
    """The residual stream in what a decoder block returns: a tensor, or the first of a tuple (older blocks)."""
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor):
        raise UnsupportedArchitecture(
            f"a block returned {type(hidden).__name__}; mneme reads blocks that return a tensor, alone or first in a tuple."
        )
    return hidden


def _probe_ids(vocab: int, device: torch.device) -> Int[Tensor, "batch seq"]:
    return (torch.arange(3, 11, device=device) * 7 % vocab)[None]


@torch.no_grad()
def _prove(parts: Parts, ids: Int[Tensor, "batch seq"]) -> Parts:
    """The same parts with norm, scale and cap filled in, or UnsupportedArchitecture."""
    if "input_ids" not in inspect.signature(parts.decoder.forward).parameters:
        raise UnsupportedArchitecture("the module that holds the blocks does not read token ids")
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _m, _a, output: seen.append(block_output(output))) for block in parts.blocks]
    try:
        out = parts.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    states = out.hidden_states
    if len(seen) != len(parts.blocks) or states is None or len(states) not in (len(seen), len(seen) + 1):
        raise UnsupportedArchitecture(f"{len(seen)} of {len(parts.blocks)} blocks ran once in a forward pass")
    # State-space models begin the list with what the first block writes, others with what it reads.
    first = int(not all(_same(one, other) for one, other in zip(seen[:-1], states[:-1], strict=False)))
    for layer in range(len(seen) - 1):
        if not _same(seen[layer], states[layer + first]):
            raise UnsupportedArchitecture(f"block {layer} does not write what output_hidden_states[{layer + first}] says")
    for norm in _norms(parts):
        ending = _head_ending(parts, _head_output(parts, norm, seen[-1]), out.logits)
        if ending is not None:
            scale, cap = ending
            return Parts(
                model=parts.model,
                decoder=parts.decoder,
                embedding=parts.embedding,
                blocks=parts.blocks,
                norm=norm,
                head=parts.head,
                logit_scale=scale,
                logit_softcap=cap,
            )
    raise UnsupportedArchitecture("no final norm beside the blocks reproduces the model's logits")


def _norms(parts: Parts) -> list[nn.Module]:
    """Modules beside the block stack that could be the final norm, and none at all."""
    width = parts.width
    beside = [
        module
        for module in parts.decoder.children()
        if module is not parts.blocks and not isinstance(module, nn.Embedding | nn.ModuleList)
    ]
    # An adapter that holds the norm itself wraps it: the wrapper is what the model runs.
    fits = [m for m in beside if all(p.shape == (width,) for p in m.parameters())]
    with_weights = [m for m in fits if list(m.parameters())]
    without = [m for m in fits if "norm" in type(m).__name__.lower() and m not in with_weights and not list(m.children())]
    norms = [*with_weights, *without, nn.Identity()]
    # OPT-350m reads and writes a narrower vocabulary space through a projection behind the blocks.
    narrower = [m for m in beside if isinstance(m, nn.Linear) and m.in_features == width != m.out_features]
    return [*norms, *(nn.Sequential(norm, projection) for projection in narrower for norm in norms)]


def _head_output(parts: Parts, norm: nn.Module, hidden: Tensor) -> Tensor | None:
    """What the head says behind this norm; None where the sizes do not fit each other."""
    try:
        output: Tensor = parts.head(norm(hidden))
    except RuntimeError:
        return None
    return output


def _head_ending(parts: Parts, raw: Tensor | None, logits: Tensor) -> tuple[float, float | None] | None:
    """(scale, soft cap) that turn the head's output into the model's logits, or None."""
    if raw is None or raw.shape != logits.shape:
        return None
    if _same(raw, logits):
        return 1.0, None
    config = parts.model.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    if cap is not None and _same(cap * torch.tanh(raw / cap), logits):
        return 1.0, float(cap)
    scale = float((raw.double() * logits.double()).sum() / raw.double().square().sum().clamp_min(1e-30))
    return (scale, None) if _same(raw * scale, logits) else None


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of the coarser dtype, relative to the size of the whole."""
    if a.shape != b.shape:
        return False
    eps = max(torch.finfo(a.dtype).eps, torch.finfo(b.dtype).eps)
    scale = float(b.float().abs().max())
    return float((a.float() - b.float().to(a.device)).abs().max()) <= 16 * eps * max(scale, 1e-12)
