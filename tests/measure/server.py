"""A judge's endpoint on this machine: answers with first-token probabilities, or with text, as a test decides."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Says = Callable[[str], dict[str, float] | str | bytes | None]
"""The prompt -> probabilities of first tokens, or a text, or None for a reply without logprobs; bytes: the whole reply."""


@contextmanager
def judging(says: Says) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address with a model, requests so far) of a running server."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(request)
            said = says(request["messages"][-1]["content"])
            choice: dict[str, Any] = {"message": {"role": "assistant", "content": said if isinstance(said, str) else "0"}}
            if isinstance(said, dict):
                tops = [{"token": token, "logprob": math.log(p)} for token, p in said.items()]
                choice["logprobs"] = {"content": [{"token": tops[0]["token"], "top_logprobs": tops}]}
            body = said if isinstance(said, bytes) else json.dumps({"choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1?model=judge", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
