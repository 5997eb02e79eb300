"""The loss of the learned tokens without what nobody learns from: no logits of prompts, no padding, the head once.

TRL puts every position of a batch through the head where it has no Triton, prompts and padding included, and again in the
backward pass. Here only the positions that predict a learned token go through it, a chunk at a time, and their gradient is
made while the logits exist (three products of the head a token, as in a plain loop; the idea is Liger's, Hsu et al. 2024,
arXiv 2410.10989), from one softmax (`divergence.py`). A batch is cut into pieces of rows of about equal length, whose
gradients add up: the loss is divided by the learned tokens of the whole step, so that it and its gradient are those of the
padded batch, to rounding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Trainer

from mneme.errors import UnsupportedArchitecture
from mneme.models.adapters import inner_model
from mneme.models.architecture import Parts, find_parts, lens
from mneme.models.batching import predicting
from mneme.models.fused import fuse_lora
from mneme.models.hooks import read, stop_after
from mneme.models.modes import evaluating
from mneme.text.chat import trained_on
from mneme.train.divergence import Softmaxed, nats_of, softmaxed

PIECE_TOKENS = 1024
"""Tokens that run together, padding included: more are no faster on a CPU, and their activations are what fills memory."""
_FEW = 256
"""A pass over so many tokens is busy with products; of fewer, with reading the weights."""
_WASTE = 0.1
"""Share of padding from which on a row is left to the next piece, if this one is large enough without it."""
_LOGITS = 2**23
"""Logits of a chunk: 32 MB in float32, and five such matrices exist at once."""

_PLAIN_LOSSES = ("nll", "chunked_nll")
"""What TRL calls the mean nats of the learned tokens: `chunked_nll` is the default name of it before TRL 1.16."""

ChunkLoss = Callable[[Float[Tensor, "token vocab"], slice], tuple[Tensor, Tensor]]
"""(logits of a chunk, which tokens they are) -> (what the chunk adds to the loss, its gradient in the logits)."""

ChunkTerm = Callable[[Softmaxed, slice], tuple[Tensor, Tensor]]
"""(distributions of a chunk, which tokens they are) -> (what is added to its loss, the gradient of that in the logits)."""


def length_pieces(lengths: Sequence[int], most: int = PIECE_TOKENS) -> list[list[int]]:
    """Rows that run together, longest first: at most `most` tokens with padding or one row, and little padding where the rows
    allow it."""
    pieces: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        piece = pieces[-1] if pieces else []
        longest = lengths[piece[0]] if piece else 0
        wasteful = longest * len(piece) >= _FEW and lengths[row] < (1 - _WASTE) * longest
        if not piece or wasteful or longest * (len(piece) + 1) > most:
            pieces.append([row])
        else:
            piece.append(row)
    return pieces


def is_plain(inputs: dict[str, Any]) -> bool:
    """True where a batch is rows padded on the right and nothing else: no token then sees padding, and no mask is needed."""
    if not {"input_ids", "labels", "attention_mask"} <= set(inputs) <= {"input_ids", "labels", "attention_mask", "use_cache"}:
        return False
    mask = inputs["attention_mask"].bool()
    return bool((mask[:, :-1] | ~mask[:, 1:]).all()) and bool(mask[:, 0].all())


def cut_batch(inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """A plain batch as pieces of `length_pieces`, each as wide as its longest row."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    tensors = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
    return [{name: tensor[rows, : lengths[rows[0]]] for name, tensor in tensors.items()} for rows in length_pieces(lengths)]


