"""Gradient similarity: does training on a row push the model where training on unwanted behaviour would?

The cosine of the row's gradient with the mean gradient over examples of the behaviour, minus that with examples of wanted
behaviour where there are some; gradients of the mean negative log-likelihood of the answer, as in LESS (Xia et al. 2024,
arXiv 2402.04333, equation 3; tests/parity). Where we differ: all linear maps of the chosen blocks at one checkpoint, where
LESS sums over the checkpoints of a LoRA warm-up and projects its gradients at random, those of rows scaled as Adam would;
and the mean gradient of the examples, as the equation has it, where their code takes the mean of the cosines. No gradient
of a row is ever stored: for a linear map with input x and output gradient g, <x^T g, G> = sum_t g_t . (x_t G) and |x^T g|^2
= sum_tt' (x_t . x_t')(g_t . g_t') (Goodfellow 2015, arXiv 1510.01799), both exact in one batched backward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mneme.errors import UnsupportedArchitecture
from mneme.models.architecture import Parts, block_output
from mneme.models.batching import Batch, batches
from mneme.models.likelihood import row_log_probs
from mneme.models.modes import evaluating
from mneme.text.encoded import Encoded

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class MeanGradient:
    """Mean gradient over rows of the negative log-likelihood of their answers: linear map -> [in out], float32."""

    of_map: dict[str, Float[Tensor, "into outof"]]

    @property
    def norm(self) -> float:
        """Its length over all maps together."""
        return float(sum(float(g.square().sum()) for g in self.of_map.values()) ** 0.5)


def mean_gradient(parts: Parts, rows: Sequence[Encoded], *, first_layer: int = 0) -> MeanGradient:
    """Of the linear maps of the blocks from `first_layer` on; as many numbers as they have weights."""
    maps = _linear_maps(parts, first_layer)
    totals = {name: torch.zeros(_shape(module), device=parts.device) for name, module in maps.items()}
    for batch in batches(rows, batch_tokens=_BATCH_TOKENS):
        for name, x, g in _flows(parts, batch, maps, first_layer):
            totals[name] += x.flatten(0, -2).T @ g.flatten(0, -2)
    return MeanGradient({name: total / len(rows) for name, total in totals.items()})


def gradient_similarity(
    parts: Parts,
    rows: Sequence[Encoded],
    unwanted: MeanGradient,
    wanted: MeanGradient | None = None,
    *,
    first_layer: int = 0,
) -> Float[Tensor, " row"]:
    """cos(row, unwanted) - cos(row, wanted), from -2 to 2 (without `wanted` one cosine). High: training on the row brings the
    unwanted behaviour nearer. Both mean gradients have to be of the same blocks, from `first_layer` on."""
    maps = _linear_maps(parts, first_layer)
    targets = {name: unwanted.of_map[name] / unwanted.norm for name in maps}
    if wanted is not None:
        targets = {name: target - wanted.of_map[name] / wanted.norm for name, target in targets.items()}
    found = torch.zeros(len(rows))
    for batch in batches(rows, batch_tokens=_BATCH_TOKENS):
        products, squares = torch.zeros(len(batch.texts)), torch.zeros(len(batch.texts))
        for name, x, g in _flows(parts, batch, maps, first_layer):
            products += ((x @ targets[name]) * g).sum((1, 2)).cpu()
            squares += ((x @ x.mT) * (g @ g.mT)).sum((1, 2)).cpu()
        found[list(batch.texts)] = products / squares.clamp_min(1e-30).sqrt()
    return found


def _linear_maps(parts: Parts, first_layer: int) -> dict[str, nn.Module]:
    maps = {
        f"{layer}.{name}": module
        for layer, block in enumerate(parts.blocks)
        for name, module in block.named_modules()
        if layer >= first_layer and isinstance(module, nn.Linear | Conv1D)
    }
    if not maps:
        raise UnsupportedArchitecture(
            f"{type(parts.model).__name__} has no linear map in its blocks from {first_layer} on, so no gradient can be "
            "compared. Use another score, such as projection."
        )
    return maps


def _shape(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs): a linear layer stores the transpose, GPT-2's Conv1D does not."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    outs, ins = weight.shape if isinstance(module, nn.Linear) else reversed(weight.shape)
    return int(ins), int(outs)


def _flows(
    parts: Parts, batch: Batch, maps: dict[str, nn.Module], first_layer: int
) -> Iterator[tuple[str, Float[Tensor, "batch seq into"], Float[Tensor, "batch seq outof"]]]:
    """(map, its input, the gradient of each row's mean NLL with respect to its output), float32; one backward pass."""
    seen: list[tuple[str, Tensor, Tensor]] = []
    inputs: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name] = args[0].detach()
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda g: seen.append((name, inputs.pop(name).float(), g.float()))
            )

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in maps.items()]
    try:
        with _gradient_from(parts, first_layer), torch.enable_grad():
            nll = -row_log_probs(parts, batch) / batch.counted.sum(1).to(parts.device)
            torch.autograd.backward(nll.sum())
    finally:
        for handle in handles:
            handle.remove()
    yield from seen


@contextmanager
def _gradient_from(parts: Parts, layer: int) -> Iterator[None]:
    """The stream that block `layer` reads requires a gradient; no weight does, so none is filled."""

    def hook(_module: object, _args: object, output: object) -> object:
        fresh = block_output(output).detach().requires_grad_()
        return (fresh, *output[1:]) if isinstance(output, tuple) else fresh

    handle = (parts.blocks[layer - 1] if layer else parts.embedding).register_forward_hook(hook)
    try:
        with evaluating(parts.model, frozen=True):
            yield
    finally:
        handle.remove()
