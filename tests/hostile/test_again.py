"""What run.json keeps is enough to ask for the same again: from another folder, into another one, byte for byte."""

import json
import shlex
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from mneme.bench.options import BenchOptions
from mneme.cli.main import main
from mneme.options import command_line, restored
from mneme.train.options import PersonaOptions
from tests.hostile.conftest import line_of
from tests.hostile.test_kills import results, timeless
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


@pytest.mark.slow
def test_persona_again(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps no run.json: the command line of its record is what makes the vectors again."""
    made = PersonaOptions(
        place / "base", with_trait=place / "rows.jsonl", without_trait=place / "rows2.jsonl", out=tmp_path / "one"
    )
    lines = [shlex.split(command_line("persona", replace(made, out=tmp_path / name))) for name in ("one", "two")]
    for typed, folder in zip(lines, ("there", "elsewhere"), strict=True):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        run(typed[1:])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_bench_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two worlds and their nulls, from run.json, in another folder; what was measured in seconds is left out."""
    monkeypatch.chdir(tmp_path)
    run(["bench", "--worlds", "a,b", "--scenario", "null", "--tokens", "4096", "--seed", "1", "--out", "one"])
    kept = json.loads((tmp_path / "one" / "run.json").read_text())["options"]
    typed = shlex.split(command_line("bench", restored(BenchOptions, kept)))
    typed[typed.index("--out") + 1] = str(tmp_path / "two")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(typed[1:])
    one, two = (json.loads((tmp_path / name / "bench.json").read_text()) for name in ("one", "two"))
    for found in (one, two):
        del found["cost_ratio"], found["quick_ratio"]
    assert timeless(one) == timeless(two)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_organism_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same name, world and seed make the same models, text and areas in another folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        run(["organism", "careful-biology", "--seed", "2", "--out", name])
    made = [results(tmp_path / name) for name in ("one", "two")]
    assert [name for name in made[0] if name.endswith("model.safetensors")]
    assert made[0] == made[1]
