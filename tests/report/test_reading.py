"""Results are read back by folder or by file, whichever command wrote them, and `mneme report` shows each."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.errors import BadRun
from mneme.report.finished import KINDS, read_run
from mneme.report.reading import JOBS, read_report
from mneme.results.bench import Bench, RealBench
from tests.repair.test_command import report as sample_repair
from tests.report.compared import sample_lineage, sample_logs
from tests.report.measured import sample_measurement
from tests.report.runs import sample_preferences, sample_screening, sample_training, sample_unlearning
from tests.report.sample import sample_report


def sample_bench() -> Bench:
    """An empty one."""
    fields = {"worlds": ["a"], "scenario": "all", "pairs": [], "scores": [], "curves": [], "environment": {}}
    return Bench.model_validate(fields | {"cost_ratio": None, "quick_ratio": None, "token_ratio": None})


MADE: dict[str, Callable[[], object]] = {
    "report.json": sample_report,
    "measurement.json": sample_measurement,
    "repair.json": sample_repair,
    "screening.json": sample_screening,
    "preferences.json": sample_preferences,
    "unlearn.json": sample_unlearning,
    "training.json": sample_training,
    "compare.json": sample_lineage,
    "logs.json": sample_logs,
    "bench.json": sample_bench,
    "real.json": lambda: RealBench(fine_tunes=["a"], scores=[], alarms={"audit": (0, 1)}),
}
SAID = {
    "report.json": ("chemistry", "report.html"),
    "measurement.json": ("misaligned answers 2.0 → 42 % (advice: medicine), worse", "measurement.html"),
    "repair.json": ("82 % of the side effect is undone", "repair.html"),
    "screening.json": ("16 of 40 rows set aside", "screening.html"),
    "preferences.json": ("The chosen answers became less likely", "preferences.html"),
    "unlearn.json": ("50 % of what was recalled of the text to forget", "unlearn.html"),
    "training.json": ("Trained 1 step on 1 row with kl 0.1", ""),
    "compare.json": ("plain two", "compare.html"),
    "logs.json": ("plain", "logs.html"),
    "bench.json": ("", ""),
    "real.json": ("a false alarm in 0 of 1 fine-tune without a purpose", ""),
}


def test_every_kind_of_result_is_known() -> None:
    assert set(MADE) == set(SAID) == set(KINDS) == set(JOBS)


@pytest.mark.parametrize("name", MADE)
def test_report_shows_a_run_of_any_command(tmp_path: Path, name: str) -> None:
    made = MADE[name]()
    (tmp_path / name).write_text(made.to_json(), encoding="utf-8")  # type: ignore[attr-defined]
    words, page = SAID[name]
    shown = CliRunner().invoke(app, ["report", str(tmp_path)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert words in " ".join(shown.stdout.split())
    if page:
        assert (tmp_path / page).read_text(encoding="utf-8").startswith("<!doctype html>")
    as_json = CliRunner().invoke(app, ["report", str(tmp_path / name), "--json"])
    assert json.loads(as_json.stdout) == json.loads(made.to_json())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MADE)
def test_a_result_under_another_name_is_told_by_its_schema(tmp_path: Path, name: str) -> None:
    made = MADE[name]()
    path = tmp_path / "copy.json"
    path.write_text(made.to_json(), encoding="utf-8")  # type: ignore[attr-defined]
    assert read_run(path) == made


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "No result of a run in"),
        ({"notes.txt": "x"}, "No result of a run in"),
        ({"repair.json": "{}"}, "is not a result of schema mneme.repair/1: base: Field required"),
        ({"unlearn.json": "{"}, "Run the unlearn again"),
        ({"repair.json": "{}", "unlearn.json": "{}"}, "repair.json and unlearn.json: the results of several commands"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BadRun, match=words):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"schema": "mneme.else/1"}', "[" * 100_000])
def test_a_strange_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "some.json").write_text(text)
    with pytest.raises(BadRun, match="is no result of mneme"):
        read_run(tmp_path / "some.json")
    with pytest.raises(BadRun, match="No report at"):
        read_run(tmp_path / "absent.json")


def test_a_folder_that_is_not_there_is_no_file_name(tmp_path: Path) -> None:
    with pytest.raises(BadRun, match=r"Name the folder of a run \(`mneme audit --out DIR` makes one\)"):
        read_report(tmp_path / "nope")
