"""What a trained dictionary of two models is, and how it encodes and decodes. Training is in `training.py`.

Rotated coordinates: m = (h_base + h_tuned)/sqrt2 and q = (h_tuned - h_base)/sqrt2, in raw residual-stream units, so that
|h_base|^2 + |h_tuned|^2 = |m|^2 + |q|^2. A dictionary turns them into its own normalised input, x = (c - mean)/scale:

- change: c = q. A sparse autoencoder on the centred change; k is usually below one a token. The mean of q is "latent 0".
- rotated: c = (m, q), each at unit RMS. A crosscoder that sees the change at the same scale as the rest.
- batchtopk: c = (h_base, h_tuned), each at unit RMS. The BatchTopK crosscoder of Minder et al. 2025 (arXiv 2504.02922).
- delta: the same input; the last 80 % of the latents also carry the delta loss (arXiv 2603.04426).
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.dictionaries.topk import SparseCodes, flat_above, weighted_row_sums
from mneme.errors import BadOption, EmptyMask

Kind = Literal["change", "rotated", "batchtopk", "delta"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_ROOT_HALF = math.sqrt(0.5)
_CHUNK_ELEMENTS = 1 << 23
_STATISTICS_TOKENS = 2048


@dataclass(frozen=True)
class Dictionary:
    """A trained dictionary: code = b_enc + x @ w_enc where that exceeds `threshold`, else 0; x ~ b_dec + code @ w_dec.

    Everything but `mean` and `scale` (raw residual-stream units, one entry per input) is in normalised units. Decoder rows are
    scaled so that the size which BatchTopK ranks by (change, rotated: |d|; batchtopk, delta: |d_base| + |d_tuned|) is 1.
    """

    kind: Kind
    w_enc: Float[Tensor, "input latent"]
    w_dec: Float[Tensor, "latent input"]
    b_enc: Float[Tensor, " latent"]
    b_dec: Float[Tensor, " input"]
    threshold: float
    mean: Float[Tensor, " input"]
    scale: Float[Tensor, " input"]
    k: float
    d_model: int
    seed: int

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.w_dec.shape[0]


def coordinates(
    kind: Kind, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]
) -> Float[Tensor, "token input"]:
    """The raw, not yet normalised input of a kind of dictionary; input = d_model for change, 2 d_model for the others."""
    if kind == "change":
        return q
    if kind == "rotated":
        return torch.cat([m, q], dim=1)
    return torch.cat([(m - q) * _ROOT_HALF, (m + q) * _ROOT_HALF], dim=1)


def input_statistics(
    kind: Kind, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]
) -> tuple[Float[Tensor, " input"], Float[Tensor, " input"]]:
    """Mean and scale of a dictionary's input from a sample of tokens: per-entry mean, one RMS per channel (m, q or a model).

    Error: EmptyMask when there are no tokens or the centred q is exactly zero, so that there is no change to learn.
    """
    if q.shape[0] == 0:
        raise EmptyMask("Cannot normalise activations of 0 tokens: expected at least one token of both models.")
    if not bool((q != q[0]).any()):
        raise EmptyMask(
            f"The two models differ by the same vector (or by nothing) on all {q.shape[0]} tokens: there is no change for a "
            "dictionary to learn. Report 'no change' instead of training one."
        )
    pieces = list(zip(*(torch.split(x, _STATISTICS_TOKENS) for x in (m, q)), strict=True))
    mean = _total(coordinates(kind, *piece).double().sum(0) for piece in pieces) / len(q)
    power = _total((coordinates(kind, *piece).double() - mean).square().sum(0) for piece in pieces) / len(q)
    power = power.reshape(-1, q.shape[1]).mean(1)
    rms = torch.where(power > 0, power.sqrt(), torch.ones_like(power))
    return mean.float(), rms.repeat_interleave(q.shape[1]).float()


def _total(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def normalise(
    dictionary: Dictionary, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]
) -> Float[Tensor, "token input"]:
    """The dictionary's own input: zero mean, unit RMS per channel. Error: BadOption when the width is another one."""
    if q.shape[1] != dictionary.d_model:
        raise BadOption(
            f"These activations are {q.shape[1]} wide and the dictionary was trained on width {dictionary.d_model}: "
            "expected activations of the models and the layer it was trained on."
        )
    return (coordinates(dictionary.kind, m, q) - dictionary.mean) / dictionary.scale


def encode(dictionary: Dictionary, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]) -> SparseCodes:
    """Codes above the dictionary's threshold (fixed at the end of training, so a token's codes do not depend on its batch)."""
    rows = max(1, _CHUNK_ELEMENTS // dictionary.n_latents)
    tokens, latents, values = [], [], []
    for start in range(0, q.shape[0], rows):
        part = slice(start, start + rows)
        codes = torch.addmm(dictionary.b_enc, normalise(dictionary, m[part], q[part]), dictionary.w_enc)
        index = flat_above(codes, codes.new_full((dictionary.n_latents,), dictionary.threshold))
        token = index // dictionary.n_latents
        tokens.append(token + start)
        latents.append(index - token * dictionary.n_latents)
        values.append(codes.reshape(-1)[index])
    if not tokens:
        empty = torch.empty(0, dtype=torch.int64, device=q.device)
        return SparseCodes(empty, empty, torch.empty(0, device=q.device))
    return SparseCodes(torch.cat(tokens), torch.cat(latents), torch.cat(values))


def decode_change(dictionary: Dictionary, codes: SparseCodes, n_tokens: int) -> Float[Tensor, "token d_model"]:
    """The change q that the dictionary reconstructs, raw units, `constant_change` included."""
    directions = _change_rows(dictionary)
    sums = weighted_row_sums(directions, codes.latent_index, codes.token_index, codes.value, n_tokens)
    return sums + constant_change(dictionary)


def constant_change(dictionary: Dictionary) -> Float[Tensor, " d_model"]:
    """The part of q, raw units, that the dictionary adds at every token (mean of q plus decoder bias): its "latent 0"."""
    base, tuned = pair_rows(dictionary, (dictionary.b_dec * dictionary.scale + dictionary.mean)[None])[0].unbind(0)
    return (tuned - base) * _ROOT_HALF


def decoders(dictionary: Dictionary) -> Float[Tensor, "latent model d_model"]:
    """Decoder directions of the base (0) and tuned (1) residual stream, raw units per unit of code.

    code * (decoders[:, 1] - decoders[:, 0]) is the change of the residual stream, h_tuned - h_base = sqrt2 q, that a latent
    carries. A change dictionary says nothing of the shared part: its base decoder is minus its tuned one.
    """
    return pair_rows(dictionary, dictionary.w_dec * dictionary.scale)


def pair_rows(dictionary: Dictionary, rows: Float[Tensor, "row input"]) -> Float[Tensor, "row model d_model"]:
    """Turns vectors in the raw coordinates of a dictionary's input into base and tuned ones; change: m is taken as 0."""
    if dictionary.kind == "change":
        return torch.stack([-rows, rows], dim=1) * _ROOT_HALF
    first, second = rows.reshape(rows.shape[0], 2, dictionary.d_model).unbind(1)
    if dictionary.kind == "rotated":
        return torch.stack([first - second, first + second], dim=1) * _ROOT_HALF
    return torch.stack([first, second], dim=1)


def _change_rows(dictionary: Dictionary) -> Float[Tensor, "latent d_model"]:
    base, tuned = decoders(dictionary).unbind(1)
    return (tuned - base) * _ROOT_HALF
