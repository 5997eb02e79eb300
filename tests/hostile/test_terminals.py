"""Terminals of any width and encoding, keys in addresses, faults inside a run: what is seen and what is written down."""

import io
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mneme.audit.options import AuditOptions
from mneme.cli.main import main
from mneme.errors import BadAreas, BadSuite
from mneme.measure.options import MeasureOptions
from mneme.measure.suite import read_suite
from mneme.models.secrets import shown_option
from mneme.options import command_line, stored
from mneme.plain import in_signs_of, plain_json
from mneme.predict.areas import read_areas
from mneme.report.audit_text import print_report
from mneme.runs import RunFolder
from mneme.terminal import Listing, Terminal
from tests.report.sample import effect, sample_report

NAMES = ["information hazards and more", "law", "a name without end " * 4]


def drawn(width: int, encoding: str = "utf-8") -> str:
    """A report with long names on a terminal of that width."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_report(sample_report(effects=[effect(name, 0.9, -0.5) for name in NAMES]), Terminal(file=stream, width=width))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_names_are_whole_at_every_width(width: int) -> None:
    shown = drawn(width)
    assert all(len(line) <= width for line in shown.splitlines())
    for word in {word for name in NAMES for word in name.split()}:
        assert word in shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_every_encoding_can_be_written(encoding: str, width: int) -> None:
    assert "law" in drawn(width, encoding)


@pytest.mark.parametrize("width", [10, 40, 80, 120])
def test_running_text_is_shortened_and_names_are_not(width: int) -> None:
    table = Listing(("row", "score", "question"), short=("question",))
    table.add("row-17", "0.25", "why " * 100)
    stream = io.StringIO()
    Terminal(file=stream, width=width).print(table)
    assert "row-17" in stream.getvalue()
    assert "0.25" in stream.getvalue()
    assert all(len(line) <= width for line in stream.getvalue().splitlines())


def test_signs_that_an_encoding_lacks() -> None:
    assert in_signs_of("a → b … κ é 猫", "ascii") == "a -> b ... kappa e ?"
    assert in_signs_of("a – b × c", "cp1252") == "a – b × c"
    assert in_signs_of("→…", "ascii", same_width=True) == ">."
    assert json.loads(plain_json('{"a": "猫 →"}', "ascii")) == {"a": "猫 →"}
    assert plain_json('{"a": "猫 →"}', "ascii").isascii()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_command_on_a_stream_of_another_encoding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "report.json").write_text(sample_report(effects=[effect("猫 → \x1b[31m", 0.9, -0.5)]).to_json(), "utf-8")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path), "--json"])
    assert not ended.value.code
    assert json.loads(raw.getvalue().decode(encoding))["effects"][0]["area"] == "猫 → \x1b[31m"
    assert b"\x1b" not in raw.getvalue()


KEYED = "http://host:8000/sk-secret-0123456789abcdef/v1?model=judge"


@pytest.mark.parametrize("given", [KEYED, f"verdict:{KEYED}", "http://me:secret@host/v1", "http://host/v1?key=secret"])
def test_a_key_is_not_written_down(given: str) -> None:
    judged, described = MeasureOptions("a", judge=given), AuditOptions("a", "b", describe=given)
    for text in (shown_option(given), json.dumps([stored(judged), stored(described)]), command_line("measure", judged)):
        assert "secret" not in text
        assert "host" in text
    assert shown_option("local:models/judge") == "local:models/judge"


def test_a_fault_inside_a_run_is_told_in_its_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(_options: object) -> None:
        with RunFolder(tmp_path / "run", {"command": "audit"}):
            raise ValueError("http://host/v1?key=secret refused")

    module = ModuleType("mneme.audit.run")
    module.run_audit = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mneme.audit.run", module)
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--out", str(tmp_path / "run")])
    assert ended.value.code == 70
    assert str(tmp_path / "run" / "fault.txt") in capsys.readouterr().err
    account = (tmp_path / "run" / "fault.txt").read_text()
    assert "ValueError" in account
    assert "secret" not in account
    with RunFolder(tmp_path / "run", {"command": "audit"}):  # the file is mneme's own: the same command goes on
        pass


def test_all_is_no_area(tmp_path: Path) -> None:
    (tmp_path / "areas.yaml").write_text("- {name: All, kind: capability, keywords: [a, b]}\n")
    with pytest.raises(BadAreas, match="what all areas together are called"):
        read_areas(tmp_path / "areas.yaml")
    (tmp_path / "suite.jsonl").write_text('{"area": "all", "prompt": "a", "choices": ["b", "c"], "answer": 0}\n')
    with pytest.raises(BadSuite, match="what all areas together are called"):
        read_suite(tmp_path / "suite.jsonl")
