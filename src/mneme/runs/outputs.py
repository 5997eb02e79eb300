"""Results in a run folder: each is recorded in the ledger before it appears, so that a kill leaves nothing unproven."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from mneme.errors import BadRun
from mneme.runs.ledger import (
    LEDGER,
    LOCK,
    Ledger,
    foreign,
    half_ledgers,
    is_own,
    own_secret,
    read_ledger,
    remove_own,
    write_ledger,
)
from mneme.runs.writing import clear_halves, content_digest, disk_error, file_digest, write_atomic

_PATIENCE = 60.0
"""Seconds that a page waits for a run in its folder: a run that has just ended writes its last files."""


def require_own(folder: Path, others: Sequence[str], outputs: Sequence[str]) -> None:
    """Raise BadRun where one of `others` (files that are not mneme's, `ledger.foreign`) stands where `outputs` are to be."""
    wanted = {name.rstrip("/") for name in outputs}
    taken = [name for name in others if name in wanted or any(name.startswith(f"{one}/") for one in wanted)]
    if taken:
        raise BadRun(
            f"{folder / taken[0]} would have to make room, and this user's mneme did not write it, or it was changed since. "
            "Move it away, or give another folder with --out."
        )


def put_files(
    folder: Path, files: Mapping[str, bytes], ledger: Ledger, secret: bytes, drafts: Path | None, *, finished: bool = False
) -> Ledger:
    """Write `files` (name below `folder` -> content) and record them; the ledger as it is then.

    Raises BadRun where one of the names is taken by what `ledger` does not list.
    """
    _require_free(folder, files, ledger)
    new = {name: content_digest(content) for name, content in files.items()}
    both = {name: tuple({*ledger.files.get(name, ()), digest}) for name, digest in new.items()}
    write_ledger(folder, replace(ledger, files={**ledger.files, **both}), secret, drafts)
    for name, content in files.items():
        write_atomic(folder / name, content, drafts=drafts)
    told = {**ledger.files, **{name: (digest,) for name, digest in new.items()}}
    after = replace(ledger, files=told, finished=ledger.finished or finished)
    write_ledger(folder, after, secret, drafts)
    return after


def _require_free(folder: Path, files: Mapping[str, bytes], ledger: Ledger) -> None:
    """Raise BadRun where one of the names is taken by what `ledger` does not list."""
    for name, content in files.items():
        path = folder / name
        _require_folders(folder, name)
        there = path.is_symlink() or path.exists()
        if there and not is_own(folder, name, ledger) and (path.is_symlink() or not _holds(path, content)):
            require_own(folder, [name], [name])


def _require_folders(folder: Path, name: str) -> None:
    """Raise BadRun where a link or a file stands in the way to `name` below `folder`."""
    for parent in PurePosixPath(name).parents:
        path = folder / parent
        if parent.parts and (path.is_symlink() or (path.exists() and not path.is_dir())):
            require_own(folder, [parent.as_posix()], [parent.as_posix()])


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.is_file() and file_digest(path) == content_digest(content)
    except OSError:
        return False


def tree_digests(folder: Path) -> dict[str, tuple[str]]:
    """Every file below `folder` (name relative to it) with its digest; the ledger of the folder itself is left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != LEDGER:
            found[path.relative_to(folder).as_posix()] = (file_digest(path),)
    return found


def put_tree(folder: Path, draft: Path, name: str, ledger: Ledger, secret: bytes, drafts: Path) -> None:
    """Move the folder `draft` to `name` in `folder` and record its files, in the place of one that `ledger` lists.

    Raises BadRun where anything else is there, or the disk refuses.
    """
    final = folder / name
    _require_folders(folder, name)
    if final.is_symlink() or (final.exists() and not final.is_dir()):
        require_own(folder, [name], [name])
    if final.is_dir():
        inside = [other for other in foreign(folder, ledger, secret) if other.startswith(f"{name}/")]
        require_own(folder, inside, [name])
    new = {f"{name}/{file}": digests for file, digests in tree_digests(draft).items()}
    old = [file for file in ledger.files if file.startswith(f"{name}/")]
    both = {file: tuple({*ledger.files.get(file, ()), *new.get(file, ())}) for file in [*old, *new]}
    write_ledger(folder, replace(ledger, files={**ledger.files, **both}), secret, drafts)
    try:
        remove_own(folder, ledger, old)
        if final.is_dir():  # nothing but empty folders
            shutil.rmtree(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, final)
    except OSError as error:
        raise disk_error(final, error) from error
    kept = {file: digests for file, digests in ledger.files.items() if file not in old}
    write_ledger(folder, replace(ledger, files={**kept, **new}), secret, drafts)


def add_file(folder: Path, name: str, content: bytes) -> Path:
    """Write one file into a run folder after its run (a page), as `put_files` does; the path.

    A folder without a ledger of this user gets one that lists this file alone. Raises BadRun where somebody else's file of
    that name is there.
    """
    add_files(folder, {name: content})
    return folder / name


def add_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """`add_file` of several (name -> content): none is written where one of the names is somebody else's."""
    secret = own_secret()
    lock = FileLock(folder / LOCK, timeout=_PATIENCE)
    nothing = Ledger("", "", finished=True)
    try:
        _require_free(folder, files, read_ledger(folder, secret) or nothing)  # before the lock, which is a file too
        folder.mkdir(parents=True, exist_ok=True)
        with lock:
            ledger = read_ledger(folder, secret) or nothing
            for half in half_ledgers(folder, secret):
                half.unlink()
            for name, content in files.items():
                clear_halves(folder / name, content)
            put_files(folder, files, ledger, secret, None)
    except Timeout:
        raise BadRun(f"Another mneme is at work in {folder}. Wait until it has finished.") from None
    except OSError as error:
        raise disk_error(folder / next(iter(files)), error) from error
