"""Run folders, and every write and removal on a disk that may hold things of others (docs/decisions/0004-run-folders.md)."""

from mneme.runs.folder import Arrays, ProcessGroup, RunFolder, folder_noted, key_of
from mneme.runs.inputs import require_apart
from mneme.runs.ledger import cache_folder
from mneme.runs.outputs import add_file, add_files
from mneme.runs.reading import FinishedRun, read_finished
from mneme.runs.writing import clear_halves, disk_error, file_digest, make_draft, require_room, write_atomic

__all__ = [
    "Arrays",
    "FinishedRun",
    "ProcessGroup",
    "RunFolder",
    "add_file",
    "add_files",
    "cache_folder",
    "clear_halves",
    "disk_error",
    "file_digest",
    "folder_noted",
    "key_of",
    "make_draft",
    "read_finished",
    "require_apart",
    "require_room",
    "write_atomic",
]
