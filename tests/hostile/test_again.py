"""What run.json keeps is enough to ask for the same again: from another folder, into another one, byte for byte."""

import json
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from mneme.cli.main import main
from mneme.options import command_line, restored
from tests.hostile.conftest import line_of
from tests.hostile.test_kills import results
from tests.hostile.test_options import RECORDS

MORE = {
    "audit": ["--seed", "3", "--intended", "law"],
    "measure": ["--margin", "0.1", "--seed", "2"],
    "screen": ["--keep", "0.5", "--seed", "4"],
    "train": ["--lr", "0.001", "--seed", "5", "--safeguard", "kl=0.5", "--safe", "rows2.jsonl", "--accumulate", "2"],
    "dpo": ["--lr", "0.001", "--sft", "0.2", "--watch", "4"],
    "unlearn": ["--method", "grad-diff", "--lr", "0.001", "--batch", "4", "--seed", "6"],
    "repair": ["--close", "0.5", "--seed", "7"],
}
"""Options away from their defaults."""


def run(line: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert not ended.value.code


@pytest.mark.parametrize(
    "command", [pytest.param(one, marks=[] if one in ("screen", "dpo") else pytest.mark.slow) for one in MORE]
)
def test_the_same_again(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    # Results call inputs as they were typed, so they are typed as run.json keeps them: absolute.
    typed_at_first = [str(place / word) if (place / word).exists() else word for word in line_of(command, *MORE[command])]
    run(typed_at_first)
    module, _, name = f"mneme.{RECORDS[command]}".rpartition(".")
    kept = json.loads((place / "out" / "run.json").read_text())["options"]
    typed = shlex.split(command_line(command, restored(getattr(import_module(module), name), kept)))
    assert typed[:2] == ["mneme", command]
    assert "--out" in typed
    typed[typed.index("--out") + 1] = str(tmp_path / "again")
    monkeypatch.chdir(tmp_path)  # every path in run.json is absolute
    run(typed[1:])
    assert results(tmp_path / "again") == results(place / "out")
