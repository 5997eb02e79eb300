"""From effect to probability: exact zero, monotone, and a curve that is found again."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mneme.predict.calibration import Curve, fit_curve, probability, shipped_calibration, shrunk_size
from mneme.results import Estimate
from tests import laws

CURVE = Curve(midpoint=0.03, slope=3.0)
sizes = st.floats(1e-6, 1.0)
errors = st.floats(0.0, 0.5)


def estimate(value: float, error: float) -> Estimate:
    """An effect with this standard error."""
    half = 1.959964 * error
    return Estimate(value=value, low=value - half, high=value + half, unit="probability", n=40)


def test_identity_zero_gives_exactly_zero() -> None:
    laws.identity(probability(estimate(0.0, 0.0), CURVE))
    laws.identity(shrunk_size(estimate(0.0, 0.3)))


def test_noise_as_large_as_the_effect_leaves_nothing_of_it() -> None:
    """Though not nothing at all: noise is no certainty."""
    assert shrunk_size(estimate(-0.1, 0.2)) == 0.0
    assert probability(estimate(0.1, 0.2), CURVE) == probability(estimate(0.0, 0.3), CURVE) == 0.001


def test_half_at_the_midpoint_and_by_hand() -> None:
    assert probability(estimate(0.03, 0.0), CURVE) == pytest.approx(0.5)
    # Twice the midpoint: 1 / (1 + 2^-3).
    assert probability(estimate(-0.06, 0.0), CURVE) == pytest.approx(8 / 9)
    # Error half the effect: shrunk by 1 - 1/4.
    assert shrunk_size(estimate(0.04, 0.02)) == pytest.approx(0.03)


@given(sizes, sizes, errors)
def test_monotone_in_size(one: float, other: float, error: float) -> None:
    small, large = sorted((one, other))
    assert probability(estimate(small, error), CURVE) <= probability(estimate(large, error), CURVE) + 1e-12


@given(sizes, errors, errors)
def test_decreasing_in_noise(size: float, one: float, other: float) -> None:
    quiet, loud = sorted((one, other))
    assert probability(estimate(size, loud), CURVE) <= probability(estimate(size, quiet), CURVE) + 1e-12


@given(sizes, errors)
def test_the_sign_does_not_matter(size: float, error: float) -> None:
    assume(size > 1e-4)
    assert probability(estimate(size, error), CURVE) == pytest.approx(probability(estimate(-size, error), CURVE), abs=1e-9)


@given(sizes, errors)
def test_a_probability_is_one(size: float, error: float) -> None:
    assert 0.0 <= probability(estimate(size, error), CURVE) <= 1.0


@pytest.mark.parametrize(("midpoint", "slope"), [(0.05, 2.0), (0.02, 4.0)])
def test_fit_curve_finds_a_known_curve_again(midpoint: float, slope: float) -> None:
    generator = np.random.default_rng(0)
    size = np.exp(generator.uniform(math.log(0.002), math.log(0.5), 1500))
    material = generator.random(1500) < 1 / (1 + (size / midpoint) ** -slope)
    fitted = fit_curve(size, material, prior_midpoint=0.03)
    assert fitted.midpoint == pytest.approx(midpoint, rel=0.15)
    assert fitted.slope == pytest.approx(slope, rel=0.2)


def test_fit_curve_of_separable_cells_is_finite() -> None:
    size = np.concatenate([np.full(20, 0.001), np.full(20, 0.5), np.zeros(5)])
    fitted = fit_curve(size, size > 0.1, prior_midpoint=0.03)
    assert 0.001 < fitted.midpoint < 0.5
    assert 0 < fitted.slope < 20
    assert probability(estimate(0.001, 0.0), fitted) < 0.05
    assert probability(estimate(0.5, 0.0), fitted) > 0.95


def test_fit_curve_without_cells_is_the_prior() -> None:
    fitted = fit_curve(np.zeros(0), np.zeros(0, dtype=bool), prior_midpoint=0.07)
    assert fitted.midpoint == pytest.approx(0.07)
    assert fitted.slope == pytest.approx(3.0)


def test_fit_curve_is_pulled_up_by_cells_that_are_never_material() -> None:
    """20 effects of the prior's midpoint, none of them material: the midpoint moves above them."""
    fitted = fit_curve(np.full(20, 0.03), np.zeros(20, dtype=bool), prior_midpoint=0.03)
    assert fitted.midpoint > 0.04


def test_shipped_calibration() -> None:
    calibration = shipped_calibration()
    curves = [part for part in calibration if isinstance(part, Curve)]
    assert len(curves) >= 2
    assert all(curve.midpoint > 0 and curve.slope > 0 for curve in curves)
    assert calibration.fitted_on


def test_evidence_without_a_fitted_curve_has_none() -> None:
    calibration = shipped_calibration()
    assert calibration.curve_of("words", 0.1) == calibration.curve_of("words", -0.1) == calibration.words
    assert calibration.curve_of("latents", -0.1) == calibration.knowledge
    assert calibration.curve_of("text", 0.1) == calibration.behaviour_more
    assert calibration.curve_of("text", -0.1) is None
    assert calibration.curve_of("answers", 0.1) is calibration.curve_of("answers", -0.1) is None
