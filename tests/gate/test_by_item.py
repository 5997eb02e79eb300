"""Two audits of the same text: a change since the approved one that intervals alone cannot tell is told by item."""

from pathlib import Path

import numpy as np
import pytest

from mneme import gate
from mneme.audit.stored import evidence_bytes
from mneme.compare.run import paired_changes
from tests.audit.test_stored import sample_evidence
from tests.compare.test_compare import report


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """An approved audit, and one that loses 3 points more of every word of the first area; words differ far more than that,
    and each run alone knows its change to 10 points. Thirty words leave open what others would show: 15 points are asked."""
    first = sample_evidence()
    change = np.random.default_rng(5).uniform(-0.5, 0.0, len(first.words.usable))
    for name, more in (("approved", 0.0), ("run", 0.03)):
        p_true = np.stack([np.full(len(change), 0.95), 0.95 + change - more * first.words.own[0]])
        evidence = first._replace(words=first.words._replace(scores=first.words.scores._replace(p_true=p_true)))
        (tmp_path / name).mkdir()
        alone = report({"law": -0.25 - more}, half=0.1)
        effects = [one.model_copy(update={"source": "words"}) for one in alone.effects]
        (tmp_path / name / "report.json").write_text(alone.model_copy(update={"effects": effects}).to_json(), "utf-8")
        (tmp_path / name / "evidence.npz").write_bytes(evidence_bytes(evidence))
    return tmp_path / "approved", tmp_path / "run"


def test_item_by_item_the_gate_passes_what_intervals_leave_open(runs: tuple[Path, Path], tmp_path: Path) -> None:
    approved, run = runs
    policy = tmp_path / "policy.yaml"
    policy.write_text("not_worse_than: 15", "utf-8")
    found = gate(run, policy=policy, baseline=approved, out=tmp_path / "gate")
    check = next(one for one in found.checks if one.area == "law")
    assert check.outcome == "pass", check
    assert not any("two intervals" in note for note in found.notes)
    (approved / "evidence.npz").unlink()
    alone = gate(run, policy=policy, baseline=approved, out=tmp_path / "alone")
    assert next(one for one in alone.checks if one.area == "law").outcome == "not enough evidence"
    assert any(note.startswith("0 of ") and "too long" in note for note in alone.notes)


def test_the_change_by_item_is_the_one_that_was_put_in(runs: tuple[Path, Path]) -> None:
    assert paired_changes(*runs)["law"].value == pytest.approx(-0.03, abs=1e-6)
    assert paired_changes(runs[1], runs[0])["law"].value == pytest.approx(0.03, abs=1e-6)
