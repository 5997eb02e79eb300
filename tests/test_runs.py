"""Run folders: what is on disk is whole or absent, and a resumed run writes the bytes of an undisturbed one."""

import contextlib
import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from mneme.errors import BadRun
from mneme.runs import RunFolder, clear_halves, key_of, require_room, write_atomic
from mneme.runs.ledger import LEDGER, LOCK

COMMAND = {"base": "a", "tuned": "b", "seed": 0}

CHILD = """
import sys, numpy as np
from pathlib import Path
from mneme.runs import RunFolder
run = RunFolder(Path(sys.argv[1]), {"base": "a", "tuned": "b", "seed": 0})
def numbers(seed): return lambda: {"x": np.random.default_rng(seed).normal(size=1000).astype(np.float32)}
first = run.stage("first", numbers(1))["x"]
second = run.stage("second", lambda: {"y": first * 2 + numbers(2)()["x"]})["y"]
run.finish({"report.json": second.tobytes().hex().encode()})
"""


def names(folder: Path) -> set[str]:
    """Everything below `folder`, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def current_umask() -> int:
    """Of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def results(folder: Path) -> set[str]:
    """`names` without what mneme keeps to know its own files."""
    return {name for name in names(folder) if name not in (LEDGER, LOCK)}


def out_of_room(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_key_depends_on_every_value_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2}) != key_of({"a": "1"})
    assert len(key_of({})) == 16


def test_write_atomic_writes_whole_files_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "report.json"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~current_umask()
    assert names(tmp_path) == {"new", "new/folder", "new/folder/report.json"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "report.json"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, step, out_of_room)
    with pytest.raises(BadRun, match=r"No room on disk while writing .*report\.json.*free some space.*--out.*stages are kept"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == {"report.json"}


def test_ctrl_c_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "report.json", b"new")
    assert names(tmp_path) == set()


def test_write_below_a_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match=r"Cannot write .*Not a directory\. Give a folder that you may write to with --out"):
        write_atomic(tmp_path / "file" / "x" / "report.json", b"new")


def test_require_room(tmp_path: Path) -> None:
    require_room(tmp_path / "not" / "yet" / "there", 1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(BadRun, match=r"No room on disk for .*: this run writes about \d+ MB and \d+ MB are free\. Free some"):
        require_room(tmp_path / "not" / "yet" / "there", 2 * free + 10**9)
    assert names(tmp_path) == set()


def test_require_room_below_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    require_room(Path("runs/demo"), 1)


def test_out_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(BadRun, match=r"out is a file\. Give a folder with --out"):
        RunFolder(tmp_path / "out", COMMAND)
    assert (tmp_path / "out").read_text() == "precious"


def test_run_records_what_was_asked(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "out", COMMAND)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record == {**COMMAND, "key": run.key}
    assert run.key == key_of(COMMAND)


def test_finished_stage_is_read_and_not_computed_again(tmp_path: Path) -> None:
    calls = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"x": np.arange(5, dtype=np.float32), "flag": np.array([True])}

    first = RunFolder(tmp_path, COMMAND).stage("screen", compute)
    again = RunFolder(tmp_path, COMMAND).stage("screen", compute)
    assert calls == [1]
    for name, array in first.items():
        assert np.array_equal(again[name], array)
        assert again[name].dtype == array.dtype


def test_failed_stage_is_computed_again(tmp_path: Path) -> None:
    def fails() -> NoReturn:
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        RunFolder(tmp_path, COMMAND).stage("screen", fails)
    assert results(tmp_path) == {"run.json", f"stages-{key_of(COMMAND)}"}
    assert RunFolder(tmp_path, COMMAND).stage("screen", lambda: {"x": np.ones(2)})["x"].sum() == 2


def test_stage_refuses_what_only_pickle_could_store(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, COMMAND)
    with pytest.raises(TypeError, match="'words' has dtype object"):
        run.stage("bad", lambda: {"words": np.array(["a", None], dtype=object)})
    assert results(tmp_path) == {"run.json", run.stages.name}


def test_stages_of_another_command_are_dropped_and_other_files_are_not(tmp_path: Path) -> None:
    with RunFolder(tmp_path, COMMAND) as old:
        old.stage("screen", lambda: {"x": np.zeros(1)})
    (tmp_path / "notes.txt").write_text("mine")
    new = RunFolder(tmp_path, {**COMMAND, "seed": 1}, overwrite=True)
    assert new.key != old.key
    assert not old.stages.exists()
    assert new.stage("screen", lambda: {"x": np.ones(1)})["x"] == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_leftovers_of_a_kill_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """SIGKILL between the temporary file and the rename leaves the temporary file: nobody could remove it then."""
    with RunFolder(tmp_path, COMMAND) as run:
        run.stage("screen", lambda: {"x": np.zeros(1)})
    leftovers = [run.stages / f".mneme-{name}.ab12" for name in ("report.json", "report.html", "screen.npz", "screen.json")]
    for path in leftovers:
        path.write_bytes(b"half")
    RunFolder(tmp_path, COMMAND)
    assert [path.name for path in leftovers if path.exists()] == []
    assert (run.stages / "screen.npz").exists()


def test_finish_writes_results_and_timings(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, COMMAND)
    run.stage("screen", lambda: {"x": np.zeros(1)})
    run.finish({"report.json": b"{}", "report.html": b"<p>"})
    assert list(json.loads((tmp_path / "timings.json").read_text())) == ["screen"]
    assert (tmp_path / "report.json").read_bytes() == b"{}"
    assert (tmp_path / "report.html").read_bytes() == b"<p>"


