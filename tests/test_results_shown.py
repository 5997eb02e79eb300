"""Results in a notebook: HTML in which everything is text, and data frames with intervals in columns."""

from collections.abc import Callable
from typing import Any

import pytest

from mneme.compare.run import lineage_of
from mneme.gate.policy import Policy
from mneme.gate.run import gate_of
from mneme.results import Estimate, TooFew
from mneme.results.compare_logs import LogComparison
from mneme.results.record import Record
from mneme.results.showing import flat, frame_of
from mneme.results.verify import Verification, VerifyCheck
from tests.compare.test_compare import report, run
from tests.report.measured import sample_measurement
from tests.report.sample import HOSTILE, hostile_report, sample_report

SHOWN: dict[str, Callable[[], Any]] = {
    "audit": sample_report,
    "hostile audit": hostile_report,
    "gate": lambda: gate_of(sample_report(), Policy()),
    "measure": sample_measurement,
    "compare": lambda: lineage_of([run("a", report({"law": 0.2})), run("b", report({"law": 0.0}))]),
    "verify": lambda: Verification(
        run=HOSTILE[0],
        manifest_sha256="ab",
        verified=True,
        checks=[VerifyCheck(what="base", outcome="holds", detail=HOSTILE[1])],
    ),
    "compare-logs": lambda: LogComparison(
        first="a", second="b", files_sha256=[], changes=[], flips=[], judges=[], unpaired={}, claims=0, notes=HOSTILE
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_shows_text_and_nothing_else(name: str) -> None:
    html = SHOWN[name]()._repr_html_()
    assert html.startswith("<div>")
    assert not any(sign in html for sign in ("<script", "<img", "<svg", "\x00", "\u2028"))


@pytest.mark.parametrize("name", SHOWN)
def test_every_result_is_a_data_frame(name: str) -> None:
    pandas = pytest.importorskip("pandas")
    assert isinstance(SHOWN[name]().to_frame(), pandas.DataFrame)


def test_an_interval_is_columns_of_its_own() -> None:
    class Row(Record):
        name: str
        size: Estimate
        few: TooFew
        more: list[str]

    size = Estimate(value=0.1, low=0.0, high=0.2, unit="rate", n=9)
    row = flat(Row(name="a", size=size, few=TooFew(value=None, unit="rate", n=3, needed=5), more=["x"]))
    assert row == {
        "name": "a",
        "size": 0.1,
        "size_low": 0.0,
        "size_high": 0.2,
        "size_unit": "rate",
        "size_n": 9,
        "few": None,
        "few_low": None,
        "few_high": None,
        "few_unit": "rate",
        "few_n": 3,
    }


def test_effects_and_latents_as_frames() -> None:
    found = sample_report()
    frame = found.to_frame()
    assert list(frame["area"]) == [effect.area for effect in found.effects]
    assert frame.loc[0, ["magnitude", "magnitude_low", "magnitude_high"]].tolist() == [-0.97, -0.99, -0.93]
    assert len(found.to_frame("latents")) == len(found.latents)
    assert list(found.to_frame("absent")["area"]) == ["wmdp cyber", "sycophancy"]
    assert len(frame_of([])) == 0
