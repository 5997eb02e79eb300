"""What a training run is made of: its options, the schedule that follows from its length, and where it starts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mneme.dictionaries.crosscoder import KINDS, Kind
from mneme.errors import BadOption

_SHARED_SHARE = 0.2
_DELTA_K_SHARE = 1 / 3


@dataclass(frozen=True)
class Settings:
    """What a `Trainer` trains: a dictionary for every k in `ks` with every seed in `seeds`, k-major.

    `ks` are latents per token and may be below 1. `n_steps` is the length of the run, from which warm-up (5 %, at most
    1000 steps), decay (linear to 0 in the last 20 %) and the dead window (5 % of the tokens, at most 10M) follow.
    `learning_rate` and `aux_weight` None take `default_learning_rate` and `default_aux_weight`. `delta_weight` is the
    delta loss's lambda (0.005 as reviews of the paper quote it), used by kind "delta".
    """

    kind: Kind
    d_model: int
    n_latents: int
    ks: tuple[float, ...]
    seeds: tuple[int, ...]
    n_steps: int
    batch_size: int
    learning_rate: float | None = None
    aux_weight: float | None = None
    delta_weight: float = 0.005

    def __post_init__(self) -> None:
        """Refuses settings that cannot be trained."""
        if self.kind not in KINDS:
            raise BadOption(f"Unknown kind of dictionary {self.kind!r}: expected one of {', '.join(KINDS)}.")
        if not self.ks or not self.seeds:
            raise BadOption("No dictionary to train: expected at least one k and one seed.")
        if min(self.d_model, self.n_latents, self.n_steps, self.batch_size) < 1:
            raise BadOption("Width, latents, steps and batch size must all be at least 1.")
        for k in self.ks:
            if round(k * self.batch_size) < 1 or k > self.n_latents:
                raise BadOption(
                    f"k = {k} keeps {k * self.batch_size:g} codes in a batch of {self.batch_size} tokens with "
                    f"{self.n_latents} latents: expected at least one code a batch and at most every latent."
                )

    @property
    def runs(self) -> tuple[tuple[float, int], ...]:
        """(k, seed) of every dictionary, in the order in which they are trained and returned."""
        return tuple((k, seed) for k in self.ks for seed in self.seeds)

    @property
    def input_width(self) -> int:
        """Width of a dictionary's input: d_model for the change kind, 2 d_model for the others."""
        return self.d_model if self.kind == "change" else 2 * self.d_model


def default_learning_rate(settings: Settings) -> float:
    """Peak learning rate of Adam: 0.064/sqrt(input), times sqrt(4000/steps) in longer runs, never below the published one.

    An Adam step moves a unit-norm row by about lr sqrt(input), so this turns it by 0.064 rad at most. Measured on
    `benchmarks/planted.py` (width 64, 800 and 3,000 steps): from 4e-3 to 8e-3 a change dictionary still finds 6 of 6
    directions with a k twice too large, where 1e-3 and 2e-3 split them (3 and 5); from 1.6e-2 on it merges them when k
    is too small. The 2e-4/sqrt(latents/2^14) of Minder et al.'s trainer is for runs of 100M tokens and more.
    """
    published = 2e-4 / math.sqrt(settings.n_latents / 2**14)
    short = 0.064 / math.sqrt(settings.input_width) * min(1.0, math.sqrt(4000 / settings.n_steps))
    return max(published, short)


def default_aux_weight(kind: Kind) -> float:
    """Weight of AuxK: 1/32 as in Minder et al.'s trainer, 0 for change.

    With k below one code a token most latents are rightly silent. On the planted test reviving them changed neither what a
    change dictionary found nor what it left unexplained (to 0.001), at twice the time.
    """
    return 0.0 if kind == "change" else 1 / 32


@dataclass(frozen=True)
class Block:
    """Latents `start` to `stop` of dictionary `member`, among which `n_keep` scores of a batch are kept."""

    member: int
    start: int
    stop: int
    k: float


def rate_factor(step: int, n_steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up (5 %, at most 1000 steps), linear to 0 in the last 20 %."""
    warm_up = max(1, min(1000, n_steps // 20))
    decay = max(1, n_steps // 5)
    return min(1.0, (step + 1) / warm_up, max(0.0, (n_steps - step) / decay))


def blocks(settings: Settings) -> Iterator[Block]:
    """One block per dictionary; two for delta: 20 % of the latents shared, with 2/3 of k, and the rest (as reviews of arXiv
    2603.04426 quote it)."""
    for member, (k, _) in enumerate(settings.runs):
        if settings.kind != "delta":
            yield Block(member, 0, settings.n_latents, k)
            continue
        shared = max(1, round(_SHARED_SHARE * settings.n_latents))
        yield Block(member, 0, shared, k * (1 - _DELTA_K_SHARE))
        yield Block(member, shared, settings.n_latents, k * _DELTA_K_SHARE)


def initial_rows(settings: Settings, seed: int) -> tuple[Float[Tensor, "latent input"], Float[Tensor, "latent input"]]:
    """Encoder and decoder rows of one dictionary: random unit rows, encoder = decoder.

    Rotated: the decoder starts with no change (q half 0), the encoder sees both halves. Others: the same row in both models.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.n_latents, settings.d_model)
    rows = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
    if settings.kind == "change":
        return rows, rows.clone()
    if settings.kind == "rotated":
        other = torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
        return torch.cat([rows, other], dim=1) * math.sqrt(0.5), torch.cat([rows, torch.zeros(shape)], dim=1)
    both = torch.cat([rows, rows], dim=1)
    return both, both.clone()
