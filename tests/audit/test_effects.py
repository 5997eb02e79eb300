"""What becomes of an effect between its reading and the page."""

from mneme.audit.effects import ranked, settled, suspected
from mneme.predict.verdicts import JudgedClaim
from mneme.report.wording import shown_chance
from mneme.results import Effect
from tests.report.sample import effect, estimate


def uncalibrated(area: str, low: float, high: float, **more: object) -> Effect:
    """An effect without a P, in the middle of its interval."""
    whole = estimate((low + high) / 2, low, high, "probability")
    found = effect(area, 0.0, 0.0, kind="behaviour", magnitude=whole, **more)
    return found.model_copy(update={"probability": None, "calibrated": False})


def test_without_a_p_an_interval_that_leaves_out_zero_is_looked_into() -> None:
    assert suspected(uncalibrated("a", 0.02, 0.4), 0.5)
    assert suspected(uncalibrated("a", -0.4, -0.02), 0.5)
    assert not suspected(uncalibrated("a", -0.16, 0.4), 0.25)
    assert suspected(effect("b", 0.3, 0.1), 0.25)
    assert not suspected(effect("b", 0.3, 0.1), 0.5)


def test_uncalibrated_effects_stand_where_their_verdict_puts_them() -> None:
    found = [
        uncalibrated("quiet", -0.01, 0.01, finding="unaffected"),
        uncalibrated("open", -0.16, 0.4, finding="not enough evidence"),
        uncalibrated("moved", 0.1, 0.4, finding="affected"),
        effect("likely", 0.7, -0.2),
        effect("unlikely", 0.2, -0.01),
    ]
    assert [one.area for one in ranked(found)] == ["moved", "likely", "open", "unlikely", "quiet"]


def test_an_affected_area_was_found_by_its_likelihood() -> None:
    said = [JudgedClaim(finding, 0.01, False, 0.1, None) for finding in ("affected", "unaffected")]
    seen = [uncalibrated("a", 0.1, 0.4), effect("b", 0.1, 0.0)]
    found = settled(seen, [[one] for one in seen], said)
    assert [one.signal for one in found] == ["likelihood", "none"]


def test_where_the_evidence_is_not_enough_there_is_no_p() -> None:
    """P .001 beside *not enough evidence* reads as a sign that nothing happened."""
    said = [JudgedClaim(finding, 0.2, False, 0.1, None) for finding in ("not enough evidence", "unaffected")]
    seen = [effect("a", 0.001, -0.01), effect("b", 0.001, -0.01)]
    found = settled(seen, [[one] for one in seen], said)
    assert [(one.probability, shown_chance(one)) for one in found] == [(None, "open"), (0.001, "<0.01")]
    old = found[0].model_copy(update={"probability": 0.001})  # as reports of earlier versions have it
    assert shown_chance(old) == "open"
