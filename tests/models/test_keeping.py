"""State is kept by time: a kill costs about a minute, whatever a step lasts."""

import pytest

from mneme.models import keeping
from mneme.models.keeping import Keeping


@pytest.mark.parametrize(
    ("step", "writing", "expected"),
    [(1, 0, [60, 120]), (10, 0, [60, 120]), (25, 0, [50, 100, 150]), (10, 15, [60, 115, 170]), (90, 0, [90, 180])],
)
def test_no_more_than_a_minute_is_lost(
    step: float, writing: float, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moments at which the state is kept; the first time, nobody knows how long the writing will take."""
    now = 0.0
    monkeypatch.setattr(keeping.time, "monotonic", lambda: now)
    clock, kept = Keeping(), []
    while now < expected[-1]:
        now += step
        if clock.is_due():
            kept.append(now)
            now += writing
            clock.kept()
    assert kept == expected
