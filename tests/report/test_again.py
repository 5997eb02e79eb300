"""Every page says the command that makes it again: that of run.json, without its folder, paths by name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mneme.cli.again import asked_again
from mneme.cli.main import app
from mneme.options import stored
from mneme.report.measure import render_measurement
from mneme.report.preferences import render_preferences
from mneme.report.repair import render_repair
from mneme.report.screen import render_screening
from mneme.report.unlearn import render_unlearning
from mneme.runs import RunFolder
from mneme.screen.options import ScreenOptions
from tests.repair.test_command import report as sample_repair
from tests.report.measured import sample_measurement
from tests.report.runs import sample_preferences, sample_screening, sample_unlearning
from tests.report.sample import HOSTILE

PAGES: dict[str, Callable[[str], str]] = {
    "measure": lambda again: render_measurement(sample_measurement(), again),
    "repair": lambda again: render_repair(sample_repair(), again),
    "screen": lambda again: render_screening(sample_screening(), again),
    "dpo": lambda again: render_preferences(sample_preferences(), again),
    "unlearn": lambda again: render_unlearning(sample_unlearning(), again),
}


@pytest.mark.parametrize("job", PAGES)
def test_the_page_has_the_command_with_names_for_paths(job: str) -> None:
    page = PAGES[job](f"mneme {job} /srv/models/base other --seed 3")
    assert f"<code>mneme {job} base other --seed 3</code>" in page
    assert "/srv/models" not in page
    assert "Make it again" not in PAGES[job]("")


@pytest.mark.parametrize("job", PAGES)
def test_a_hostile_command_stays_text(job: str) -> None:
    for text in HOSTILE:
        page = PAGES[job](f"mneme {job} '{text.replace(chr(39), '')}'")
        assert not re.search(r"<(script|img|svg onload)", page)


def test_the_command_is_that_of_run_json_without_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ScreenOptions("model", "rows.jsonl", seed=7, out=str(out))
    with RunFolder(out, {"command": "screen"}, options=stored(options)):
        pass
    assert asked_again(out, "screen", ScreenOptions) == "mneme screen model rows.jsonl --seed 7"
    assert asked_again(out, "dpo", ScreenOptions) == ""
    (out / "screening.json").write_text(sample_screening().to_json(), encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(out)])
    assert done.exit_code == 0, done.output
    assert "mneme screen model rows.jsonl --seed 7" in (out / "screening.html").read_text("utf-8")


@pytest.mark.parametrize(
    "broken", ["{", "[]", '{"command": "screen", "options": {"seed": "x"}}', '{"command": "screen"}', "[" * 10_000]
)
def test_without_a_usable_run_json_there_is_no_command(broken: str, tmp_path: Path) -> None:
    assert asked_again(tmp_path, "screen", ScreenOptions) == ""
    (tmp_path / "run.json").write_text(broken)
    assert asked_again(tmp_path, "screen", ScreenOptions) == ""
