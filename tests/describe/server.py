"""A chat endpoint on this machine, in a thread, whose answers a test decides."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], str]
"""The data sent along with the question -> what the model says."""


@dataclass
class Server:
    """What was asked, and how the server behaves."""

    answer: Answer
    status: int = 200
    location: str = ""
    body: bytes | None = None
    """Sent as it is in place of a chat completion."""
    failures: int = 0
    """So many requests get status 503 first."""
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The data of each request."""
    models: list[str] = field(default_factory=list)
    """The model that each request named."""
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    patience: threading.Event = field(default_factory=threading.Event)
    slow: bool = False
    dripping: bool = False

    def data(self, kind: str) -> list[dict[str, Any]]:
        """The data of every request of a kind: "passages" (which fit?) or "active passages" (what have they in common?)."""
        return [data for data in self.asked if kind in data]


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "first-model"}, {"id": "second-model"}]}).encode())

    def do_POST(self) -> None:
        state: Server = self.server.state
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        data = json.loads(request["messages"][1]["content"].partition("\n")[2])
        state.asked.append(data)
        state.models.append(request["model"])
        reply = state.answer(data) if state.body is None else ""
        self._send(json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}).encode())

    def _send(self, body: bytes) -> None:
        state: Server = self.server.state
        state.keys.append(self.headers.get("Authorization"))
        state.paths.append(self.path)
        if state.slow:
            state.patience.wait(20)
            self.close_connection = True
            return
        state.failures -= 1
        self.send_response(503 if state.failures >= 0 else state.status)
        if state.location:
            self.send_header("Location", state.location)
        body = body if state.body is None else state.body
        self.send_header("Content-Length", str(10**6 if state.dripping else len(body)))
        self.end_headers()
        while state.dripping and not state.patience.wait(0.02):
            try:
                self.wfile.write(b" ")
            except OSError:
                return
        self.wfile.write(body)


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """A running server at `server.url`."""
    state = Server(answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        state.patience.set()
        server.shutdown()
        thread.join()
        server.server_close()
