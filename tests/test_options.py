"""Records of options: what is refused, what decides, what is kept and comes back, and what is typed for the same run."""

import inspect
import io
import shlex
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from mneme.audit.options import AuditOptions
from mneme.bench.options import BenchOptions
from mneme.card.options import CardOptions
from mneme.cli.commands import assembled, from_options
from mneme.compare.options import CompareOptions
from mneme.compare_logs.options import CompareLogsOptions
from mneme.dictionaries.crosscoder import KINDS
from mneme.dpo.options import DpoOptions
from mneme.errors import BadOption, BadRun
from mneme.gate.options import GateOptions
from mneme.measure.options import MeasureOptions
from mneme.options import Machine, Option, Part, Progress, Training, command_line, deciding, restored, settle, stored, taking
from mneme.options.fields import choices_of, specs
from mneme.options.progress import share_told
from mneme.options.values import joined, parse_numbers
from mneme.repair.options import RepairOptions
from mneme.screen.options import ScreenOptions
from mneme.train.options import PersonaOptions, TrainOptions
from mneme.unlearn.options import UnlearnOptions
from mneme.verify.options import VerifyOptions

RECORDS = {
    "audit": AuditOptions("base", "tuned", corpus="text.txt", intended=["a b", "c"], layers=[1, 3], seed=7, quick=True),
    "train": TrainOptions("base", "rows.jsonl", safeguards={"kl": 0.2}, training=Training(lora_rank=0, epochs=2.0)),
    "persona": PersonaOptions("model", with_trait="with.jsonl", without_trait="without.jsonl"),
    "dpo": DpoOptions("model", "pairs.jsonl", filter="none", sft=0.5, training=Training(steps=7)),
    "unlearn": UnlearnOptions("model", forget="f.txt", retain="r.txt", method="rmu", layers=[2]),
    "screen": ScreenOptions("model", "rows.jsonl", scores=["gradient", "gap"], other="other", trial_rate=1e-3),
    "repair": RepairOptions("base", "tuned", target="t.txt", retain="r.txt", reaudit=False, machine=Machine(threads=3)),
    "measure": MeasureOptions("base", ["one", "two"], suite="advice", within=2.0, margin=0.1),
    "bench": BenchOptions(worlds=["a", "c"], jobs=2),
    "card": CardOptions("run", into="README.md"),
    "compare": CompareOptions(["one", "two"], out="elsewhere"),
    "compare-logs": CompareLogsOptions("a.jsonl", "b.jsonl", area="subject", margin=0.02),
    "verify": VerifyOptions("run", base="base", key="key.pem"),
    "gate": GateOptions("run", policy="policy.yaml", sarif=True, today="2027-03-31"),
}


@dataclass(frozen=True)
class Small:
    """A record with one of each."""

    name: Annotated[str, Option("A name.")]
    _: KW_ONLY
    share: Annotated[float, Option("A share.", above=0, most=1, decides=True)] = 0.5
    count: Annotated[int | None, Option("A count.", least=1)] = None
    kind: Annotated[Literal["one", "two"], Option("A kind.")] = "one"
    numbers: Annotated[Sequence[int] | None, Option("Numbers.", parse=parse_numbers, write=joined)] = None
    on: Annotated[bool, Option("Off.", flag="--no-on")] = True
    training: Annotated[Training, Part(("steps", "batch"), defaults=Training(batch=4))] = Training()
    hidden: Any = None

    def __post_init__(self) -> None:
        settle(self)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"share": 0.0}, "--share 0: expected a number above 0 to 1"),
        ({"share": 1.5}, "--share 1.5: expected a number above 0 to 1"),
        ({"share": float("nan")}, "--share nan: expected a number"),
        ({"share": float("inf")}, "--share inf: expected a number"),
        ({"count": 0}, "--count 0: expected a whole number from 1"),
        ({"kind": "three"}, "--kind 'three': expected one of one, two"),
        ({"training": Training(epochs=2.0)}, "training.epochs does nothing here. Expected only batch, steps in training"),
    ],
)
def test_what_is_outside_its_range_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        Small("x", **given)


@pytest.mark.parametrize("rate", [float("inf"), float("nan"), -1.0])
def test_rates_that_cannot_train_are_refused(rate: float) -> None:
    with pytest.raises(BadOption, match=r"--lr .* expected a number from 0"):
        Training(learning_rate=rate)


def test_parts_take_their_commands_defaults() -> None:
    assert Small("x").training == Training(batch=4)
    assert Small("x", training=Training(steps=3)).training == Training(steps=3, batch=4)
    assert UnlearnOptions("m", forget="f", retain="r", training=Training(steps=5)).training.settled().lora_rank is None
    assert TrainOptions("m", "d", training=Training(batch=2)).training.settled().lora_rank == 16


def test_what_decides_is_what_is_marked() -> None:
    assert deciding(Small("x")) == {"share": 0.5, "training.steps": None, "training.batch": 4}
    assert deciding(replace(Small("x"), count=3, kind="two", hidden=object())) == deciding(Small("x"))


