"""Which files of a folder mneme wrote, sealed so that no other user can forge it; only those are removed or trusted.

A ledger lists files with their digests and carries a seal: HMAC-SHA-256 (RFC 2104) under 32 random bytes that lie in the
user's cache and never in a run folder. A folder that was made elsewhere, copied from a stranger or edited has no valid seal
or other digests; nothing in it is then removed, overwritten or taken for computed.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mneme.errors import BadRun
from mneme.runs.writing import TEMPORARY, file_digest, write_atomic

LEDGER = ".mneme-run.json"
LOCK = ".mneme-lock"
_SCHEMA = "mneme.ledger/1"
_SECRET_BYTES = 32
_LARGEST = 16 * 2**20
"""A ledger of more bytes is not ours: one line a file, and no run writes a hundred thousand."""


@dataclass(frozen=True)
class Ledger:
    """The files of one folder that mneme wrote: name below the folder -> digests, of which one is that of the file.

    There are two digests while a file is being replaced: a kill leaves the one or the other.
    """

    key: str
    command: str
    finished: bool = False
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def cache_folder() -> Path:
    """Where mneme keeps what is its own: $MNEME_CACHE, or ~/.cache/mneme."""
    return Path(os.environ.get("MNEME_CACHE") or Path.home() / ".cache" / "mneme")


def own_secret() -> bytes:
    """The 32 bytes under which this user's files are sealed; made on first use, readable by the user alone.

    Errors: BadRun where the cache cannot be written.
    """
    path = cache_folder() / "seal"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            if path.is_file() and len(found := path.read_bytes()) == _SECRET_BYTES:
                return found
            draft = path.parent / f".seal-{secrets.token_hex(8)}"
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_SECRET_BYTES))
            try:
                os.link(draft, path)  # fails where another process was first: then its secret is the one
            except FileExistsError:
                pass
            finally:
                draft.unlink()
    except OSError as error:
        raise BadRun(
            f"Cannot keep the seal by which mneme knows its own files in {path} ({error.strerror or error}). Set MNEME_CACHE "
            "to a folder that you may write to."
        ) from error
    raise BadRun(f"{path} is not the seal that mneme keeps there (32 bytes). Remove it: runs made before start afresh.")


def seal(secret: bytes, *parts: str) -> str:
    """The seal of these words under `secret`, hex."""
    return hmac.new(secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()


def read_small(path: Path) -> Any:
    """The JSON of one of mneme's small files; None where there is none that could be ours (a link, too large, no JSON)."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_ledger(folder: Path, secret: bytes) -> Ledger | None:
    """The ledger of `folder`; None where there is none, or none that was sealed with `secret`."""
    return _sealed_ledger(folder / LEDGER, secret)


def half_ledgers(folder: Path, secret: bytes) -> list[Path]:
    """Temporary files that a kill left while the ledger of `folder` was written: empty, or sealed with `secret`."""
    found = [path for path in folder.glob(f"{TEMPORARY}{LEDGER}.*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if path.stat().st_size == 0 or _sealed_ledger(path, secret) is not None]


def _sealed_ledger(path: Path, secret: bytes) -> Ledger | None:
    match read_small(path):
        case {"ledger": str(body), "seal": str(told)} if hmac.compare_digest(told.encode(), seal(secret, body).encode()):
            content = json.loads(body)
            files = {name: tuple(digests) for name, digests in content["files"].items()}
            return Ledger(content["key"], content["command"], content["finished"], files)
        case _:
            return None


def write_ledger(folder: Path, ledger: Ledger, secret: bytes, drafts: Path | None = None) -> None:
    """Write and seal the ledger of `folder`."""
    content = {"schema": _SCHEMA, "key": ledger.key, "command": ledger.command, "finished": ledger.finished}
    body = json.dumps({**content, "files": {name: list(found) for name, found in sorted(ledger.files.items())}})
    sealed = {"ledger": body, "seal": seal(secret, body)}
    write_atomic(folder / LEDGER, (json.dumps(sealed, indent=2) + "\n").encode(), drafts=drafts)


def is_own(folder: Path, name: str, ledger: Ledger) -> bool:
    """True where the file `name` below `folder` is one that `ledger` lists, unchanged, and no link leads there."""
    digests = ledger.files.get(name)
    if not digests or not _is_plain(folder, name):
        return False
    try:
        return file_digest(folder / name) in digests
    except OSError:
        return False


def _is_plain(folder: Path, name: str) -> bool:
    """True for a regular file reached without a link and without leaving `folder`."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute():
        return False
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            return False
    return path.is_file()


def foreign(folder: Path, ledger: Ledger | None, secret: bytes) -> list[str]:
    """Names of the files and links below `folder` that mneme cannot prove to be its own, in order.

    Not among them: the stages of the ledger's own run, and folders below that have a ledger of their own (runs inside a run).
    """
    halves = {path.name for path in half_ledgers(folder, secret)}
    return sorted(name for name in _foreign(folder, folder, ledger, secret) if name not in halves)


def _foreign(root: Path, folder: Path, ledger: Ledger | None, secret: bytes) -> Iterator[str]:
    for path in folder.iterdir():
        name = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            yield name
        elif path.is_dir():
            working = ledger is not None and name == stages_name(ledger.key)
            if not working and read_ledger(path, secret) is None:
                yield from _foreign(root, path, ledger, secret)
        elif name == LOCK:
            if path.stat().st_size > 0:
                yield name
        elif name == LEDGER:
            if ledger is None:
                yield name
        elif ledger is None or not is_own(root, name, ledger):
            yield name


def stages_name(key: str) -> str:
    """The folder in which the run of that key keeps its stages."""
    return f"stages-{key}"


def remove_own(folder: Path, ledger: Ledger, names: list[str] | None = None) -> None:
    """Remove the files that `ledger` lists (or those of them in `names`) where they are unchanged, and folders that are empty
    then. Files that were changed, links and everything else stay."""
    for name in ledger.files if names is None else names:
        if is_own(folder, name, ledger):
            (folder / name).unlink()
            for parent in PurePosixPath(name).parents:
                if parent.parts and not any((folder / parent).iterdir()):
                    (folder / parent).rmdir()