def chunked_loss(parts: Parts, hidden: Float[Tensor, "token d_model"], of_chunk: ChunkLoss) -> Float[Tensor, ""]:
    """Sum of `of_chunk` over chunks of the tokens' logits; never more than a chunk of a token x vocabulary matrix exists, and
    no chunk is made twice. Differentiable once, in `hidden` and in the trained weights of final norm and head."""
    rows = max(1, _LOGITS // int(parts.embedding.weight.shape[0]))  # type: ignore[index]
    if not torch.is_grad_enabled():
        sums = [of_chunk(lens(parts, hidden[cut]), cut)[0] for cut in _cuts(len(hidden), rows)]
        return torch.stack(sums).sum() if sums else hidden.new_zeros(())
    modules = (parts.norm, parts.head)
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    total: Tensor = _Chunked.apply(parts, of_chunk, rows, hidden, *weights)  # type: ignore[no-untyped-call]
    return total


class _Chunked(torch.autograd.Function):
    """The gradient is made in the forward pass, chunk by chunk, while the logits exist."""

    @staticmethod
    def forward(ctx: Any, parts: Parts, of_chunk: ChunkLoss, rows: int, hidden: Tensor, *weights: nn.Parameter) -> Tensor:
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        own = torch.zeros_like(hidden)
        others: list[Tensor] = []
        for cut in _cuts(len(hidden), rows):
            chunk = hidden[cut].detach().requires_grad_()
            with torch.enable_grad():
                logits = lens(parts, chunk)
            loss, slope = of_chunk(logits.detach(), cut)
            first, *rest = torch.autograd.grad(logits, [chunk, *weights], slope.to(logits.dtype))
            total += loss
            own[cut] = first
            others = [a.add_(b) for a, b in zip(others, rest, strict=True)] if others else rest
        ctx.save_for_backward(own, *(others or [torch.zeros_like(weight) for weight in weights]))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, *(gradient * outer[0] for gradient in ctx.saved_tensors)


def lean(trainer_class: type[Trainer]) -> type[Trainer]:
    """A subclass of TRL's SFTTrainer with the same loss and gradient, made as above where that saves something: in a single
    process, for the plain loss of plain batches, not on CUDA, where TRL leaves prompts and padding out itself."""

    class Lean(trainer_class):  # type: ignore[misc]
        """The trainer whose head sees learned tokens alone."""

        with_logits: ChunkTerm | None = None
        """What is added to the loss of a chunk, from the logits that are there anyway."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._lean_parts = _parts_of(self)
            if self._lean_parts is not None:
                fuse_lora(self.model)

        @property
        def cuts_batches(self) -> bool:
            """Whether plain batches run in pieces."""
            return self._lean_parts is not None

        def is_lean(self, inputs: dict[str, Any]) -> bool:
            """Whether the loss of this batch is made here, or by the class that this one came from."""
            return self._lean_parts is not None and is_plain(inputs)

        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
            """The class's own step, piece by piece."""
            if num_items_in_batch is None or not self.is_lean(inputs):
                step: Tensor = super().training_step(model, inputs, num_items_in_batch)
                return step
            losses = [super(Lean, self).training_step(model, piece, num_items_in_batch) for piece in cut_batch(inputs)]
            return torch.stack(losses).sum()

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """Mean nats of the learned tokens."""
            parts = self._lean_parts
            if parts is None or return_outputs or not self.is_lean(inputs):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            learned = trained_on(inputs["labels"])
            count = learned[:, 1:].sum() if num_items_in_batch is None else num_items_in_batch
            last = len(parts.blocks) - 1
            with read(parts, [last]) as found, stop_after(parts, last):
                parts.decoder(input_ids=inputs["input_ids"], use_cache=False)
            predicts = predicting(learned)
            targets = inputs["input_ids"].roll(-1, 1)[predicts]

            share = 1 / torch.as_tensor(count).clamp(min=1)

            def of_chunk(logits: Tensor, cut: slice) -> tuple[Tensor, Tensor]:
                made = softmaxed(logits)
                added = None if self.with_logits is None else self.with_logits(made, cut)
                nats, slope = nats_of(made, targets[cut])
                loss = nats.sum() * share
                slope.mul_(share)
                return (loss, slope) if added is None else (loss + added[0], slope.add_(added[1]))

            return chunked_loss(parts, found[last][predicts], of_chunk)

    Lean.__name__ = f"Lean{trainer_class.__name__}"
    return Lean


def _parts_of(trainer: Any) -> Parts | None:
    """The parts of the trained model, where the loss can be made from them; None where the trainer's own loss is needed."""
    args = trainer.args
    other_loss = (
        getattr(args, "loss_type", "nll") not in _PLAIN_LOSSES
        or trainer.compute_loss_func is not None
        or args.label_smoothing_factor
    )
    other_pass = args.bf16 or args.fp16 or getattr(trainer, "aux_loss_enabled", False) or trainer.accelerator.num_processes > 1
    model = trainer.accelerator.unwrap_model(trainer.model)
    if other_loss or other_pass or next(model.parameters()).device.type == "cuda":
        return None
    try:
        with evaluating(model):
            return find_parts(inner_model(model))
    except UnsupportedArchitecture:
        return None


def _cuts(count: int, rows: int) -> list[slice]:
    return [slice(first, min(first + rows, count)) for first in range(0, count, rows)]
