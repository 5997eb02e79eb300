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
    assert "https://…@host/v1" in account
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
