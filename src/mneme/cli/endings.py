"""What a command that failed says and ends with: the sentence and exit code of an error, and the account of a fault."""

import errno
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from mneme.errors import MnemeError, one_line
from mneme.models.secrets import secrets_in, shown_address, without

DONE, REFUSED, UNUSABLE, NOT_ENOUGH, FAULT, STOPPED = 0, 1, 2, 3, 70, 130
"""Exit codes: done; the gate said no; an input or option cannot be used; not enough evidence for the gate; a fault of mneme
itself (EX_SOFTWARE of sysexits.h); stopped by Ctrl-C (128 + SIGINT, as shells have it)."""
ACCOUNT = "fault.txt"
"""In a run folder: the traceback of a fault."""

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>`]+")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_WORDS = (
    "no space left on device",
    "disk quota exceeded",
    "file too large",
    "os error 28",
    "os error 122",
    "os error 27",
)
"""How libraries that write by themselves (safetensors, torch, tokenizers) repeat the reasons of the operating system."""
_MEMORY_WORDS = ("can't allocate memory", "out of memory", "cannot allocate memory", "bad_alloc")
"""How torch says that there is no memory: a RuntimeError, on GPUs OutOfMemoryError."""


def sentence_of(error: BaseException) -> str | None:
    """What to say of an error that is no fault of mneme: one of its own, no memory, no room, a file that the system refuses,
    an input without end. None for a fault."""
    if isinstance(error, MnemeError):
        return str(error)
    chain = list(_causes(error))
    told = [str(one).lower() for one in chain]
    if any(isinstance(one, MemoryError) for one in chain) or any(word in text for text in told for word in _MEMORY_WORDS):
        return "there is not enough memory for this. Give a smaller model or less text, or use a larger machine."
    if isinstance(error, RecursionError):
        return "an input is nested too deeply to be read. Give a flatter file."
    if any(isinstance(one, OSError) and one.errno in _FULL for one in chain) or any(
        word in text for text in told for word in _FULL_WORDS
    ):
        return (
            "no room on disk, or stdout takes nothing more. Free some space, then give the same command again: finished "
            "stages are kept."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or one_line(error)}. Give a path that can be read, or with --out written."
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # type: ignore[assignment]


def account_of(error: BaseException) -> str:
    """The traceback, without values of variables; keys, names and passwords in addresses are left out wherever they stand."""
    typed = [found for word in sys.argv for found in _ADDRESS.findall(word)]
    hidden = tuple(secret for address in typed for secret in [*secrets_in(address), *_queries(address)])
    text = "".join(traceback.format_exception(error))
    return without(_ADDRESS.sub(lambda found: _shown(found[0]), text), hidden)


def _queries(address: str) -> list[str]:
    """Values in the query of an address, and what stands before its host."""
    query = address.partition("?")[2].partition("#")[0]
    before = address.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return [part.partition("=")[2] or part for part in query.split("&") if part and not part.startswith("model=")] + [
        part for part in before.split(":") if part
    ]


def _shown(address: str) -> str:
    try:
        return shown_address(address)
    except ValueError:  # no address after all
        return "[address]"


def keep_account(error: BaseException) -> Path:
    """The file that gets the account: in the run folder that was open, else one of this user alone among temporary files."""
    from mneme.runs import add_file, folder_noted

    account = account_of(error)
    folder = folder_noted(error)
    if folder is not None:
        try:
            return add_file(folder, ACCOUNT, account.encode("utf-8", "backslashreplace"))
        except (MnemeError, OSError):
            pass  # the folder may be what failed
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", errors="backslashreplace", prefix="mneme-fault-", suffix=".txt", delete=False
    ) as file:
        file.write(account)
    return Path(file.name)
