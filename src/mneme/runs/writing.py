"""Writes that are whole or absent, under the permissions that the user's umask gives."""

import errno
import hashlib
import os
import secrets
import shutil
import stat
from pathlib import Path

from mneme.errors import BadRun

TEMPORARY = ".mneme-"
"""How the names of files begin that are not whole yet."""
_SAMPLED_ABOVE = 256 * 2**20
_BLOCK = 2**20
_SAMPLES = 256
_TOKEN = 8
"""Hex digits at the end of a temporary file's name, at random."""
_LONGEST_NAME = 100
"""Of a target's name, so much stands in its temporary file's name: file systems allow 255 bytes in all."""


def write_atomic(path: Path, content: bytes, *, drafts: Path | None = None) -> None:
    """Write `content` so that `path` is either as before or whole: temporary file, fsync, rename.

    The temporary file lies in `drafts`, a folder on the same file system, or beside `path`. Permissions are what the umask
    leaves of 0666. A symlink at `path` is replaced, never followed. Anything else that is no file stays: a rename would put
    a file in the place of a device such as /dev/null, for the whole machine where the user may do that.

    Errors: BadRun when the disk is full, the folder cannot be written or `path` is no file; the temporary file is removed.
    """
    require_file(path)
    folder = drafts or path.parent
    temporary = folder / f"{TEMPORARY}{path.name[:_LONGEST_NAME]}.{secrets.token_hex(_TOKEN // 2)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise disk_error(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def clear_halves(path: Path, content: bytes) -> None:
    """Remove what a kill left beside `path` of `write_atomic(path, content)`: files of its temporary names that hold this
    content or its beginning, so that nothing is lost. Two processes that write the same at once: one of them may be refused.
    """
    name = f"{TEMPORARY}{path.name[:_LONGEST_NAME]}."
    try:
        found = [one for one in path.parent.iterdir() if one.name.startswith(name) and len(one.name) == len(name) + _TOKEN]
        for half in found:
            if half.is_file() and not half.is_symlink() and content.startswith(half.read_bytes()):
                half.unlink()
    except OSError:  # no such folder, or not to be read: writing says so
        return


def require_file(path: Path) -> None:
    """Raise BadRun where `path` is there and neither a file nor a link: a folder, a device, a pipe, a socket."""
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError):  # nothing is there, or nothing can be: writing says so
        return
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise BadRun(f"{path} is a folder, a device or a pipe, and not a file. Name a file.")


def make_draft(parent: Path) -> Path:
    """A new folder in `parent`, under the umask, for what is renamed into place once it is whole."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        draft = parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        draft.mkdir()
    except OSError as error:
        raise disk_error(parent, error) from error
    return draft


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


def disk_error(path: Path, error: OSError) -> BadRun:
    """What is said of a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BadRun(
            f"No room on disk while writing {path}. Nothing half-written was left; free some space or give another folder "
            "with --out, then give the same command again: finished stages are kept."
        )
    return BadRun(f"Cannot write {path}: {error.strerror or error}. Give a folder that you may write to with --out.")


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's length and content; above 256 MB, of its length and 256 MB spread evenly over it."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as opened:
        if size <= _SAMPLED_ABOVE:
            while block := opened.read(_BLOCK):
                digest.update(block)
        else:
            for sample in range(_SAMPLES):
                opened.seek((size - _BLOCK) * sample // (_SAMPLES - 1))
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()


def content_digest(content: bytes) -> str:
    """`file_digest` of a file with this content of at most 256 MB."""
    return hashlib.sha256(f"{len(content)}\n".encode() + content).hexdigest()
