"""An audit by several processes says what one process says, to the last byte, and survives the loss of any of them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mneme.audit.dictionary import sweep_owners
from mneme.audit.run import audit
from mneme.errors import BadOption
from mneme.models.ranks import Ranks
from mneme.options import Machine
from tests.audit.conftest import Run, World

PROGRAM = """
import os, signal, sys
{setting}
lost = {lost!r}
if lost and os.environ["RANK"] == "1":
    import importlib
    home, name = lost.rsplit(".", 1)
    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(importlib.import_module(home), name, stop)
from mneme.cli.main import main
main({command!r})
"""


def audit_by(world: World, out: Path, processes: int, lost: str = "", setting: str = "") -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node processes mneme audit …`; process 1 kills itself when it calls the function `lost`."""
    paths = [str(world.base), str(world.damaged), "--corpus", str(world.corpus), "--areas", str(world.areas)]
    command = ["audit", *paths, "--threads", "1", "--out", str(out)]
    script = out.parent / "program.py"
    script.write_text(PROGRAM.format(lost=lost, command=command, setting=setting))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *launcher], capture_output=True, text=True, env=environment, timeout=280)


def same_as_alone(out: Path, whole_run: Run) -> bool:
    return (out / "report.json").read_bytes() == (whole_run.out / "report.json").read_bytes()


def test_two_processes_write_the_bytes_of_one(world: World, whole_run: Run, tmp_path: Path) -> None:
    done = audit_by(world, tmp_path / "out", 2)
    assert done.returncode == 0, done.stderr
    assert same_as_alone(tmp_path / "out", whole_run)
    assert done.stdout.count("Page: ") == 1
    assert (tmp_path / "out" / "report.html").exists()


def test_the_sweep_goes_to_whoever_has_least_to_do() -> None:
    """Beside two sweep members' worth of change dictionary on process 0 and 6.6 of crosscoder on process 1, 10 members."""
    owners = sweep_owners(10, ("change", "rotated"), 2.0, 2)
    assert (owners.count(0), owners.count(1)) == (7, 3)
    assert sweep_owners(3, ("change",), 2.0, 1) == [0, 0, 0]
    assert set(sweep_owners(3, ("change", "rotated"), 2.0, 4)) == {2, 3}


def test_all_gpus_are_for_one_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("mneme.audit.run"), "join_ranks", lambda _device: Ranks(0, 2))
    with pytest.raises(BadOption, match="--device auto gives one process all GPUs"):
        audit(
            world.base,
            world.damaged,
            corpus=world.corpus,
            machine=Machine(device="auto"),
        )


@pytest.mark.slow
def test_four_processes_write_the_bytes_of_one(world: World, whole_run: Run, tmp_path: Path) -> None:
    done = audit_by(world, tmp_path / "out", 4)
    assert done.returncode == 0, done.stderr
    assert same_as_alone(tmp_path / "out", whole_run)


@pytest.mark.slow
def test_activations_that_do_not_fit_in_memory_are_shared_too(world: World, tmp_path: Path) -> None:
    """With room for nothing, every epoch is a new pass of the models, striped over the processes."""
    outs = []
    no_room = "from mneme.audit import dictionary as d; d.RESIDENT_BYTES = 0"
    for processes in (1, 2):
        out = tmp_path / str(processes) / "out"
        out.parent.mkdir()
        done = audit_by(world, out, processes, setting=no_room)
        assert done.returncode == 0, done.stderr
        outs.append((out / "report.json").read_bytes())
    assert outs[0] == outs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost", ["mneme.audit.run.survey_corpus", "mneme.audit.run.fit_layer", "mneme.audit.findings.causal_check"]
)
@pytest.mark.parametrize("again", [1, 3])
def test_a_lost_process_ends_the_run_which_then_resumes(
    world: World, whole_run: Run, tmp_path: Path, lost: str, again: int
) -> None:
    out = tmp_path / "out"
    done = audit_by(world, out, 2, lost)
    assert done.returncode != 0
    assert "Another process of this run has stopped" in done.stderr.replace("\n", " ")
    assert "give the same command again, with any number of processes" in done.stderr.replace("\n", " ")
    assert not (out / "report.json").exists()
    done = audit_by(world, out, again)
    assert done.returncode == 0, done.stderr
    assert same_as_alone(out, whole_run)
