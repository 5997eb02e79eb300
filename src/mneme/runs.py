"""Run folders: resolved arguments, stages that survive a kill, atomic writes. What is on disk is whole or absent.

A run is keyed by the hash of everything that decides its result (resolved options, fingerprints of the models, hash of the
text, version). Finished stages lie in `stages-<key>/`; the same command after a kill finds them and goes on; another
command into the same folder starts afresh and drops them.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mneme.errors import BadRun

Arrays = dict[str, np.ndarray]
_TEMPORARY = ".mneme-"
"""How the names of files begin that are not whole yet; what a kill leaves of them is removed at the next start."""


@runtime_checkable
class Crew(Protocol):
    """The processes that share one run folder: this one is number `rank` of `world`."""

    @property
    def rank(self) -> int:
        """From 0; process 0 writes what is not split."""

    @property
    def world(self) -> int:
        """How many there are."""

    def wait(self) -> None:
        """Returns when all have called it. Raises BadRun where one has stopped."""


class _Alone:
    rank, world = 0, 1

    def wait(self) -> None:
        """Nobody to wait for."""


def key_of(command: Mapping[str, Any]) -> str:
    """16 hex digits that name everything which decides the result (JSON with sorted keys, SHA-256)."""
    return hashlib.sha256(json.dumps(command, sort_keys=True).encode()).hexdigest()[:16]


def write_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` is either as before or whole: temporary file beside it, fsync, rename.

    Errors: BadRun when the disk is full or the folder cannot be written; the temporary file is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{_TEMPORARY}{path.name}.")
    except OSError as error:
        raise _disk_error(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise _disk_error(path, error) from error
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raise BadRun before any work when the disk that will hold `folder` has less than `needed_bytes` left."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise BadRun(
            f"No room on disk for {folder}: this run writes about {needed_bytes / 1e6:.0f} MB and {free / 1e6:.0f} MB are "
            "free. Free some space or give another folder with --out."
        )


def _disk_error(path: Path, error: OSError) -> BadRun:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadRun(
            f"No room on disk while writing {path}. Nothing half-written was left; free some space or give another folder "
            "with --out, then give the same command again: finished stages are kept."
        )
    return BadRun(f"Cannot write {path}: {error.strerror}. Give a folder that you may write to with --out.")


class RunFolder:
    """One run on disk: `run.json` (what was asked), `stages-<key>/` (what is finished), `timings.json` (what it took)."""

    def __init__(self, folder: Path, command: Mapping[str, Any], crew: Crew | None = None) -> None:
        """Open or start the run of `command` in `folder`; finished stages of another command there are dropped.

        `crew`: the processes that work in this folder together, each with its own RunFolder and the same calls in order.

        Errors: BadRun when `folder` is a file or cannot be written.
        """
        if folder.exists() and not folder.is_dir():
            raise BadRun(f"{folder} is a file. Give a folder with --out.")
        self.folder = folder
        self.key = key_of(command)
        self.stages = folder / f"stages-{self.key}"
        self.seconds: dict[str, float] = {}
        self.crew: Crew = crew or _Alone()
        self._started = time.perf_counter()
        self._before = 0.0
        if self.crew.rank == 0:
            asked = (json.dumps({**command, "key": self.key}, indent=2) + "\n").encode()
            if not (folder / "run.json").is_file() or (folder / "run.json").read_bytes() != asked:
                write_atomic(folder / "run.json", asked)
            for stale in folder.glob("stages-*"):
                if stale != self.stages and stale.is_dir():
                    shutil.rmtree(stale)
            for leftover in [*folder.glob(f"{_TEMPORARY}*"), *self.stages.glob(f"{_TEMPORARY}*")]:
                leftover.unlink(missing_ok=True)
        self.crew.wait()

    def stage(self, name: str, compute: Callable[[], Arrays], *, together: bool = False) -> Arrays:
        """The arrays of stage `name`: read when it was finished before, else computed, kept and timed.

        What comes back was always read through the same bytes on disk, so a resumed run sees exactly what an undisturbed
        one saw. Object arrays are refused (no pickle). Process 0 computes; with `together` all do, and process 0's are kept.
        """
        return next(self.pieces([name], lambda mine: (compute() for _ in (mine or [0])), together=together))

    def pieces(
        self, names: Sequence[str], compute: Callable[[list[int]], Iterable[Arrays]], *, together: bool = False
    ) -> Iterator[Arrays]:
        """The arrays of several stages that do not depend on each other, shared out among the processes; made at once, read
        one after another as they are asked for.

        `compute` is given the numbers of the missing stages that are this process's to make (stage i is that of process
        i mod world) and yields their arrays in that order; each is kept as soon as it comes. With `together` it is called by
        every process where anything is missing, also for no stage of its own, because the processes talk while they compute.
        """
        missing = [i for i, name in enumerate(names) if not self._path(name).exists()]
        self._before += sum(self._read_seconds(name) for i, name in enumerate(names) if i not in missing)
        self.crew.wait()  # nobody writes before everybody has looked
        mine = [i for i in missing if i % self.crew.world == self.crew.rank]
        if mine or (together and missing):
            started = time.perf_counter()
            for turn, arrays in enumerate(compute(mine)):
                if turn < len(mine):
                    self._keep(names[mine[turn]], arrays, time.perf_counter() - started)
                    started = time.perf_counter()
        self.crew.wait()
        return (self._read(name) for name in names)

    def _path(self, name: str) -> Path:
        return self.stages / f"{name}.npz"

    def _keep(self, name: str, arrays: Arrays, seconds: float) -> None:
        content = _npz_bytes(arrays)
        # The time first: the arrays are what says that the stage is finished.
        write_atomic(self._path(name).with_suffix(".seconds"), f"{seconds:.3f}".encode())
        write_atomic(self._path(name), content)

    def _read(self, name: str) -> Arrays:
        self.seconds[name] = self._read_seconds(name)
        with np.load(self._path(name), allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def _read_seconds(self, name: str) -> float:
        seconds = self._path(name).with_suffix(".seconds")
        return float(seconds.read_text()) if seconds.exists() else 0.0

    def wall_seconds(self) -> float:
        """Seconds since this run was opened, and those of the stages that were finished before."""
        return time.perf_counter() - self._started + self._before

    def finish(self, files: Mapping[str, bytes]) -> None:
        """Write the results (name -> bytes) and `timings.json`, each whole or not at all."""
        if self.crew.rank > 0:
            return
        timings = {key: round(value, 3) for key, value in self.seconds.items()}
        write_atomic(self.folder / "timings.json", (json.dumps(timings, indent=2) + "\n").encode())
        for name, content in files.items():
            write_atomic(self.folder / name, content)


def _npz_bytes(arrays: Arrays) -> bytes:
    for name, array in arrays.items():
        if array.dtype == object:
            raise TypeError(f"stage array {name!r} has dtype object, which only pickle could store")
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
