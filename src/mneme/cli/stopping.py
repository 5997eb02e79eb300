"""What every command that runs a job shares: how Ctrl-C ends it, which device and how many threads it has."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mneme.cli.endings import STOPPED
from mneme.cli.saying import say
from mneme.errors import BadOption
from mneme.options import Machine

_QUOTA = "/sys/fs/cgroup/cpu.max"
"""How many microseconds of CPU in a period a container may use: `200000 100000` is two cores, `max` no limit (cgroup v2)."""


@contextmanager
def stopped_with(message: str, *, always: bool = False) -> Iterator[None]:
    """On Ctrl-C prints `message` to stderr and exits with 130, as a shell expects of an interrupted program.

    Before a run folder was opened there is nothing to go on from, and it says that in the place of `message`, unless `always`.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        from mneme.runs import folder_noted

        begun = always or folder_noted(stop) is not None
        say(err=True)
        say(f"mneme: stopped{f'. {message}' if begun else ' before anything was written.'}", err=True)
        raise typer.Exit(STOPPED) from None


@contextmanager
def answered(code: int) -> Iterator[None]:
    """Around the printing of a result whose answer is the exit code `code`: a reader who has enough does not change it."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as stop:
        closed = isinstance(stop, BrokenPipeError) or isinstance(stop.__context__, BrokenPipeError)  # rich exits itself
        if closed and code:
            raise typer.Exit(code) from None
        raise


@contextmanager
def working(machine: Machine, message: str) -> Iterator[None]:
    """`stopped_with(message)` on a device that is there, with the threads that this process should have."""
    with stopped_with(message):
        require_device(machine.device)
        use_threads(machine.threads)
        yield


def require_device(name: str) -> None:
    """Raises BadOption where torch cannot put a tensor on the device `name`; neither the CPU nor `auto` is asked."""
    if name in ("cpu", "auto"):
        return
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:120]
        raise BadOption(
            f"--device {name!r} cannot be used here: {reason}. Use cpu, or a device that this torch has."
        ) from error


def use_threads(asked: int | None) -> None:
    """As many threads of torch as were asked for; else as OMP_NUM_THREADS says; else one a core that this process may use."""
    if asked is None and os.environ.get("OMP_NUM_THREADS"):
        return
    import torch

    torch.set_num_threads(asked or usable_cores())


def usable_cores(quota: str = _QUOTA) -> int:
    """The cores that this process may run on, or those that its container's quota of CPU time amounts to, where fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(quota, encoding="ascii") as file:
            allowed, period = file.read().split()[:2]
        return max(1, min(cores, round(int(allowed) / int(period))))
    except (OSError, ValueError):  # no such control group, or no limit
        return cores
