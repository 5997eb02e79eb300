"""Documentation is executed: marked blocks run, command lines are options of the program, links lead somewhere."""

import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import mneme
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


def test_command_lines_are_parsed_by_the_program_itself() -> None:
    """Options, values and arguments, as far as they are known without running it; a continued line and a pipe end it."""
    commands = typer.main.get_command(app).commands
    wrong = []
    for page, line in command_lines():
        words = shlex.split(line, comments=True)[1:]
        words = words[: next((i for i, word in enumerate(words) if word in {"|", ">", "&&", "\n", "\\"}), len(words))]
        if line.rstrip().endswith("\\"):
            continue
        try:
            commands[words[0]].make_context(words[0], list(words[1:]))
        except click.exceptions.Exit:
            continue
        except click.ClickException as error:
            wrong.append((page, line, str(error)))
    assert wrong == []


@pytest.mark.parametrize(("page", "code"), list(blocks("python", tested=False)))
def test_python_in_the_documentation_calls_what_there_is(page: str, code: str) -> None:
    """Every block parses, and what it calls of mneme by name exists and takes the keywords that it is given."""
    if page == "api.md":  # signatures, made from the program; the examples in them are those of docstrings
        return
    for node in ast.walk(ast.parse(code)):
        named = _name_in_mneme(node.func) if isinstance(node, ast.Call) else _name_in_mneme(node)
        if named is None:
            continue
        assert named in mneme.__all__, f"{page}: mneme.{named}"
        if isinstance(node, ast.Call):
            given = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(getattr(mneme, named)).bind_partial(*node.args, **given)


def _name_in_mneme(node: ast.AST) -> str | None:
    inside = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mneme"
    return node.attr if inside else None  # type: ignore[attr-defined]


def test_pages_of_the_site_exist_and_the_api_is_current() -> None:
    named = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8"))
    assert named
    assert [page for page in named if not (ROOT / "docs" / page).is_file()] == []
    checked = subprocess.run([sys.executable, str(ROOT / "docs" / "make_api.py"), "--check"], check=False)
    assert checked.returncode == 0, "run: python docs/make_api.py"


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
    """Backticked paths below src/mneme, folders too; decisions and the changelog may speak of what is gone, and docstrings
    (api.md) of what a run writes."""
    gone = []
    for page in PAGES:
        if page.name in {"CHANGELOG.md", "log.md", "api.md"}:
            continue
        for name in re.findall(r"`((?:src/mneme/)?[a-z_]+/(?:[a-z_]+\.(?:py|yaml|json))?)`", page.read_text(encoding="utf-8")):
            path = ROOT / name if name.startswith(("src/", "docs/")) else ROOT / "src" / "mneme" / name
            if not path.exists() and not (ROOT / name).exists():
                gone.append((page.name, name))
    assert gone == []
