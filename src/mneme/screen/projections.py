"""Projection difference: how much further along a persona vector a training answer lies than the model's own answer.

Chen et al. 2025 (arXiv 2507.21509), section 6: (mean activation of the training answer - that of the model's own answer to the
same prompt) . v / |v|, at the vector's layer; its mean over a data set predicts the shift that training brings, and single
rows stand out by it. Both answers are averaged over their own tokens alone, as in the authors' code: no end-of-turn token and
nothing else that a template writes behind an answer. The own answer is greedy, and its ids are taken as they were generated,
where the authors write it out and cut it into tokens again. The cheap variant of the paper takes the last prompt token in its
place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.activations.projection import answer_means, projection
from mneme.errors import BadOption, one_line
from mneme.models.architecture import Parts
from mneme.models.sampling import generate_ids
from mneme.text.encoded import Encoded, answer_after


@dataclass(frozen=True)
class Direction:
    """A vector of the residual stream after block `layer` (0-based), raw units; it points towards what is unwanted."""

    vector: Float[Tensor, " d_model"]
    layer: int


def read_direction(path: str, layer: int | None, n_layers: int, width: int) -> Direction:
    """A direction from a safetensors file: one tensor, [d_model] or [layer d_model], 0-based by block.

    `layer` where the file does not say it (metadata "layer", as persona vectors have). Raises BadOption: no such file, more
    than one tensor, a vector of another width, a layer that is not there or not said.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            names, notes = list(opened.keys()), opened.metadata() or {}
            tensor = opened.get_tensor(names[0]).float() if len(names) == 1 else None
    except (OSError, SafetensorError) as error:
        raise BadOption(f"{path} cannot be read as safetensors ({one_line(error)}). Give a file with one vector.") from error
    if tensor is None or tensor.ndim not in (1, 2):
        raise BadOption(f"{path} holds {len(names)} tensors; expected one, [d_model] or [layer d_model].")
    if tensor.shape[-1] != width:
        raise BadOption(
            f"{path} holds vectors of width {tensor.shape[-1]}, but the model has width {width}. "
            "Give a vector that was made with this model."
        )
    said = notes.get("layer", "")
    chosen = layer if layer is not None else int(said) if said.isdigit() else None
    if chosen is None:
        raise BadOption(f"{path} does not say which layer its vector is for. Give --layer, from 0 to {n_layers - 1}.")
    if not 0 <= chosen < (len(tensor) if tensor.ndim == 2 else n_layers):
        raise BadOption(f"{path} has no vector for layer {chosen}; layers count from 0.")
    return Direction(tensor[chosen] if tensor.ndim == 2 else tensor, chosen)


def contrast_direction(
    unwanted: Float[Tensor, "layer row d_model"], wanted: Float[Tensor, "layer other d_model"]
) -> Direction:
    """mean(unwanted) - mean(wanted) at the layer that tells the two apart best.

    Best: the largest difference of projections in standard deviations, each row projected on the vector that the other half of
    the rows makes, so that no row is judged by a vector it went into. Ties go to the earlier layer.
    """
    halves = [(unwanted[:, 0::2], wanted[:, 0::2]), (unwanted[:, 1::2], wanted[:, 1::2])]
    separation = torch.zeros(len(unwanted))
    for (one, other), (seen_one, seen_other) in (halves, halves[::-1]):
        vectors = seen_one.mean(1) - seen_other.mean(1)
        first, second = (torch.einsum("lrd,ld->lr", part, vectors) for part in (one, other))
        spread = ((first.var(1, correction=0) + second.var(1, correction=0)) / 2).sqrt().clamp_min(1e-12)
        separation += (first.mean(1) - second.mean(1)) / spread
    layer = int(separation.argmax())
    return Direction(unwanted[layer].mean(0) - wanted[layer].mean(0), layer)


def projection_difference(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    direction: Direction,
    *,
    own_tokens: int = 64,
) -> Float[Tensor, " row"]:
    """Projection of each training answer minus that of the model's own greedy answer of at most `own_tokens` tokens.

    `rows` are bare (`encode_rows(…, bare=True)`): what counts is what is averaged. Raw units of the residual stream.
    `own_tokens` 0 takes the last prompt token in place of the own answer (the paper's cheap
    estimate). A text without a prompt has no own answer: its first token is its prompt.
    """
    prompts = [row.prompt for row in rows]
    if own_tokens:
        own = []
        for first in range(0, len(prompts), 64):
            own += generate_ids(
                parts, prompts[first : first + 64], tokenizer.eos_token_id, max_new_tokens=own_tokens, temperature=0.0, seed=0
            )
        # A model that ends at once says nothing; the prompt's end then stands for it.
        references = [answer_after(p, a) if a else _last_token(p) for p, a in zip(prompts, own, strict=True)]
    else:
        references = [_last_token(prompt) for prompt in prompts]
    told, reference = (answer_means(parts, part, [direction.layer])[0] for part in (rows, references))
    return projection(told, direction.vector) - projection(reference, direction.vector)


def _last_token(prompt: Sequence[int]) -> Encoded:
    return Encoded(tuple(prompt), (*(False,) * (len(prompt) - 1), True))