def test_the_purpose_decides_no_stage_of_an_audit() -> None:
    assert deciding(RECORDS["audit"]) == deciding(replace(RECORDS["audit"], intended=[], out="elsewhere", overwrite=True))


@pytest.mark.parametrize("command", RECORDS)
def test_a_record_comes_back_from_its_folder(command: str) -> None:
    """Identity: what was asked is what is read back, values that Python alone can give apart."""
    record = RECORDS[command]
    assert stored(restored(type(record), stored(record))) == stored(record)
    assert deciding(restored(type(record), stored(record))) == deciding(record)


@pytest.mark.parametrize("command", RECORDS)
def test_what_is_typed_for_a_record_gives_the_record(command: str) -> None:
    """Through the very parser: the command line of a record, parsed, is that record."""
    found: list[Any] = []
    record = RECORDS[command]

    @from_options(type(record))
    def body(options: Any) -> None:
        """Keeps it."""
        found.append(options)

    app = typer.Typer()
    app.command()(body)
    done = CliRunner().invoke(app, shlex.split(command_line(command, record))[2:])
    assert done.exit_code == 0, done.output
    assert stored(found[0]) == stored(record)


@pytest.mark.parametrize("command", RECORDS)
def test_every_field_of_a_record_is_documented_and_typed_once(command: str) -> None:
    record = type(RECORDS[command])
    flags = [spec.flag for spec in specs(record) if spec.option is not None and not spec.positional]
    assert len(flags) == len(set(flags))
    assert all(spec.option.help.endswith(".") for spec in specs(record) if spec.option is not None)
    assert "mneme." in (record.__doc__ or "")


def test_paths_are_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    kept = stored(AuditOptions("base", "org/hub-name", corpus=Path("gone.txt")))
    assert (kept["base"], kept["tuned"], kept["corpus"]) == (str(tmp_path / "base"), "org/hub-name", "gone.txt")


def test_rows_of_python_cannot_be_asked_for_again() -> None:
    kept = stored(TrainOptions("base", [{"prompt": "a", "completion": "b"}]))
    with pytest.raises(BadRun, match="cannot be repeated from its folder"):
        restored(TrainOptions, kept)


def test_options_of_another_version_are_refused() -> None:
    with pytest.raises(BadRun, match="not those of this version"):
        restored(Small, {"name": "x", "share": "much"})


def test_a_job_is_called_with_its_fields() -> None:
    def run_small(options: Small) -> Small:
        """What it does."""
        return options

    small = taking(Small, run_small)
    assert small("x", share=0.25) == Small("x", share=0.25)
    assert (small.__name__, small.__doc__) == ("small", "What it does.")
    assert list(inspect.signature(small).parameters) == [spec.name for spec in specs(Small)]


def test_the_dictionaries_that_can_be_asked_for_are_those_that_there_are() -> None:
    [field] = [spec for spec in specs(AuditOptions) if spec.name == "dictionary"]
    assert choices_of(field.type) == (*KINDS, "none")


def test_what_was_not_typed_stays_at_its_default() -> None:
    assert assembled(Small, {"name": "x", "numbers": "3, 2,3", "on": True}) == Small("x", numbers=[2, 3], on=False)
    with pytest.raises(BadOption, match="--numbers: '2;3' is no list of numbers"):
        assembled(Small, {"name": "x", "numbers": "2;3"})


def test_a_log_file_hears_of_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line when it begins, and one for every half minute in which something happened."""
    file, now = io.StringIO(), [0.0]
    monkeypatch.setattr("mneme.options.progress.time.monotonic", lambda: now[0])
    with Progress(Console(file=file, width=80)).bars() as track:
        advance = track("reading (tokens)", 100)
        for second in (10.0, 29.0, 31.0, 40.0, 62.0):
            now[0] = second
            advance(10)
    assert file.getvalue().splitlines() == [
        "reading (tokens)",
        "reading (tokens): 30%, about 72 s left",
        "reading (tokens): 50%, about 62 s left",
    ]


def test_a_log_file_hears_of_work_that_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch of a large model can take minutes; the log says that it is still at it."""
    monkeypatch.setattr("mneme.options.progress.LINE_SECONDS", 0.02)
    file = io.StringIO()
    with Progress(Console(file=file, width=80)).bars() as track:
        track("reading (tokens)", 100)
        deadline = time.monotonic() + 10
        while file.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = file.getvalue().splitlines()
    assert lines[0] == "reading (tokens)"
    assert set(lines[1:]) == {"reading (tokens): 0"}
    assert len(lines) >= 3
    time.sleep(0.1)
    assert len(file.getvalue().splitlines()) == len(lines)  # and it falls silent with the work


def test_shares_are_told_only_of_what_is_known() -> None:
    assert share_told(0, 10, 1.0) == "0"
    assert share_told(5, None, 1.0) == "5"
    assert share_told(5, 10, 30.0) == "50%, about 30 s left"