# In the order in which CHILD writes: the ledger; before run.json and after it the ledger again; first.json, first.npz,
# second.json, second.npz; before timings.json and report.json, and after them, the ledger.
KILLS = {
    "ledger half written": ("os.fsync", 1),
    "run.json not yet told to be whole": ("os.replace", 4),
    "first stage written, not renamed": ("os.replace", 6),
    "first stage renamed": ("os.replace_after", 6),
    "second stage half written": ("os.fsync", 8),
    "report half written": ("os.fsync", 11),
    "report not renamed": ("os.replace", 11),
}
FINISHES = "report renamed, not yet told to be whole"
KILLS[FINISHES] = ("os.replace_after", 11)


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, moment: str) -> None:
    """SIGKILL at the n-th call of a system function, then the same command again, against an undisturbed run."""
    function, call = KILLS[moment]
    name = function.removesuffix("_after").split(".")[1]
    killer = f"""
import os, signal
calls, real = [0], os.{name}
def counted(*arguments):
    calls[0] += 1
    if {function.endswith("_after")}: real(*arguments)
    if calls[0] == {call}: os.kill(os.getpid(), signal.SIGKILL)
    return None if {function.endswith("_after")} else real(*arguments)
os.{name} = counted
"""
    killed = subprocess.run([sys.executable, "-c", killer + CHILD, str(tmp_path / "killed")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "killed" / "report.json").exists() == (moment == FINISHES)
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "killed")], check=True)
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "whole")], check=True)
    assert (tmp_path / "killed" / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()
    assert names(tmp_path / "killed") == names(tmp_path / "whole")


def test_a_run_that_is_opened_again_is_not_written_again(tmp_path: Path) -> None:
    """Another process may be opening it too, and would take a half-written file of this one for a leftover."""
    RunFolder(tmp_path / "out", {"command": "audit"}).close()
    before = (tmp_path / "out" / "run.json").stat()
    RunFolder(tmp_path / "out", {"command": "audit"}).close()
    after = (tmp_path / "out" / "run.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    RunFolder(tmp_path / "out", {"command": "other"})
    assert '"other"' in (tmp_path / "out" / "run.json").read_text()


@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("dies_at", [0, 3, 6])
def test_small_work_is_kept_as_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, dies_at: int
) -> None:
    """Nothing that was kept is made again, and what comes back does not depend on the kill."""
    monkeypatch.setattr("mneme.runs.folder.KEPT_SECONDS", seconds)
    made: list[int] = []

    def work(number: int) -> dict[str, np.ndarray]:
        if len(made) == dies_at:
            made.append(-1)
            raise KeyboardInterrupt
        made.append(number)
        return {"a": np.arange(number), "b": np.array(f"{number}")}

    with RunFolder(tmp_path / "out", COMMAND) as run, pytest.raises(KeyboardInterrupt):
        run.each("small", 7, work)
    with RunFolder(tmp_path / "out", COMMAND) as run:
        found = run.each("small", 7, work)
    again = 0 if seconds == 0 else dies_at
    assert made == [*range(dies_at), -1, *range(dies_at - again, 7)]
    assert [(one["a"].tolist(), str(one["b"])) for one in found] == [(list(range(i)), f"{i}") for i in range(7)]
    with RunFolder(tmp_path / "out", COMMAND) as run:
        assert run.each("none", 0, work) == []
        assert len(run.each("small", 7, work)) == 7
        assert set(run.seconds) == {"small"}
    assert len(made) == 8 + again


@pytest.mark.parametrize("together", [False, True])
def test_processes_share_small_work(tmp_path: Path, together: bool) -> None:
    with RunFolder(tmp_path / "out", COMMAND) as first:
        secret = first._secret

        class Second:
            """Process 1 of 2, whose fellow has finished."""

            rank, world = 1, 2

            def wait(self) -> None:
                """At once."""

            def same(self, _content: bytes) -> bytes:
                """Of process 0."""
                return secret

        class First(Second):
            rank = 0

        first.group = First()
        other = RunFolder(tmp_path / "out", COMMAND, Second())
        made: list[list[int]] = [[], []]

        def work(mine: int) -> Callable[[int], dict[str, np.ndarray]]:
            return lambda number: made[mine].append(number) or {"a": np.array(number)}  # type: ignore[func-returns-value]

        with contextlib.suppress(BadRun):  # the other's part is not there yet
            other.each("small", 5, work(1), together=together)
        assert [int(one["a"]) for one in first.each("small", 5, work(0), together=together)] == list(range(5))
        assert made == ([[0, 1, 2, 3, 4]] * 2 if together else [[0, 2, 4], [1, 3]])


def test_what_a_kill_left_of_the_same_write_goes_and_nothing_else(tmp_path: Path) -> None:
    content = b"a whole page"
    ours = [tmp_path / f".mneme-page.html.{digits}" for digits in ("00000000", "1234abcd")]
    ours[0].write_bytes(b"")
    ours[1].write_bytes(content[:5])
    others = [
        tmp_path / ".mneme-page.html.thesis",
        tmp_path / ".mneme-other.html.00000000",
        tmp_path / ".mneme-page.html.ffffffff",
    ]
    for path in others:
        path.write_bytes(b"a page of somebody else")
    clear_halves(tmp_path / "page.html", content)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    clear_halves(tmp_path / "none" / "page.html", content)
