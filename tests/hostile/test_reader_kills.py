"""Kills and a full disk at EVERY write of the commands that read what others have made: they take seconds, so every moment is
tried. What is there afterwards is whole, and the same command again ends in the same files with nothing beside them."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest

from tests.cli.test_out import tree
from tests.hostile.test_kills import KILLED, forked, killed, leftovers, no_room, results
from tests.hostile.test_readers import LINES, finished, here

__all__ = ["finished", "here"]  # fixtures

WRITING = {
    "gate": ["gate", *LINES["gate"]],
    "gate with SARIF, beside the run": ["gate", "out/run", "--policy", "policy.yaml", "--sarif"],
    "compare": ["compare", *LINES["compare"]],
    "compare-logs": ["compare-logs", *LINES["compare-logs"]],
    "card": ["card", *LINES["card"]],
    "card into a README": ["card", "out/run", "--into", "out/README.md"],
}
"""Everything that they write lies in `out`."""


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """What these commands import, once, so that no fork has to."""
    for module in ("gate.run", "gate.outputs", "compare.run", "compare_logs.run", "card.run", "verify.run", "cli.compare"):
        import_module(f"mneme.{module}")
    for module in ("compare", "compare_logs", "compare_view", "compare_logs_view"):
        import_module(f"mneme.report.{module}")


def begin(here: Path, line: list[str]) -> Path:
    """`out` as it is before the command: not there, or with the run that it writes beside."""
    out = here / "out"
    shutil.rmtree(out, ignore_errors=True)
    if any(word.startswith("out/") for word in line):
        out.mkdir()
        shutil.copytree(here / "run", out / "run")
        (out / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n")
    return out


def whole_or_absent(out: Path, before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Files that are neither as they were nor as they are to be."""
    found = results(out) if out.exists() else {}
    names = [name for name in found if not Path(name).name.startswith(".mneme-")]
    return [name for name in names if found[name] not in (before.get(name), after.get(name))]


@pytest.mark.parametrize(
    ("case", "way", "step"),
    [
        ("gate", "killed", 4),
        *(pytest.param(case, way, 1, marks=pytest.mark.slow) for case in WRITING for way in ("killed", "no room")),
    ],
)
def test_every_moment(here: Path, case: str, way: str, step: int) -> None:
    line = WRITING[case]
    out = begin(here, line)
    before = results(out) if out.exists() else {}
    ended, moments = forked(line, out, None, killed)
    assert ended in (0, 1, 3)
    assert moments > 3
    after = results(out)
    for moment in range(1, moments + 1, step):
        begin(here, line)
        code, _ = forked(line, out, moment, killed if way == "killed" else no_room)
        assert code == KILLED if way == "killed" else code in (ended, 2), (moment, code)
        assert whole_or_absent(out, before, after) == [], moment
        if way == "no room":
            assert not out.exists() or leftovers(out) == [], moment
        code, _ = forked(line, out, None, killed)
        assert code == ended, (moment, code)
        assert results(out) == after, moment
        assert leftovers(out) == [], moment


def test_verify_writes_nothing(here: Path) -> None:
    before = tree(here)
    code, moments = forked(["verify", "run"], here, None, killed)
    assert code in (0, 1)
    assert moments == 0
    assert tree(here) == before
