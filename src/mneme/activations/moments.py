"""What a change looks like at each layer, in one pass and without keeping an activation: size, mean, first component."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mneme.activations.harvest import Harvested, base_norms
from mneme.errors import BadCorpus

SKETCH_COLUMNS = 128
"""Width of the random sketch of the covariance; exact where d_model is not larger."""


@dataclass(frozen=True)
class Moments:
    """Moments of q = (h_tuned - h_base)/sqrt2 at one layer, raw units, over `tokens` tokens."""

    tokens: int
    mean: Float[Tensor, " d_model"]
    """Mean of q, float64."""
    mean_square: float
    """Mean of |q|^2."""
    m_mean: Float[Tensor, " d_model"]
    """Mean of m, float64."""
    m_mean_square: float
    """Mean of |m|^2."""
    relative_change: float
    """Mean of |q| / |h_base|."""
    mean_share: float
    """|mean of q|^2 / mean of |q|^2: the share that is one constant vector. 0 where nothing changed."""
    first_component_share: float
    """Share of the centred |q|^2 on its first principal component. 0 where nothing varies."""
    first_component: Float[Tensor, " d_model"]
    """That component, unit length (zeros where nothing varies), sign arbitrary."""

    @property
    def q_rms(self) -> float:
        """Root mean square of the entries of q: the unit that makes q's normalised form."""
        return math.sqrt(self.mean_square / len(self.mean))

    @property
    def m_rms(self) -> float:
        """Root mean square of the entries of m."""
        return math.sqrt(self.m_mean_square / len(self.mean))


class _Running:
    """Sums over tokens in float64, and q^T (q Omega), a Nystrom sketch of the uncentred second moment."""

    def __init__(self, d_model: int, seed: int, device: torch.device) -> None:
        columns = min(d_model, SKETCH_COLUMNS)
        generator = torch.Generator().manual_seed(seed)
        random = torch.randn(d_model, columns, generator=generator, dtype=torch.float64)
        self.omega = torch.linalg.qr(random).Q.to(device)
        self.sketch = torch.zeros(d_model, columns, dtype=torch.float64, device=device)
        self.q_sum = torch.zeros(d_model, dtype=torch.float64, device=device)
        self.m_sum = torch.zeros(d_model, dtype=torch.float64, device=device)
        self.q_square = self.m_square = self.relative = 0.0
        self.tokens = 0

    def add(self, m: Float[Tensor, "token d_model"], q: Float[Tensor, "token d_model"]) -> None:
        q64, m64 = q.double(), m.double()
        self.tokens += len(q)
        self.q_sum += q64.sum(0)
        self.m_sum += m64.sum(0)
        self.q_square += float(q64.square().sum())
        self.m_square += float(m64.square().sum())
        self.relative += float((q.norm(dim=-1) / base_norms(m, q).clamp_min(1e-12)).double().sum())
        self.sketch += q64.T @ (q64 @ self.omega)

    def finish(self) -> Moments:
        mean = self.q_sum / self.tokens
        square = self.q_square / self.tokens
        centred = max(square - float(mean.square().sum()), 0.0)
        share, component = _first_component(self.sketch / self.tokens, self.omega, mean, centred)
        return Moments(
            tokens=self.tokens,
            mean=mean,
            mean_square=square,
            m_mean=self.m_sum / self.tokens,
            m_mean_square=self.m_square / self.tokens,
            relative_change=self.relative / self.tokens,
            mean_share=float(mean.square().sum()) / square if square > 0 else 0.0,
            first_component_share=share,
            first_component=component,
        )


def layer_moments(
    stream: Iterable[Harvested], *, seed: int = 0, drop: Bool[Tensor, "row seq"] | None = None
) -> dict[int, Moments]:
    """Moments of every layer of a harvest, float64 sums, in one pass; `drop` is True at positions to leave out (sinks).

    The first component comes from a single-pass Nystrom sketch of the covariance (Tropp, Yurtsever, Udell and Cevher,
    NeurIPS 2017), with `seed` for its random matrix: exact up to d_model = 128, beyond that its share is a lower bound,
    tight where one component stands out. Memory: d_model x 128 numbers a layer. Raises BadCorpus where no token is left.
    """
    running: dict[int, _Running] = {}
    for harvested in stream:
        keep = None if drop is None else ~drop[harvested.rows].flatten()
        for layer, q in harvested.q.items():
            m, q = harvested.m[layer].flatten(0, 1), q.flatten(0, 1)
            if keep is not None:
                m, q = m[keep], q[keep]
            running.setdefault(layer, _Running(q.shape[-1], seed, q.device)).add(m, q)
    if not running or not next(iter(running.values())).tokens:
        raise BadCorpus(
            "no token was left to measure after the attention sinks were taken out. Give more text or longer rows."
        )
    return {layer: sums.finish() for layer, sums in running.items()}


def _first_component(sketch: Tensor, omega: Tensor, mean: Tensor, centred: float) -> tuple[float, Tensor]:
    """(share, unit vector) of the largest eigenvalue of the covariance, from its product with `omega`."""
    nothing = 0.0, torch.zeros_like(mean)
    if centred <= 1e-24:
        return nothing
    y = sketch - mean[:, None] * (mean @ omega)
    core = omega.T @ y
    values, vectors = torch.linalg.eigh((core + core.T) / 2)
    kept = values > values[-1] * 1e-12
    if float(values[-1]) <= 0:
        return nothing
    root = y @ (vectors[:, kept] / values[kept].sqrt())  # root root^T is the Nystrom approximation
    left, singular, _ = torch.linalg.svd(root, full_matrices=False)
    return min(float(singular[0] ** 2) / centred, 1.0), left[:, 0]
