"""How a gate ends: 0 where it passes, 1 where it says no, 3 where the evidence is not enough; 130 where Ctrl-C stops it."""

from pathlib import Path

import pytest

from mneme.cli.audit import threshold_told
from mneme.cli.main import app
from mneme.errors import BadPolicy
from mneme.gate.policy import threshold_policy
from mneme.gate.run import gate_of
from mneme.results import Report
from mneme.results.gate import GateResult
from tests.cli.test_program import in_place_of_the_audit, runner
from tests.report.sample import effect, estimate, sample_report


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
    told = threshold_told(gate_of(report, threshold_policy(0.5)), 0.5)
    assert told == "--fail-on 0.5 was reached by b (P 0.80), a (P 0.60)."


@pytest.mark.parametrize(
    ("value", "words", "code"), [(0.0, [], 0), (-0.5, [], 1), (-0.5, ["--fail-on", "1"], 1), (0.04, [], 3)]
)
def test_an_audit_is_held_against_a_policy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: float, words: list[str], code: int
) -> None:
    one = effect("law", 0.1, value, magnitude=estimate(value, value - 0.02, value + 0.02), kind="behaviour")
    in_place_of_the_audit(monkeypatch, lambda _options: sample_report(effects=[one], absent=[]))
    (tmp_path / "policy.yaml").write_text("not_worse_than: 5", encoding="utf-8")
    policy, out = str(tmp_path / "policy.yaml"), tmp_path / "out"
    done = runner.invoke(app, ["audit", "--policy", policy, "--out", str(out), *words])
    assert done.exit_code == code, done.stderr
    assert GateResult.model_validate_json((out / "gate.json").read_text(encoding="utf-8")).policy == policy
    assert {path.name for path in out.iterdir()} >= {"gate.md", "junit.xml", "report.html"}


def test_a_mistake_in_the_policy_is_said_before_the_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_place_of_the_audit(monkeypatch, lambda _options: pytest.fail("the audit ran"))
    (tmp_path / "policy.yaml").write_text("rules: 3", encoding="utf-8")
    done = runner.invoke(app, ["audit", "--policy", str(tmp_path / "policy.yaml"), "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, BadPolicy)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "code"), [(0.0, 0), (-0.5, 1), (-0.04, 3)])
def test_a_finished_run_is_held_against_a_policy(tmp_path: Path, value: float, code: int) -> None:
    one = effect("law", 0.1, value, magnitude=estimate(value, value - 0.02, value + 0.02))
    (tmp_path / "report.json").write_text(sample_report(effects=[one], absent=[]).to_json(), encoding="utf-8")
    (tmp_path / "policy.yaml").write_text("not_worse_than: 5", encoding="utf-8")
    words = ["gate", str(tmp_path), "--policy", str(tmp_path / "policy.yaml"), "--sarif"]
    done = runner.invoke(app, [*words, "--out", str(tmp_path / "gate")])
    assert done.exit_code == code
    assert sorted(path.name for path in (tmp_path / "gate").glob("[a-z]*")) == [
        "gate.json",
        "gate.md",
        "gate.sarif",
        "junit.xml",
    ]
    told = runner.invoke(app, [*words, "--json"])
    assert GateResult.model_validate_json(told.stdout).outcome == ("pass", "fail", "", "not enough evidence")[code]


def test_ctrl_c_before_anything_was_written_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> Report:
        raise KeyboardInterrupt

    in_place_of_the_audit(monkeypatch, interrupted)
    done = runner.invoke(app, ["audit", "--out", str(tmp_path)])
    assert done.exit_code == 130
    assert done.stderr == "\nmneme: stopped before anything was written.\n"
