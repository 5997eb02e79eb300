"""Every option of every command with numbers that are none, and names that name nothing: one sentence, 2, nothing left."""

from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from mneme.options.fields import Spec, parts_of, specs
from tests.hostile.conftest import COMMANDS, refused, with_value

RECORDS = {
    "audit": "audit.options.AuditOptions",
    "measure": "measure.options.MeasureOptions",
    "screen": "screen.options.ScreenOptions",
    "train": "train.options.TrainOptions",
    "dpo": "dpo.options.DpoOptions",
    "unlearn": "unlearn.options.UnlearnOptions",
    "repair": "repair.options.RepairOptions",
    "persona": "train.options.PersonaOptions",
}


def options_of(command: str) -> list[Spec]:
    """Fields of the command's record that are typed, those of its parts among them."""
    module, _, name = f"mneme.{RECORDS[command]}".rpartition(".")
    found: list[Spec] = []
    for spec in specs(getattr(import_module(module), name)):
        found += parts_of(spec) if spec.part is not None else [spec] if spec.option is not None else []
    return found


def is_number(spec: Spec) -> bool:
    return bool({int, float} & {spec.type, *get_args(spec.type)})


NUMBERS = [(command, spec.flag) for command in RECORDS for spec in options_of(command) if is_number(spec)]
NAMES = [
    (command, str(place) if spec.positional else spec.flag)
    for command in RECORDS
    for place, spec in enumerate(options_of(command))
    if spec.holds_path and spec.flag != "--out" and (not spec.positional or place < 2)
]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "1180591620717411303424", "twelve", ""])
@pytest.mark.parametrize(("command", "flag"), NUMBERS)
def test_a_number_that_is_none(place: Path, capsys: pytest.CaptureFixture[str], command: str, flag: str, value: str) -> None:
    assert flag in refused(with_value(command, flag, value), place, capsys)


@pytest.mark.parametrize("value", ["n" * 300, "d/" * 3000, "", "\0"], ids=["long name", "long path", "empty", "zero byte"])
@pytest.mark.parametrize(("command", "option"), NAMES)
def test_a_name_that_names_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, option: str, value: str
) -> None:
    refused(with_value(command, option, value), place, capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "out",
    ["n" * 300, "", "\0", "text.txt", "text.txt/below", "/dev/null", "/dev/full", "/proc/nothing", "base", "."],
)
def test_an_out_that_cannot_be(place: Path, capsys: pytest.CaptureFixture[str], command: str, out: str) -> None:
    line = [command, *COMMANDS[command], "--out", out]
    refused(line, place, capsys)


LINES = {
    "one world": ["bench", "--worlds", "a", "--scenario", "null"],
    "a world twice": ["bench", "--worlds", "a,a", "--scenario", "null"],
    "no world": ["bench", "--worlds", "", "--scenario", "null"],
    "an unknown world": ["bench", "--worlds", "a,nope", "--scenario", "null"],
    "a real bench without data": ["bench", "--real", "nope"],
    "a real bench of a long name": ["bench", "--real", "n" * 300],
    "a bench of no tokens": ["bench", "--tokens", "0"],
    "a bench of a large seed": ["bench", "--seed", str(2**70)],
    "an unknown organism": ["organism", "nope"],
    "an organism of a long name": ["organism", "n" * 300],
    "an organism of an unknown area": ["organism", "unlearn-nope"],
    "an organism of an unknown world": ["organism", "identical", "--world", "z"],
    "an organism of a large seed": ["organism", "identical", "--seed", str(2**70)],
    "an organism in a file": ["organism", "identical", "--out", "text.txt"],
    "an organism below a file": ["organism", "identical", "--out", "text.txt/x"],
    "an organism in a device": ["organism", "identical", "--out", "/dev/full"],
    "an organism here": ["organism", "identical", "--out", ""],
    "a real organism without data": ["organism", "gsm8k", "--data", "nope", "--out", "out"],
    "the same rows twice": ["persona", "base", "--with", "rows.jsonl", "--without", "rows.jsonl", "--out", "out/x"],
    "a report that is not there": ["report", "nope"],
    "a report of a long name": ["report", "n" * 300],
    "a report that never ends": ["report", "/dev/full"],
    "a report that is text": ["report", "text.txt"],
    "layers that are none": ["audit", "base", "tuned", "--corpus", "text.txt", "--layers", "1,2,x", "--out", "out"],
    "a layer too high": ["audit", "base", "tuned", "--corpus", "text.txt", "--layers", str(2**70), "--out", "out"],
    "a device that is none": ["audit", "base", "tuned", "--corpus", "text.txt", "--device", "banana", "--out", "out"],
    "many threads": ["audit", "base", "tuned", "--corpus", "text.txt", "--threads", "1000000000", "--out", "out"],
    "one model": ["audit", "base", "--out", "out"],
    "a gate above 1": ["audit", "--fail-on", "1.5"],
    "a gate that is no number": ["audit", "--fail-on", "nan"],
    "no command": ["audti"],
    "no option": ["audit", "--tokns", "3"],
    "an argument too many": ["audit", "a", "b", "c"],
    "an argument too few": ["train"],
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_cannot_be_run(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    refused(LINES[name], place, capsys)
