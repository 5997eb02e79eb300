"""A kill at five moments of every command, and a disk that fills up: the same command again ends in the same results.

A moment is the n-th time that the run makes, writes, renames or removes a file below `--out`; there the process ends at once,
as by SIGKILL, or the file is refused for lack of room. Everything happens in a fork, so that nothing is cleaned up behind it.
"""

import errno
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mneme.cli.main import main
from tests.hostile.conftest import line_of

KILLED = 99
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link"}
NOISE = {"timings.json", "plan.json", "report.html", ".mneme-run.json", ".mneme-lock", "run.json", "manifest.json"}
"""Files that hold seconds (the page of an audit tells them), or digests of files that do."""
RUNS = ("audit", "measure", "screen", "train", "dpo", "unlearn", "repair", "persona")


def forked(
    line: list[str], out: Path, at: int | None, then: Callable[[], None], before: Callable[[], None] | None = None
) -> tuple[int, int]:
    """(exit code, moments) of `line` in a fork in which `then` is called at moment `at`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        seen = 0
        said = os.open(os.devnull, os.O_WRONLY)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")

        def watch(event: str, given: tuple[Any, ...]) -> None:
            nonlocal seen
            if event not in EVENTS or not given or not isinstance(given[0], str | bytes | os.PathLike):
                return
            path = os.path.abspath(os.fsdecode(given[0]))
            reads = event == "open" and isinstance(given[2], int) and not given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if reads or not path.startswith(str(out)):
                return
            seen += 1
            if seen == at:
                then()

        code = 70
        try:
            if before is not None:
                before()
            sys.addaudithook(watch)
            main(line)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        finally:
            os.write(writing, str(seen).encode())
            os._exit(code)
    os.close(writing)
    moments = os.read(reading, 100)
    os.close(reading)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(moments or b"0")


def killed() -> None:
    os._exit(KILLED)


def no_room() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def results(out: Path) -> dict[str, Any]:
    """Name -> content of everything that the run promises to be the same, of JSON without what was measured in seconds."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir() or path.name in NOISE or name.startswith(("inspect/", "stages-")) or "/stages-" in name:
            continue
        found[name] = timeless(json.loads(path.read_bytes())) if path.suffix == ".json" else path.read_bytes()
    return found


def timeless(content: Any) -> Any:
    """JSON without seconds."""
    if isinstance(content, dict):
        return {key: timeless(value) for key, value in content.items() if "seconds" not in key}
    return [timeless(value) for value in content] if isinstance(content, list) else content


def leftovers(out: Path) -> list[str]:
    return [str(path) for path in out.rglob("*") if path.name.startswith((".mneme-", ".")) and path.name not in NOISE]


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Everything that commands import, once, so that no fork has to."""
    for module in ("audit", "measure", "screen", "train", "dpo", "unlearn", "repair"):
        import_module(f"mneme.{module}.run")
    for module in ("mneme.train.personas", "mneme.cli.audit", "trl", "datasets", "mneme.report.audit", "mneme.report.measure"):
        import_module(module)


_WHOLE: dict[str, tuple[dict[str, Any], int]] = {}


def undisturbed(command: str, line: list[str], place: Path) -> tuple[dict[str, Any], int]:
    """Results and number of moments of a run that nobody disturbs."""
    if command not in _WHOLE:
        code, moments = forked(line, place / "out", None, killed)
        assert code == 0
        _WHOLE[command] = results(place / "out"), moments
        shutil.rmtree(place / "out")
    return _WHOLE[command]


def moment_of(part: int, moments: int) -> int:
    """The first, three between, and the last but one."""
    return max(1, min(moments - 1, 1 + part * (moments - 2) // 4))


def cases(commands: tuple[str, ...]) -> list[Any]:
    """Every command x five moments."""
    return [
        pytest.param(command, part, marks=pytest.mark.slow, id=f"{command}-{part}")
        for command in commands
        for part in range(5)
    ]


@pytest.mark.parametrize(("command", "part"), cases(RUNS))
def test_a_killed_run_ends_in_the_same(place: Path, command: str, part: int) -> None:
    whole, moments = undisturbed(command, line_of(command), place)
    code, _ = forked(line_of(command), place / "out", moment_of(part, moments), killed)
    assert code == KILLED
    written = command == "persona" and (place / "out" / "vectors.safetensors").exists()
    code, _ = forked(line_of(command), place / "out", None, killed)
    assert code in ((0, 2) if written else (0,))  # finished vectors are not made a second time, pieces beside them go
    assert results(place / "out") == whole
    assert leftovers(place / "out") == []


@pytest.mark.parametrize(("command", "part"), cases(RUNS))
def test_a_disk_that_fills_up(place: Path, command: str, part: int) -> None:
    whole, moments = undisturbed(command, line_of(command), place)
    code, _ = forked(line_of(command), place / "out", moment_of(part, moments), no_room)
    assert code in (0, 2)  # 0: it was a file that may be missing
    written = command == "persona" and (place / "out" / "vectors.safetensors").exists()
    code, _ = forked(line_of(command), place / "out", None, killed)
    assert code in ((0, 2) if written else (0,))  # finished vectors are not made a second time
    assert results(place / "out") == whole
    assert leftovers(place / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNS)
def test_a_disk_that_takes_no_large_file(place: Path, command: str) -> None:
    """Also of libraries that write by themselves: no file of more than 2 kB."""
    whole, _ = undisturbed(command, line_of(command), place)
    code, _ = forked(
        line_of(command), place / "out", None, killed, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
    )
    assert code in (0, 2)
    if command == "persona" and code == 0:
        assert results(place / "out") == whole
        return
    code, _ = forked(line_of(command), place / "out", None, killed)
    assert code == 0
    assert results(place / "out") == whole
