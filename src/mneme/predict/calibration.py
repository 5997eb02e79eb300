"""From a measured change in the likelihood of an area's text to P(material change).

P = sigmoid(slope * ln(s / midpoint)), s = |effect| shrunk towards 0 by its own noise: |e| * max(0, 1 - (noise / e)^2)
(positive-part James-Stein), so that a large but uncertain effect counts for less and 0 gives exactly 0. One pair
(midpoint, slope) for knowledge (accuracy on known tokens) and one for either sign of behaviour (probability where it shows),
fitted by penalised maximum likelihood on the organisms of `mneme bench`, whose truth is measured. There each world is judged
by curves fitted on the others; the curves that ship are fitted on all of them (`benchmarks/bench_tables.py`).
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.results import Estimate

_LEAST = 0.001
"""P at least for an effect that is not exactly 0: the 1,152 cells that curves are fitted on cannot show less."""
_STEEP = 3.0
"""Slope that the prior of a curve is centred on: from P = 0.1 to 0.9 in a factor of 4.3. A round number that was never
varied."""
_SHIFTS, _LOG_SLOPES = (-2.0, 2.0, 161), (-1.5, 1.5, 61)
"""Grids of ln(midpoint / prior) and ln(slope / prior): two and one and a half standard deviations of the prior to either side,
in steps of 0.025 and 0.05, far finer than the data can tell."""
_NO_SIZE = 1e-3
"""Size of an effect of 0 in prior midpoints, since its logarithm is needed: P is 0 to eight digits there."""
_Z_95 = 1.959964
"""The 97.5 % point of a standard normal."""
_TINY = 1e-9
"""Far below any effect: keeps the power of 0 from being computed."""


class Curve(NamedTuple):
    """One fitted curve."""

    midpoint: float
    """Shrunk effect at which P = 1/2, in the unit of the effect."""
    slope: float


class Calibration(NamedTuple):
    """The three curves and what they were fitted on."""

    knowledge: Curve | None
    behaviour_more: Curve | None
    """For text of a behaviour that became likelier than its like."""
    behaviour_less: Curve | None
    """For text that became less likely. None: no case of it was seen that would have taught a curve anything."""
    fitted_on: str
    words: Curve | None
    """Knowledge at own words (`mneme.predict.knowledge`)."""

    def curve_of(self, source: str, value: float) -> Curve | None:
        """The curve for an effect of this sign that was read from `source` (as in `mneme.results.Effect`); None where no curve
        was fitted for such evidence: its P is uncalibrated."""
        if source == "text":
            return self.behaviour_more if value > 0 else self.behaviour_less
        return {"words": self.words, "latents": self.knowledge}.get(source)


UNCALIBRATED = Calibration(knowledge=None, behaviour_more=None, behaviour_less=None, fitted_on="nothing", words=None)
"""For evidence of which no curve has seen any: text that the models wrote themselves."""


def shipped_calibration() -> Calibration:
    """The calibration in the package."""
    content = json.loads((Path(__file__).parent / "calibration.json").read_text(encoding="utf-8"))
    names = ("knowledge", "behaviour_more", "behaviour_less", "words")
    curves = {name: Curve(**content[name]) if content[name] else None for name in names}
    return Calibration(**curves, fitted_on=content["fitted_on"])


def shrunk_size(estimate: Estimate, noise: float | None = None) -> float:
    """|effect| after positive-part James-Stein shrinkage by its own noise; 0 where that is as large.

    `noise`: standard error of what was seen. None: that of a normal interval as wide as this one, in which what was not seen
    is noise too; the curve of own words was fitted on it."""
    size = abs(estimate.value)
    if size == 0.0:
        return 0.0
    error = (estimate.high - estimate.low) / (2 * _Z_95) if noise is None else noise
    return size * max(0.0, 1.0 - (error / size) ** 2)


def probability(estimate: Estimate, curve: Curve, noise: float | None = None) -> float:
    """P(material change) of one effect; exactly 0 for an effect of exactly 0, else at least 0.001: noise is no certainty."""
    if estimate.value == 0.0 and estimate.low == estimate.high:
        return 0.0
    return curve_probability(shrunk_size(estimate, noise), curve)


def curve_probability(size: float, curve: Curve) -> float:
    """P(material change) of a shrunk size under one curve; at least 0.001."""
    return max(_LEAST, float(1.0 / (1.0 + (max(size, _TINY) / curve.midpoint) ** -curve.slope)))


def fit_curve(sizes: Float[ndarray, " cell"], material: Bool[ndarray, " cell"], *, prior_midpoint: float) -> Curve:
    """Penalised maximum likelihood of the curve (logistic regression on ln size, by grid).

    `sizes`: shrunk sizes; cells of size 0 are taken as a thousandth of `prior_midpoint`. The penalty is a normal prior with
    standard deviation 1 on ln(midpoint / prior_midpoint) and on ln(slope / 3): cases that a line separates perfectly, which
    have no finite maximum, then get a finite slope.
    """
    x = np.log(np.maximum(sizes, prior_midpoint * _NO_SIZE) / prior_midpoint)
    y = material.astype(np.float64)
    best, best_loss = Curve(prior_midpoint, _STEEP), math.inf
    for shift in np.linspace(*_SHIFTS):
        for log_slope in np.linspace(*_LOG_SLOPES):
            slope = _STEEP * math.exp(log_slope)
            z = slope * (x - shift)
            loss = float(np.logaddexp(0.0, z).sum() - (y * z).sum()) + 0.5 * (shift**2 + log_slope**2)
            if loss < best_loss:
                best, best_loss = Curve(prior_midpoint * math.exp(shift), slope), loss
    return best
