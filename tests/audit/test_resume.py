"""An audit that was stopped, by SIGKILL at any point or by Ctrl-C, goes on to the same bytes as one that was not."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mneme.runs.ledger import LEDGER, LOCK
from tests.audit.conftest import Run, World

# In the order in which an audit writes: three files for the start and each stage (times first), then the results. Between
# causal-0 and null come the records of its latents, as many as were chosen.
WRITTEN = [
    "run.json",
    *(
        f"{stage}.{kind}"
        for stage in (
            "words-0000",
            "survey-0000",
            "layers",
            "dictionaries-0.folder",
            "dictionary-change-0",
            "dictionary-rotated-0",
            "causal-0-1-of-1-from-000000",
            *(f"purposeless-{number}" for number in range(3)),
        )
        for kind in ("json", "npz")
    ),
    "timings.json",
    "report.json",
    "plan.json",
    "report.html",
]
BEFORE, AFTER = "before", "after"


def audit_process(world: World, out: Path, interruption: str = "") -> subprocess.Popen[str]:
    """`mneme audit` of the hand-made pair on one thread, in a process of its own that first runs `interruption`."""
    paths = [str(world.base), str(world.damaged), "--corpus", str(world.corpus), "--areas", str(world.areas)]
    command = ["audit", *paths, "--threads", "1", "--out", str(out)]
    # A shell that starts this run in the background leaves SIGINT ignored, and children inherit that.
    listening = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{listening}\n{interruption}\nfrom mneme.cli.main import main\nmain({command!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def interrupted_at(name: str, moment: str, number: signal.Signals) -> str:
    """Code that sends a signal to its own process before or after the file `name` gets its name."""
    return f"""
import os, signal
real = os.replace
def replace(source, target):
    due = os.path.basename(target) == {name!r}
    if due and {moment == BEFORE}: os.kill(os.getpid(), {int(number)})
    real(source, target)
    if due and {moment == AFTER}: os.kill(os.getpid(), {int(number)})
os.replace = replace
"""


def names(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def finish_and_compare(world: World, out: Path, whole_run: Run) -> None:
    """The same command again, which must end with the bytes of the undisturbed run and leave nothing else behind."""
    process = audit_process(world, out)
    _, complaint = process.communicate(timeout=200)
    assert process.returncode == 0, complaint
    assert (out / "report.json").read_bytes() == (whole_run.out / "report.json").read_bytes()
    assert names(out) == sorted({*names(whole_run.out), "report.html"})


def kill_and_resume(world: World, out: Path, whole_run: Run, name: str, moment: str) -> None:
    process = audit_process(world, out, interrupted_at(name, moment, signal.SIGKILL))
    _, complaint = process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL, complaint
    done = {path.name for path in out.rglob("*") if path.is_file() and not path.name.startswith((".mneme-", "latent-"))}
    assert done == set(WRITTEN[: WRITTEN.index(name) + (moment == AFTER)])
    finish_and_compare(world, out, whole_run)


def test_killed_after_the_last_stage(world: World, whole_run: Run, tmp_path: Path) -> None:
    """The null overwrites the tuned model, so this is where a resumed run sees another model than the undisturbed one saw."""
    kill_and_resume(world, tmp_path / "out", whole_run, "purposeless-2.npz", AFTER)


def test_ctrl_c_leaves_a_run_that_resumes(world: World, whole_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = audit_process(world, out, interrupted_at("layers.npz", AFTER, signal.SIGINT))
    _, said = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "mneme: stopped. The same command goes on where it stopped" in said.replace("\n", " ")
    assert "Traceback" not in said
    assert not (out / "report.json").exists()
    assert {path.name for path in out.rglob(".mneme-*")} <= {LEDGER, LOCK}
    finish_and_compare(world, out, whole_run)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [BEFORE, AFTER])
@pytest.mark.parametrize(
    "name", [name for name in WRITTEN if name.replace(".json", ".npz") not in WRITTEN or name.endswith(".npz")]
)
def test_killed_at_every_file(world: World, whole_run: Run, tmp_path: Path, name: str, moment: str) -> None:
    kill_and_resume(world, tmp_path / "out", whole_run, name, moment)


@pytest.mark.slow
def test_killed_again_and_again(world: World, whole_run: Run, tmp_path: Path) -> None:
    """One run that never gets further than one more stage."""
    out = tmp_path / "out"
    for name in WRITTEN[2::2][:6]:
        process = audit_process(world, out, interrupted_at(name, AFTER, signal.SIGKILL))
        process.communicate(timeout=200)
        assert process.returncode == -signal.SIGKILL
    finish_and_compare(world, out, whole_run)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_a_random_time(world: World, whole_run: Run, tmp_path: Path, seed: int) -> None:
    """Somewhere between the first file and the end, wherever the clock happens to strike."""
    out = tmp_path / "out"
    process = audit_process(world, out)
    while not (out / "run.json").exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(random.Random(seed).uniform(0.0, 4.0))
    process.kill()
    process.communicate()
    finish_and_compare(world, out, whole_run)


@pytest.mark.slow
def test_another_command_into_the_same_folder_starts_afresh(world: World, whole_run: Run, tmp_path: Path) -> None:
    """A half-finished run of another pair leaves nothing in this one."""
    out = tmp_path / "out"
    other = tmp_path / "other"
    shutil.copytree(world.damaged, other)
    swapped = World(other, world.base, world.corpus, world.areas, world.other_areas)
    process = audit_process(swapped, out, interrupted_at("dictionary-change-0.npz", AFTER, signal.SIGKILL))
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    finish_and_compare(world, out, whole_run)
