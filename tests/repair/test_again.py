"""The audit after a repair is the audit before it, with another model: every option that it had."""

from pathlib import Path
from typing import Any

import pytest

from mneme.audit.options import AuditOptions
from mneme.errors import BadRun
from mneme.options import Machine, restored, stored
from mneme.repair import evidence
from mneme.repair import run as repair_run
from mneme.repair.evidence import Evidence
from mneme.repair.options import RepairOptions
from mneme.results import Report
from mneme.results.repair import SavedRepair
from mneme.runs import RunFolder
from mneme.text.probes import Probe
from tests.conftest import word_tokenizer
from tests.report.sample import sample_report

EVERY_OPTION = AuditOptions(
    "base",
    "tuned",
    corpus="text.txt",
    areas="areas.yaml",
    intended=["biology"],
    out="runs/before",
    dictionary="rotated",
    layers=[1],
    tokens=4096,
    seed=5,
    describe="http://localhost:1/v1?model=x",
    machine=Machine(device="cpu", precision="bfloat16", attention="eager", threads=2, trust_remote_code=True),
)


def test_the_audit_again_uses_the_very_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[AuditOptions] = []

    def audited(options: AuditOptions) -> Report:
        asked.append(options)
        return sample_report()

    monkeypatch.setattr(repair_run, "run_audit", audited)
    none = Probe("none", (), ())
    before = Evidence(
        report=sample_report(),
        options=EVERY_OPTION,
        areas=[{"name": "biology", "keywords": ["cell"]}],
        target=none,
        retain=none,
        other=none,
        directions={},
        unintended=(),
    )
    saved = SavedRepair(folder="model", kind="adapter", **_rest(SavedRepair))
    with RunFolder(tmp_path / "out", {"command": "repair"}, outputs=("areas.yaml",)) as run:
        repair_run._reaudit(before, saved, run, RepairOptions("base", "tuned"))
    [again] = asked
    changed = {name for name, value in stored(again).items() if value != stored(EVERY_OPTION)[name]}
    assert changed == {"tuned", "out", "overwrite", "areas"}
    assert again.tuned == tmp_path / "out" / "model"
    assert Path(str(again.areas)).read_text() == "- name: biology\n  keywords:\n  - cell\n"


def _rest(record: Any) -> dict[str, Any]:
    """Values for the fields that do not matter here."""
    fields = record.model_fields
    return {name: 0 for name, field in fields.items() if name not in ("folder", "kind") and field.is_required()}


def test_the_text_of_an_audit_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report calls the corpus as it was typed; run.json knows where it is."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "text.txt").write_text("one text\n\nand another\n")
    monkeypatch.chdir(tmp_path / "there")
    kept = stored(AuditOptions("base", "tuned", corpus="text.txt"))
    monkeypatch.chdir(tmp_path)
    options = restored(AuditOptions, kept)
    report = sample_report()
    typed = report.model_copy(update={"corpus": report.corpus.model_copy(update={"source": "text.txt"})})
    with pytest.raises(BadRun, match="is no longer the text that was audited"):  # it was found, and is another
        evidence._read_rows(typed, options.corpus or typed.corpus.source, word_tokenizer(), ())
