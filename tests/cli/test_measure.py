"""`mneme measure` as a shell sees it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.errors import BadOption
from mneme.measure.options import MeasureOptions
from mneme.options import Machine
from tests.report.measured import sample_measurement

runner = CliRunner()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[MeasureOptions]:
    """Puts a hand-made measurement in place of the work; holds what it was called with."""
    seen: list[MeasureOptions] = []

    def pretend(options: MeasureOptions) -> object:
        seen.append(options)
        return sample_measurement()

    module = ModuleType("mneme.measure.run")
    module.run_measure = pretend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mneme.measure.run", module)
    return seen


def test_every_option_is_handed_over(called: list[MeasureOptions], tmp_path: Path) -> None:
    line = (
        "a b c --suite deception --judge local:j --contexts t.jsonl --data d.jsonl --within 3 --samples 7 --max-tokens 9 "
        "--temperature 0.5 --margin 0.1 --seeds-of-one --seed 4 --device meta --threads 1 --trust-remote-code "
        "--trust-suite-code"
    )
    done = runner.invoke(app, ["measure", *line.split(), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert called == [
        MeasureOptions(
            "a",
            ["b", "c"],
            suite="deception",
            judge="local:j",
            contexts="t.jsonl",
            data="d.jsonl",
            within=3.0,
            samples=7,
            max_tokens=9,
            temperature=0.5,
            margin=0.1,
            seeds_of_one=True,
            seed=4,
            out=str(tmp_path),
            trust_suite_code=True,
            machine=Machine(device="meta", threads=1, trust_remote_code=True),
        )
    ]
    assert (tmp_path / "measurement.html").is_file()
    assert f"Page: {tmp_path / 'measurement.html'}" in done.stdout


def test_json_goes_to_stdout_alone(called: list[MeasureOptions], tmp_path: Path) -> None:
    done = runner.invoke(app, ["measure", "a", "--json", "--out", str(tmp_path)])
    assert done.stdout == sample_measurement().to_json()
    assert json.loads(done.stdout)["schema"] == "mneme.measurement/1"
    assert (called[0].models, called[0].suite) == ([], "standard")


def test_a_world_brings_its_questions_and_its_grammar(called: list[MeasureOptions], tmp_path: Path) -> None:
    done = runner.invoke(app, ["measure", "a", "b", "--suite", "world-a", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert Path(str(called[0].suite)).name == "world-a"
    assert not Path(str(called[0].suite)).exists()
    grammar = called[0].grammar
    assert callable(grammar)
    assert grammar("nothing that a speaker says") == "incoherent"


@pytest.mark.parametrize("arguments", [[], ["a", "--samples", "0"], ["a", "--max-tokens", "x"], ["a", "--what"]])
def test_a_bad_line_ends_with_2(called: list[MeasureOptions], arguments: list[str]) -> None:
    assert runner.invoke(app, ["measure", *arguments]).exit_code == 2
    assert called == []


def test_a_device_that_is_not_there(called: list[MeasureOptions]) -> None:
    done = runner.invoke(app, ["measure", "a", "--device", "banana"])
    assert isinstance(done.exception, BadOption)
    assert called == []


def test_a_world_leaves_nothing_where_the_model_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["measure", str(tmp_path / "none"), "--suite", "world-a", "--out", str(tmp_path / "a" / "b")]
    )
    assert done.exit_code != 0
    assert list(tmp_path.iterdir()) == []
