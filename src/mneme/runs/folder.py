"""Run folders: resolved arguments, stages that survive a kill. Files are written whole or not at all, and only in
folders that belong to this run.

A run is keyed by the hash of everything that decides its result (resolved options, fingerprints of the models, hash of the
text, version). Finished stages lie in `stages-<key>/`; the same command after a kill finds them and goes on. Every stage is
sealed (`mneme.runs.ledger`): one that is not as this user's mneme wrote it is computed again.
"""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from filelock import FileLock, Timeout

from mneme.errors import BadRun, MnemeError
from mneme.runs.ledger import (
    LEDGER,
    LOCK,
    Ledger,
    foreign,
    half_ledgers,
    own_secret,
    read_ledger,
    remove_own,
    stages_name,
    write_ledger,
)
from mneme.runs.outputs import put_files, put_tree, require_own, tree_digests
from mneme.runs.stages import (
    bundled,
    drop_stages,
    read_arrays,
    read_seconds,
    remove_leftovers,
    sealed_stage,
    unbundled,
    write_marker,
)
from mneme.runs.writing import disk_error, write_atomic

Arrays = dict[str, np.ndarray]
_NOTE = "In the run folder "
KEPT_SECONDS = 20.0
"""Small work is kept so often: a kill may cost a minute, and what is being made when it comes is lost too."""
_SHOWN = 3
"""So many names of strangers' files stand in a refusal."""


@runtime_checkable
class ProcessGroup(Protocol):
    """The processes that share one run folder: this one is number `rank` of `world`."""

    @property
    def rank(self) -> int:
        """From 0; process 0 writes what is not split."""

    @property
    def world(self) -> int:
        """How many there are."""

    def wait(self) -> None:
        """Returns when all have called it. Raises BadRun where one has stopped."""

    def same(self, content: bytes) -> bytes:
        """The `content` of process 0, everywhere; of the same length in all."""


class _Alone:
    rank, world = 0, 1

    def wait(self) -> None:
        """Returns at once."""

    def same(self, content: bytes) -> bytes:
        """`content`."""
        return content


def key_of(command: Mapping[str, Any]) -> str:
    """16 hex digits that name everything which decides the result (JSON with sorted keys, SHA-256)."""
    return hashlib.sha256(json.dumps(command, sort_keys=True).encode()).hexdigest()[:16]


def folder_noted(error: BaseException) -> Path | None:
    """The run folder that was open when `error` (a fault, Ctrl-C) was raised, of several the outermost; None where there was
    none. RunFolder leaves a note on what passes through it."""
    noted = [note.removeprefix(_NOTE) for note in getattr(error, "__notes__", ()) if note.startswith(_NOTE)]
    return Path(noted[-1]) if noted else None


