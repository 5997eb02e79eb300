"""How the program ends when a reader goes away, a person stops it, or mneme itself is at fault."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mneme.cli import main as program
from mneme.cli.main import main


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int | str | None:
    """The exit code of a command that raises `error`."""

    def fails(*_given: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(program, "app", fails)
    with pytest.raises(SystemExit) as ended:
        main([])
    return ended.value.code


def test_a_fault_is_a_sentence_and_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(monkeypatch, ValueError("no https://ann:secret@host/v1 there")) == 70
    said = capsys.readouterr().err
    assert said.startswith("mneme: a fault of mneme itself (ValueError). Its whole account is in ")
    assert "secret" not in said
    assert said.count("\n") == 1
    file = Path(said.split()[-1].rstrip("."))
    account = file.read_text(encoding="utf-8")
    assert "Traceback" in account
    assert "https://host/v1" in account
    assert "secret" not in account
    assert file.stat().st_mode & 0o077 == 0
    file.unlink()


def test_too_little_memory_is_no_fault(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(monkeypatch, MemoryError()) == 2
    assert "not enough memory" in capsys.readouterr().err


def test_an_interrupt_that_no_command_caught_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(monkeypatch, KeyboardInterrupt()) == 130


def test_a_reader_who_has_enough_is_no_failure() -> None:
    """As in `mneme --help | head -1`: the pipe is closed before anything was written."""
    code = "import time; time.sleep(0.5); from mneme.cli.main import main; main(['--help'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        complaint = process.stderr.read()
    assert process.wait(timeout=60) == 0, complaint
    assert "Traceback" not in complaint
    assert "ignored" not in complaint


def test_a_broken_pipe_that_is_not_stdout_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ending(monkeypatch, BrokenPipeError("an endpoint's")) == 70
    Path(capsys.readouterr().err.split()[-1].rstrip(".")).unlink()


def test_an_input_that_is_nested_too_deeply_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ending(monkeypatch, RecursionError()) == 2


@pytest.mark.parametrize(("threshold", "code"), [("0.5", 1), ("0.99", 0)])
def test_the_gate_says_no_whoever_reads(threshold: str, code: int, tmp_path: Path) -> None:
    """As in `mneme audit --fail-on 0.5 | head -1`: the sample report has an unintended effect of P 0.93."""
    program_text = (
        "import sys, types\n"
        "from tests.report.sample import sample_report\n"
        "run = types.ModuleType('mneme.audit.run'); run.run_audit = lambda _: sample_report()\n"
        "sys.modules['mneme.audit.run'] = run\n"
        "sys.stdin.readline()\n"
        f"from mneme.cli.main import main; main(['audit', '--out', {str(tmp_path)!r}, '--fail-on', '{threshold}'])"
    )
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", program_text], text=True, cwd=Path(__file__).parents[2], **pipes)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stdin:
        process.stdin.write("go\n")
    with process.stderr:
        complaint = process.stderr.read()
    assert process.wait(timeout=60) == code, complaint
    assert "Traceback" not in complaint
