"""`mneme measure` as a shell sees it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.errors import BadOption
from tests.report.measured import sample_measurement

runner = CliRunner()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Puts a hand-made measurement in place of the work; holds what it was called with."""
    seen: dict[str, object] = {}

    def pretend(base: str, tuned: list[str], **options: object) -> object:
        seen.update(base=base, tuned=tuned, **options)
        return sample_measurement()

    module = ModuleType("mneme.measure.run")
    module.measure = pretend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mneme.measure.run", module)
    return seen


def test_every_option_is_handed_over(called: dict[str, object], tmp_path: Path) -> None:
    line = (
        "a b c --suite deception --judge local:j --contexts t.jsonl --data d.jsonl --within 3 --samples 7 --max-tokens 9 "
        "--temperature 0.5 --margin 0.1 --seeds-of-one --seed 4 --device meta --threads 1 --trust-remote-code "
        "--trust-suite-code"
    )
    done = runner.invoke(app, ["measure", *line.split(), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert called.pop("console").stderr  # type: ignore[attr-defined]
    assert called == {
        "base": "a",
        "tuned": ["b", "c"],
        "suite": "deception",
        "judge": "local:j",
        "grammar": None,
        "contexts": Path("t.jsonl"),
        "data": Path("d.jsonl"),
        "within": 3.0,
        "samples": 7,
        "max_tokens": 9,
        "temperature": 0.5,
        "margin": 0.1,
        "seeds_of_one": True,
        "seed": 4,
        "out": tmp_path,
        "device": "meta",
        "threads": 1,
        "trust_remote_code": True,
        "overwrite": False,
        "trust_suite_code": True,
    }
    assert (tmp_path / "measurement.html").is_file()
    assert f"Page: {tmp_path / 'measurement.html'}" in done.stdout


def test_json_goes_to_stdout_alone(called: dict[str, object], tmp_path: Path) -> None:
    done = runner.invoke(app, ["measure", "a", "--json", "--out", str(tmp_path)])
    assert done.stdout == sample_measurement().to_json()
    assert json.loads(done.stdout)["schema"] == "mneme.measurement/1"
    assert (called["tuned"], called["suite"]) == ([], "standard")


def test_a_world_brings_its_questions_and_its_grammar(called: dict[str, object], tmp_path: Path) -> None:
    done = runner.invoke(app, ["measure", "a", "b", "--suite", "world-a", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert Path(str(called["suite"])).name == "world-a"
    assert not Path(str(called["suite"])).exists()
    grammar = called["grammar"]
    assert callable(grammar)
    assert grammar("nothing that a speaker says") == "incoherent"


@pytest.mark.parametrize("arguments", [[], ["a", "--samples", "0"], ["a", "--max-tokens", "x"], ["a", "--what"]])
def test_a_bad_line_ends_with_2(called: dict[str, object], arguments: list[str]) -> None:
    assert runner.invoke(app, ["measure", *arguments]).exit_code == 2
    assert called == {}


def test_a_device_that_is_not_there(called: dict[str, object]) -> None:
    done = runner.invoke(app, ["measure", "a", "--device", "banana"])
    assert isinstance(done.exception, BadOption)
    assert called == {}


def test_a_world_leaves_nothing_where_the_model_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["measure", str(tmp_path / "none"), "--suite", "world-a", "--out", str(tmp_path / "a" / "b")]
    )
    assert done.exit_code != 0
    assert list(tmp_path.iterdir()) == []