class RunFolder:
    """One run on disk: `run.json` (what was asked), `stages-<key>/` (what is finished), `timings.json` (what it took).

    To be used in a `with` statement: the folder is locked until it ends.
    """

    def __init__(
        self,
        folder: Path,
        command: Mapping[str, Any],
        group: ProcessGroup | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
        overwrite: bool = False,
        patience: float = 0.0,
    ) -> None:
        """Open or start the run of `command` in `folder`.

        `options`: the record of all that was asked (`mneme.options.stored`), kept in `run.json` beside the command; it does
        not decide whether stages are of use, so the same command with other `options` goes on with them.
        `group`: the processes that work in this folder together, each with its own RunFolder and the same calls in order.
        `outputs`: files and folders that the run will write there. `overwrite`: start also where another command has finished
        (its files, as far as they are provably mneme's, are removed) or where others keep files (they stay). `patience`:
        seconds to wait where another process works in the folder.

        Errors: BadRun when `folder` is a file, cannot be written, is being worked in, or holds what `overwrite` is for; also
        with it where one of `outputs` is there and not mneme's own. Then nothing was written.
        """
        self.folder = folder
        self.key = key_of(command)
        self.stages = folder / stages_name(self.key)
        self.seconds: dict[str, float] = {}
        self.group: ProcessGroup = group or _Alone()
        self._started = time.perf_counter()
        self._before = 0.0
        self._checked: set[str] = set()
        self._lock: FileLock | None = None
        self._options = options
        own = own_secret() if self.group.rank == 0 else bytes(32)
        self._secret = self.group.same(own)
        if self.group.rank == 0:
            try:
                self._open(command, ("run.json", "timings.json", *outputs), overwrite, patience)
            except BaseException:
                self.close()
                raise
        self.group.wait()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not isinstance(error, MnemeError):
            error.add_note(f"{_NOTE}{self.folder}")
        self.close()

    def close(self) -> None:
        """Let the folder go; other processes may open it then."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open(self, command: Mapping[str, Any], outputs: Sequence[str], overwrite: bool, patience: float) -> None:
        folder = self.folder
        _require_folder(folder)
        if folder.exists():  # before the lock, which is a file too: a folder that is refused stays as it was
            self._require_ours(outputs, overwrite)
        self._acquire(patience)
        ledger = self._require_ours(outputs, overwrite)
        if ledger is not None and ledger.key != self.key:
            drop_stages(folder / stages_name(ledger.key), ledger.key, self._secret)
            remove_own(folder, ledger)
            ledger = None
        if ledger is None:
            ledger = Ledger(self.key, str(command.get("command", "")))
            write_ledger(folder, ledger, self._secret)
        remove_leftovers(self.stages)
        for half in half_ledgers(folder, self._secret):
            half.unlink()
        told = {"options": dict(self._options)} if self._options is not None else {}
        asked = (json.dumps({**command, **told, "key": self.key}, indent=2) + "\n").encode()
        if not (folder / "run.json").is_file() or (folder / "run.json").read_bytes() != asked:
            put_files(folder, {"run.json": asked}, ledger, self._secret, self.stages)

    def _acquire(self, patience: float) -> None:
        path = self.folder / LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=patience)
            lock.acquire()
        except Timeout:
            raise BadRun(
                f"Another mneme is at work in {self.folder}. Wait until it has finished, or give another folder with --out."
            ) from None
        except OSError as error:
            raise disk_error(path, error) from error
        self._lock = lock

    def _require_ours(self, outputs: Sequence[str], overwrite: bool) -> Ledger | None:
        """The ledger of the folder, which this run may use. Raises BadRun where it may not."""
        folder = self.folder
        ledger = read_ledger(folder, self._secret)
        same = ledger is not None and ledger.key == self.key
        if self.stages.is_symlink() or (self.stages.exists() and not same):
            raise BadRun(f"{self.stages} was not made by this user's mneme. Give another folder with --out.")
        if ledger is not None and not same and ledger.finished and not overwrite:
            raise BadRun(
                f"{folder} holds a finished run of mneme {ledger.command or '(a page)'}, and this command is another. Give "
                "another folder with --out, or --overwrite to remove that run (only files that mneme wrote)."
            )
        others = foreign(folder, ledger, self._secret)
        if others and not same and not overwrite:
            raise BadRun(
                f"{folder} holds files that this user's mneme did not write ({_few(others)}). Give another folder with --out, "
                "or --overwrite to work beside them; they stay as they are."
            )
        require_own(folder, others, outputs)
        return ledger

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
        missing = [i for i, name in enumerate(names) if not self.is_finished(name)]
        self._before += sum(read_seconds(self.stages, name) for i, name in enumerate(names) if i not in missing)
        self.group.wait()  # every process has looked before any of them writes
        mine = [i for i in missing if i % self.group.world == self.group.rank]
        if mine or (together and missing):
            started = time.perf_counter()
            for turn, arrays in enumerate(compute(mine)):
                if turn < len(mine):
                    self._keep(names[mine[turn]], arrays, time.perf_counter() - started)
                    started = time.perf_counter()
        self.group.wait()
        return (self._read(name) for name in names)

    def each(self, name: str, count: int, work: Callable[[int], Arrays], *, together: bool = False) -> list[Arrays]:
        """`work(i)` for every i below `count`, in order, none of which depends on another: kept together as soon as
        `KEPT_SECONDS` have passed, so that a kill costs no more than that and the piece that was being made.

        The processes take turns; with `together` all of them make everything, because they talk while they compute, and
        process 0's is kept. What comes back does not depend on where a kill was.
        """
        rank, world = (0, 1) if together else (self.group.rank, self.group.world)
        writes = not together or self.group.rank == 0
        shares = [range(first, count, world) for first in range(world)]
        names = [f"{name}-{first + 1}-of-{world}" for first in range(world)]
        at = self._kept_until(names[rank], len(shares[rank]))
        self.group.wait()  # every process has looked before any of them writes
        started, held = time.perf_counter(), list[Arrays]()
        for place in range(at, len(shares[rank])):
            held.append(work(shares[rank][place]))
            seconds = time.perf_counter() - started
            if seconds >= KEPT_SECONDS or place + 1 == len(shares[rank]):
                if writes:
                    self._keep(f"{names[rank]}-from-{at:06d}", bundled(held), seconds)
                started, held, at = time.perf_counter(), [], place + 1
        self.group.wait()
        found: dict[int, Arrays] = {}
        for share, own in zip(shares, names, strict=True):
            done = 0
            while done < len(share):
                parts = unbundled(self._read(piece := f"{own}-from-{done:06d}"))
                self.seconds[name] = self.seconds.get(name, 0.0) + self.seconds.pop(piece)
                found.update(zip(share[done:], parts, strict=False))
                done += len(parts)
        return [found[number] for number in range(count)]

    def _kept_until(self, name: str, count: int) -> int:
        """How many pieces of work of this name are finished."""
        at = 0
        while at < count and self.is_finished(piece := f"{name}-from-{at:06d}"):
            self._before += read_seconds(self.stages, piece)
            at += len(unbundled(read_arrays(self.stages, piece)))
        return at

    def is_finished(self, name: str) -> bool:
        """True where the stage `name` is on disk as this run wrote it."""
        if name not in self._checked and sealed_stage(self.stages, name, self.key, self._secret):
            self._checked.add(name)
        return name in self._checked

    def _keep(self, name: str, arrays: Arrays, seconds: float) -> None:
        content = _npz_bytes(arrays)
        # The seal first: the arrays are what says that the stage is finished.
        write_marker(self.stages, name, content, seconds, self.key, self._secret)
        write_atomic(self.stages / f"{name}.npz", content)
        self._checked.add(name)

    def _read(self, name: str) -> Arrays:
        if not self.is_finished(name):  # another process made it
            raise BadRun(f"{self.stages / name}.npz was changed while the run went on. Give the same command again.")
        self.seconds[name] = read_seconds(self.stages, name)
        return read_arrays(self.stages, name)

    def workspace(self, name: str) -> Path:
        """A folder of the run's own for what is no stage (checkpoints, a model being written): kept after a kill, removed with
        the stages. Raises BadRun where somebody else's lies there."""
        folder = self.stages / name
        marked = sealed_stage(self.stages, f"{name}.folder", self.key, self._secret)
        if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and marked)):
            raise BadRun(f"{folder} is not a folder that mneme made. Move it away, or give another folder with --out.")
        if not marked:
            write_marker(self.stages, f"{name}.folder", b"", 0.0, self.key, self._secret)
            write_atomic(self.stages / f"{name}.folder.npz", b"")
        folder.mkdir(exist_ok=True)
        return folder

    def clear_workspace(self, name: str) -> None:
        """Remove what is in `workspace(name)`."""
        shutil.rmtree(self.workspace(name))

    def seal_tree(self, folder: Path) -> None:
        """Seal a whole folder below a workspace (a checkpoint), so that `is_sealed` says true until anything in it changes."""
        write_ledger(folder, Ledger(self.key, "", finished=True, files=tree_digests(folder)), self._secret)

    def is_sealed(self, folder: Path) -> bool:
        """True where `folder` holds exactly the files that it was sealed with by this run."""
        ledger = read_ledger(folder, self._secret)
        return ledger is not None and ledger.key == self.key and not foreign(folder, ledger, self._secret)

    def adopt(self, draft: Path, name: str) -> None:
        """Move the finished folder `draft`, which lies in a workspace, to `name` in the run folder, in the place of one that
        this user's mneme wrote there before. Raises BadRun where something else is there."""
        put_tree(self.folder, draft, name, self._ledger(), self._secret, self.stages)

    def wall_seconds(self) -> float:
        """Seconds since this run was opened, and those of the stages that were finished before."""
        return time.perf_counter() - self._started + self._before

    def write(self, name: str, content: bytes) -> None:
        """Write one file of the results, whole or not at all. Raises BadRun where somebody else's is there."""
        if self.group.rank == 0:
            put_files(self.folder, {name: content}, self._ledger(), self._secret, self.stages)

    def finish(self, files: Mapping[str, bytes]) -> None:
        """Write the results (name -> bytes) and `timings.json`, each whole or not at all."""
        if self.group.rank > 0:
            return
        timings = {key: round(value, 3) for key, value in self.seconds.items()}
        told = {"timings.json": (json.dumps(timings, indent=2) + "\n").encode(), **files}
        put_files(self.folder, told, self._ledger(), self._secret, self.stages, finished=True)

    def discard(self) -> None:
        """Remove what this run wrote, and its folder where nothing else is in it: for a run whose result lies elsewhere.

        The stages go first, the lock last, so that the same run after a kill can do it again. Raises BadRun where the disk
        refuses.
        """
        ledger = self._ledger()
        try:
            drop_stages(self.stages, self.key, self._secret)
            remove_own(self.folder, ledger)
            for name in (LEDGER, LOCK):
                (self.folder / name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        except OSError as error:
            raise disk_error(self.folder, error) from error
        self.close()

    def _ledger(self) -> Ledger:
        ledger = read_ledger(self.folder, self._secret)
        if ledger is None or ledger.key != self.key:
            raise BadRun(f"{self.folder} was changed while the run went on. Give the same command again.")
        return ledger


def _require_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise BadRun(f"{folder} is a file. Give a folder with --out.")
    if folder.is_symlink() and not folder.exists():
        raise BadRun(f"{folder} is a link to nothing. Give a folder with --out.")


def _few(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _npz_bytes(arrays: Arrays) -> bytes:
    for name, array in arrays.items():
        if array.dtype == object:
            raise TypeError(f"stage array {name!r} has dtype object, which only pickle could store")
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
