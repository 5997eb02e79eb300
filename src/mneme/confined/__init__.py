"""Patterns and templates of strangers, tried and rendered in a process of their own under a limit of time and memory.

One small process (no torch; about 0.2 s to start, meanwhile this one goes on) serves all requests. A request that takes too
long or too much memory ends that process and raises `Exceeded`; Ctrl-C ends it at any time. POSIX.
"""

import json
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock
from typing import Any

from mneme.confined import child

_STARTS_WITHIN = 60.0
"""Seconds until the process has to be there: a busy machine with a cold disk."""
_ANSWERS_WITHIN = 30.0
"""Seconds on the clock for one request. What decides is its CPU time (2 s); this is for a machine that gives it none."""


class Exceeded(Exception):
    """A request that needed more time or memory than it may have. The text says which, as the rest of "it …"."""


class Refused(Exception):
    """A request that failed in the confined process: a template that refuses a conversation, a pattern that is none."""


class _Process:
    """The confined process, started on first use and again after it was ended."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._owner = 0

    def start(self) -> None:
        """Starts the process without waiting for it."""
        with self._lock:
            self._start()

    def ask(self, request: dict[str, Any]) -> Any:
        """The value that comes back. Raises Exceeded or Refused."""
        body = json.dumps(request, default=lambda value: f"<{type(value).__name__}>").encode()
        with self._lock:
            self._start()
            try:
                if not self._ready:
                    self._read(_STARTS_WITHIN)
                    self._ready = True
                answer = self._exchange(body)
            except BaseException:
                self._end()
                raise
            if "exceeded" in answer:
                self._end()
                raise Exceeded(answer["exceeded"])
            if "ended" in answer:
                self._end()
                raise Refused(answer["ended"])
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["value"]

    def _start(self) -> None:
        if self._child is not None and self._owner == os.getpid():
            return
        here = os.getcwd()
        paths = [path for path in sys.path if os.path.isabs(path) and path != here]
        self._child = subprocess.Popen(
            [sys.executable, "-I", str(Path(child.__file__)), json.dumps(paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"},
            cwd="/",
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the other
            bufsize=0,
        )
        self._ready, self._owner = False, os.getpid()

    def _exchange(self, body: bytes) -> dict[str, Any]:
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            self._write(struct.pack("<Q", len(body)) + body)
            return self._read(_ANSWERS_WITHIN)
        except (BrokenPipeError, EOFError) as error:
            raise Exceeded(f"it does not end within {child.SECONDS} seconds") from error

    def _write(self, data: bytes) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self._child.stdin.write(rest) :]

    def _read(self, seconds: float) -> dict[str, Any]:
        ends = time.monotonic() + seconds
        size = struct.unpack("<Q", self._bytes(8, ends))[0]
        if size > 8 * child.LONGEST:
            raise EOFError
        found: dict[str, Any] = json.loads(self._bytes(size, ends))
        return found

    def _bytes(self, count: int, ends: float) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        found = bytearray()
        while len(found) < count:
            there, _, _ = select.select([self._child.stdout], [], [], max(ends - time.monotonic(), 0))
            piece = self._child.stdout.read(min(count - len(found), 2**20)) if there else b""
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()

    def __del__(self) -> None:
        self._end()


_process = _Process()


def start_confined() -> None:
    """Starts the confined process, so that it is there when it is asked."""
    _process.start()


def confined(task: str, **arguments: Any) -> Any:
    """What the task of that name (`child.TASKS`) gives for JSON-like arguments. Raises Exceeded or Refused."""
    return _process.ask({"task": task, **arguments})
