"""How an audit ends: 0 where the gate passes, 1 where it says no, 3 where the evidence is not enough, 130 at Ctrl-C."""

from pathlib import Path

import pytest

from mneme.cli.audit import unintended
from mneme.cli.main import app
from mneme.results import Report
from tests.cli.test_program import in_place_of_the_audit, runner
from tests.report.sample import effect, sample_report


@pytest.mark.parametrize(
    ("finding", "intended", "verdict", "code"),
    [
        ("unaffected", False, "no material change", 0),
        ("not enough evidence", False, "inconclusive", 3),
        ("not enough evidence", True, "change", 0),
        ("not enough evidence", False, "change", 3),
        ("affected", False, "change", 1),
    ],
)
def test_a_gate_that_has_not_enough_evidence_ends_with_3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finding: str, intended: bool, verdict: str, code: int
) -> None:
    one = effect("law", 0.9 if finding == "affected" else 0.1, 0.0, finding=finding, intended=intended)
    in_place_of_the_audit(monkeypatch, lambda _options: sample_report(effects=[one], verdict=verdict))
    done = runner.invoke(app, ["audit", "--fail-on", "0.5", "--out", str(tmp_path)])
    assert done.exit_code == code
    assert ("the evidence is not enough for law" in done.stderr) == (code == 3)
    assert runner.invoke(app, ["audit", "--out", str(tmp_path)]).exit_code == 0


def test_unintended_effects_most_probable_first() -> None:
    report = sample_report(effects=[effect("a", 0.6, 0), effect("b", 0.8, 0), effect("c", 0.9, 0, intended=True)])
    assert unintended(report, 0.5) == ["b (P 0.80)", "a (P 0.60)"]


def test_ctrl_c_before_anything_was_written_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> Report:
        raise KeyboardInterrupt

    in_place_of_the_audit(monkeypatch, interrupted)
    done = runner.invoke(app, ["audit", "--out", str(tmp_path)])
    assert done.exit_code == 130
    assert done.stderr == "\nmneme: stopped before anything was written.\n"
