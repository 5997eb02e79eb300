"""An upgrade path: reports that earlier versions wrote are read, rendered and printed by this one.

`generations/` holds what the code of three days wrote of its own sample report (fewer effects and latents, to keep it small):
`first` commit baf63e2 and `second` 0198355, both of 21 November 2026, `third` 6738eed of 27 November. A change of the schema
that breaks one of them needs a new schema name and a reader for the old.
"""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mneme.gate.policy import threshold_policy
from mneme.gate.run import gate_of
from mneme.report.audit import render_html
from mneme.report.audit_text import print_report
from mneme.report.reading import read_report

GENERATIONS = sorted((Path(__file__).parent / "generations").glob("*.json"))


def test_there_are_three() -> None:
    assert [path.stem for path in GENERATIONS] == ["first", "second", "third"]


@pytest.mark.parametrize("path", GENERATIONS, ids=lambda path: path.stem)
def test_an_earlier_report_is_read(path: Path, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(path.read_bytes())
    report = read_report(tmp_path)
    written = json.loads(path.read_bytes())
    assert [effect.area for effect in report.effects] == [effect["area"] for effect in written["effects"]]
    assert [effect.probability for effect in report.effects] == [effect["probability"] for effect in written["effects"]]
    page = render_html(report, None)
    console = Console(file=io.StringIO(), width=100)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    for effect in report.effects:
        assert effect.area in page
        assert effect.area in console.file.getvalue()
    assert gate_of(report, threshold_policy(0.5)).outcome == "fail"
