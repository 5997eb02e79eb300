"""Documentation is executed: marked blocks run, command lines are options of the program, links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from mneme.cli.main import app
from mneme.predict.areas import default_areas, read_areas
from tests.report.sample import sample_report

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(<!-- tested -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(language: str, *, tested: bool) -> Iterator[tuple[str, str]]:
    """(page, text) of every fenced block in a language; with `tested` only those marked so."""
    for page in PAGES:
        for mark, name, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if name == language and (mark or not tested):
                yield page.name, text


def command_lines() -> list[tuple[str, str]]:
    """Every line of a shell or CI block that runs mneme."""
    lines = [
        (page, line.strip().removeprefix("run:").removeprefix("$").strip())
        for language in ("sh", "yaml", "bash", "console")
        for page, text in blocks(language, tested=False)
        for line in text.splitlines()
    ]
    return [(page, line) for page, line in lines if line.startswith("mneme ")]


def options() -> dict[str, set[str]]:
    """Command -> its options, as the program itself knows them."""
    commands = typer.main.get_command(app).commands
    return {
        name: {"--help", *(option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))}
        for name, command in commands.items()
    }


@pytest.mark.parametrize(("page", "code"), list(blocks("python", tested=True)))
def test_python_in_the_documentation_runs(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "report.json").write_text(sample_report().to_json(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {"__name__": "documentation"})
    assert capsys.readouterr().out


@pytest.mark.parametrize(("page", "text"), list(blocks("yaml", tested=True)))
def test_areas_in_the_documentation_are_read(page: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "areas.yaml").write_text(text, encoding="utf-8")
    assert {area.kind for area in read_areas(tmp_path / "areas.yaml")} == {"capability", "behaviour"}


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_command_lines_name_commands_and_options_that_exist(page: str, line: str) -> None:
    _, command, *words = shlex.split(line, comments=True)
    known = options()
    assert command in known, f"{page}: no command {command!r} in {sorted(known)}"
    used = [word.split("=")[0] for word in words if word.startswith("-") and word != "-"]
    assert [option for option in used if option not in known[command]] == [], f"{page}: {line}"


def test_make_targets_named_in_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        name for page in PAGES for name in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"audit", "test", "setup"} <= named
    assert named - targets == set()


def test_the_two_commands_of_the_readme_and_ci() -> None:
    """Both set up by themselves; CI ends with exactly the README's test command."""
    readme, makefile, ci = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile", ".ci/run"))
    first = re.findall(r"^make ([a-z-]+)", readme, re.MULTILINE)
    assert first[:2] == ["audit", "test"]
    needs = {"audit": "setup", "test": r"\$\(TEST_STAMP\)", r"\$\(TEST_STAMP\)": r"\$\(STAMP\).*"}
    for target, needed in needs.items():
        assert re.search(rf"^{target}: {needed}$", makefile, re.MULTILINE)
    assert "mneme audit --out runs/demo" in makefile
    assert ci.splitlines()[-1] == "make test"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_areas_page_counts_what_is_in_the_list() -> None:
    """13 subjects of MMLU-Pro, 3 of WMDP, 7 everyday areas, 2 that everybody knows, 13 behaviours: as docs/areas.md says."""
    kinds = [area.kind for area in default_areas()]
    assert (kinds.count("capability"), kinds.count("behaviour")) == (13 + 3 + 7 + 2, 13)


def test_source_files_named_in_the_documentation_exist() -> None:
    """Backticked paths below src/mneme, folders too; decisions and the changelog may speak of what is gone."""
    gone = []
    for page in PAGES:
        if page.name in {"CHANGELOG.md", "log.md"}:
            continue
        for name in re.findall(r"`((?:src/mneme/)?[a-z_]+/(?:[a-z_]+\.(?:py|yaml|json))?)`", page.read_text(encoding="utf-8")):
            path = ROOT / name if name.startswith(("src/", "docs/")) else ROOT / "src" / "mneme" / name
            if not path.exists() and not (ROOT / name).exists():
                gone.append((page.name, name))
    assert gone == []
