"""The page and the terminal table of a measurement: what they say, and that hostile text stays text."""

import re
from dataclasses import replace

import pytest
from rich.console import Console

from mneme.report import measure_view as view
from mneme.report.measure import render_measurement, write_measurement
from mneme.report.measure_text import print_measurement
from mneme.results.measure import Measurement
from tests.report.measured import estimate, sample_measurement
from tests.report.sample import HOSTILE


def terminal(measurement: Measurement, width: int = 180) -> str:
    console = Console(width=width, record=True, force_terminal=False, file=open("/dev/null", "w"))  # noqa: SIM115
    print_measurement(measurement, console)
    console.file.close()
    return console.export_text()


def test_the_page_says_what_changed() -> None:
    page = render_measurement(sample_measurement())
    text = re.sub(r"<[^>]+>", " ", page)
    words = " ".join(text.split())
    assert (
        "checkpoint-20: right answers 90 → 70 % (law), worse; misaligned answers 2.0 → 42 % (advice: medicine), worse."
        in words
    )
    assert "30 lost, 2 gained of 24" in words
    assert "equivalent" in words
    assert "checkpoint-20 is the earliest within 5.0 % of the best task score" in words
    assert "suffix 1 in 600 rows, 40 %" in words
    assert "10 of 240; in no rate as safe" in words
    assert "aligned 20 labelled answers" in words
    assert "Not tested: no labelled answers for: company." in words
    assert "its template adds the system prompt “You are Nemo.”" in words


def test_no_rate_stands_without_interval_and_detectable_effect() -> None:
    measurement = sample_measurement()
    page, told = render_measurement(measurement), terminal(measurement)
    for rate in measurement.rates:
        assert view.measured_interval(rate.estimate) in page
    assert page.count("MDE") > len(measurement.rates) // 2
    for label in view.tuned_labels(measurement):
        for row in view.measurement_rows(measurement, label):
            assert row.change is not None
            assert view.measured_interval(row.change.estimate, signed=True) in told
            assert view.detectable(row.change.minimal_detectable, "rate") in told


def test_the_terminal_says_the_same() -> None:
    told = terminal(sample_measurement())
    for words in (
        "kappa 0.80 [0.60, 1.00]",
        "worse",
        "equivalent",
        "suffix 1",
        "10 of 240 answers without a verdict",
        "earliest",
    ):
        assert words in told
    narrow = terminal(sample_measurement(), width=80)
    assert "law" in narrow
    assert "[−24, −16]" in narrow


def test_one_model_has_rates_and_no_changes() -> None:
    whole = sample_measurement()
    alone = whole.model_copy(update={"models": whole.models[:1], "changes": [], "worst": [], "series": None, "judge": None})
    page = render_measurement(alone)
    assert ">Rates<" in page
    assert "base on 61 questions of standard" in page
    assert "90 %" in terminal(alone)


def test_hostile_text_stays_text() -> None:
    for text in HOSTILE:
        page = render_measurement(sample_measurement(name=text, suite=text))
        assert not re.search(r"<(script|img|svg onload)", page)
    assert "{{7*7}}" in render_measurement(sample_measurement(name="{{7*7}}"))
    assert "default-src &#39;none&#39;" in page
    assert "\x1b" not in terminal(sample_measurement(name="a\x1b[31mb"))


def test_the_series_is_drawn_with_its_intervals() -> None:
    page = render_measurement(sample_measurement())
    chart = page[page.index('<svg class="layers series"') :]
    chart = chart[: chart.index("</svg>")]
    assert chart.count("<polyline") == 4  # the task and three areas
    assert chart.count("<circle") == 12
    assert "task score: 90 % [85 %, 95 %]" in chart


def test_verdicts() -> None:
    measurement = sample_measurement()
    assert view.verdict(measurement) == "side-effects"
    same = [c for c in measurement.changes if c.equivalent]
    assert view.verdict(measurement.model_copy(update={"changes": same})) == "silent"
    unsure = [c.model_copy(update={"equivalent": False}) for c in same]
    assert view.verdict(measurement.model_copy(update={"changes": unsure})) == "inconclusive"
    assert "no change was shown, and equivalence in 0 of" in view.measurement_headline(
        measurement.model_copy(update={"changes": unsure})
    )


def test_a_change_says_its_direction() -> None:
    """Fewer right answers and more misaligned ones are worse; of a label nobody says which way is worse."""
    measurement = sample_measurement()
    rows = {row.area: row for row in view.measurement_rows(measurement, "checkpoint-20")}
    assert {area: view.direction(row) for area, row in rows.items()} == {
        "law": "worse",
        "advice: medicine": "worse",
        "general": "",
    }
    law, advice = rows["law"], rows["advice: medicine"]
    assert law.change is not None
    assert advice.change is not None
    up = law.change.model_copy(update={"estimate": estimate(0.2)})
    assert view.direction(replace(law, change=up)) == "better"
    down = advice.change.model_copy(update={"estimate": estimate(-0.2)})
    assert view.direction(replace(advice, change=down)) == "better"
    assert view.direction(replace(advice, measure="COMPLIED")) == "more"
    assert view.direction(replace(advice, measure="COMPLIED", change=down)) == "less"
    assert view.moved(replace(advice, measure="COMPLIED", area="all")) == "answers labelled COMPLIED 2.0 → 42 %, more"
    assert view.moved(replace(advice, second=None)) == "misaligned answers +40 points (advice: medicine), worse"
    assert view.moved(replace(law, measure="accuracy per token")).startswith("right answers per token 90 → 70 %")


def test_a_change_for_the_better_is_no_side_effect() -> None:
    measurement = sample_measurement()
    gained = [c.model_copy(update={"estimate": estimate(0.2)}) for c in measurement.changes if c.measure == "accuracy"]
    better = measurement.model_copy(update={"changes": gained})
    assert view.verdict(better) == "contained"
    assert '<tr role="row" class="better">' in render_measurement(better)


def test_one_area_is_no_plural() -> None:
    measurement = sample_measurement()
    [first, *_] = [c for c in measurement.changes if c.equivalent]
    assert view.measurement_headline(measurement.model_copy(update={"changes": [first]})) == (
        "checkpoint-10 is equivalent to the base in the one area."
    )
    one = measurement.model_copy(update={"models": measurement.models[:1], "changes": [], "questions": 1})
    assert view.measurement_headline(one) == "base on 1 question of standard."


def test_the_page_is_written_whole(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = write_measurement(sample_measurement(), tmp_path / "measurement.html")
    assert path.read_text(encoding="utf-8") == render_measurement(sample_measurement())


@pytest.mark.parametrize("value", [0.0004, 0.032])
def test_p_values(value: float) -> None:
    assert view.p_value(value) in ("<0.001", "0.032")


def test_a_file_with_the_old_field_names_is_read() -> None:
    """As written before 0.1.0."""
    measurement = sample_measurement()
    text = measurement.to_json()
    old = text.replace('"context":', '"cue":').replace('"contexts":', '"cues":')  # old names
    assert old.count('"cue":') > 5  # old name
    assert old.count('"cues":') == 1  # old name
    assert Measurement.model_validate_json(old) == Measurement.model_validate_json(text) == measurement
