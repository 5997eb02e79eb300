"""A chat client, without a dependency, for OpenAI-compatible endpoints (vLLM, llama.cpp, `transformers serve`, hosted ones).

What goes over the wire is text of the corpus, so it goes only where the user said: http and https, no redirect is followed.
The API key is read from the environment when a request is made; neither it nor a key in the address is in a message or a file,
also where a server sends it back. The protocol is that of OpenAI's chat completions as servers implement it in 2026; no paper.
"""

import http.client
import json
import math
import os
import time
from typing import Any, NamedTuple
from urllib import error, parse, request

from mneme.errors import BadOption, EndpointFailed
from mneme.models.secrets import secrets_in, shown_address, shown_value, without

KEY_VARIABLE = "MNEME_API_KEY"
_RETRIES = 2
_WORTH_RETRYING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_MAX_REPLY_BYTES = 1_000_000
_MAX_REPLY_TOKENS = 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_EXPECTED = "an address such as http://127.0.0.1:8000/v1?model=NAME."
_TOP_TOKENS = 20
_ROUNDING = 1e-3
"""By so much probabilities may exceed 1: servers round, and some compute in bfloat16."""
_LEAST_LOGPROB = -1e5
"""Nats. Servers write a stand-in for minus infinity, such as -9999; what is below this is no log-probability."""
_HINT = "Check the address, the model's name and the key, then give the same command again: finished work is kept."


class Endpoint(NamedTuple):
    """Where to ask, and for how long to wait. The address may hold a key: what is shown or stored is `name`."""

    url: str
    """Address up to and without `/chat/completions`; no credentials, no query."""
    model: str = ""
    """Empty = not named; `with_model` takes the first that the endpoint offers."""
    timeout_seconds: float = 60.0
    """For a whole reply, each time it is tried."""
    pause_seconds: float = 0.5
    """Before the first retry; twice as long before the second."""
    option: str = "--describe"
    """What the user wrote the address after; messages name it."""

    @property
    def name(self) -> str:
        """The address with its model, as it may be shown and stored: parts of the path that may be keys are `[…]`."""
        shown = shown_address(self.url)
        return f"{shown}?model={parse.quote(self.model, safe='')}" if self.model else shown

    def __repr__(self) -> str:
        """Shown in tracebacks, so without a key."""
        return f"Endpoint({self.name!r}, option={self.option!r})"


def endpoint_of(describe: str, option: str = "--describe") -> Endpoint | None:
    """The endpoint that the value of `option` names; None for `offline`.

    Errors: BadOption for anything else: no http(s) address, credentials in it, or a query other than `?model=NAME`.
    """
    if describe == "offline":
        return None
    try:
        split = parse.urlsplit(describe)
        host, _ = split.hostname, split.port  # reading the port checks it
    except ValueError:
        raise BadOption(f"{option} holds no valid address. Expected {_expected(option)}") from None
    if split.username is not None or split.password is not None:
        raise BadOption(
            f"{option} holds a user name or password for {host}, which would be written into the run folder. Leave it out "
            f"and give the key in the environment variable {KEY_VARIABLE}."
        )
    if split.scheme not in ("http", "https") or not host or split.fragment or not _plain(describe):
        other = "neither `offline` nor an" if option == "--describe" else "no"
        raise BadOption(f"{option} '{shown_value(describe)}' is {other} http(s) address. Expected {_expected(option)}")
    query = parse.parse_qsl(split.query, keep_blank_values=True)
    if [name for name, _ in query] not in ([], ["model"]):
        raise BadOption(
            f"{option} {short_text(shown_address(describe), 80)} has a query other than ?model=NAME. Give a key in the "
            f"environment variable {KEY_VARIABLE}. Expected {_expected(option)}"
        )
    return Endpoint(f"{split.scheme}://{split.netloc}{split.path.rstrip('/')}", query[0][1] if query else "", option=option)


def _expected(option: str) -> str:
    return f"`offline` or {_EXPECTED}" if option == "--describe" else _EXPECTED


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def short_text(text: str, limit: int) -> str:
    """`text` on one line, without control characters, at most `limit` characters: fit to stand in a message."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def with_model(endpoint: Endpoint) -> Endpoint:
    """The endpoint with a model: the one that was named, else the first of its `/models`.

    Errors: EndpointFailed when it does not answer or offers none.
    """
    if endpoint.model:
        return endpoint
    hint = "Name the model with ?model=NAME at the end of the address."
    match _send(endpoint, "/models", None, hint):
        case {"data": [{"id": str(name)}, *_]} if name and name.isprintable() and len(name) <= 200:
            return endpoint._replace(model=name)
        case other:
            raise nonsense(endpoint, "a list of models", json.dumps(other), hint)


def complete(endpoint: Endpoint, system: str, user: str, max_tokens: int = _MAX_REPLY_TOKENS) -> str:
    """What the model says to `user` (temperature 0), without the thinking that some models write first; "" = nothing.

    Errors: EndpointFailed when it is down, refuses, or its reply is no chat completion.
    """
    messages = [{"role": "system", "content": system}] if system else []
    body = {
        "model": endpoint.model,
        "messages": [*messages, {"role": "user", "content": user}],
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": False,
    }
    match _send(endpoint, "/chat/completions", body, _HINT):
        case {"choices": [{"message": {"content": str(content)}}, *_]}:
            return content.rpartition("</think>")[2].strip()
        case {"choices": [{"message": {"content": None}}, *_]}:
            return ""
        case other:
            raise nonsense(endpoint, "a chat completion", json.dumps(other), _HINT)


def first_token(endpoint: Endpoint, user: str) -> dict[str, float] | None:
    """Probability of each of the 20 likeliest first tokens of the reply; None where the endpoint gives no probabilities.

    Some servers accept the option and ignore it, with status 200. Errors: EndpointFailed as for `complete`.
    """
    body = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": user}],
        "temperature": 0,
        "seed": 0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": _TOP_TOKENS,
        "stream": False,
    }
    match _send(endpoint, "/chat/completions", body, _HINT):
        case {"choices": [{"logprobs": {"content": [{"top_logprobs": list(tops)}, *_]}}, *_]} if tops:
            found: dict[str, float] = {}
            for top in tops:
                match top:
                    case {"token": str(token), "logprob": logprob} if _is_logprob(logprob):
                        found[token] = found.get(token, 0.0) + math.exp(min(logprob, 0.0))
                    case other:
                        raise nonsense(endpoint, "a token with its logprob, from 0 down", json.dumps(other), _HINT)
            _require_probabilities(endpoint, [top["token"] for top in tops], found)
            return found
        case {"choices": [_, *_]}:
            return None
        case other:
            raise nonsense(endpoint, "a chat completion", json.dumps(other), _HINT)


def _is_logprob(value: object) -> bool:
    """A number from 0 down, no boolean, nothing that only Python's JSON knows (NaN, Infinity)."""
    return type(value) in (int, float) and _LEAST_LOGPROB <= value <= math.log1p(_ROUNDING)  # type: ignore[operator]


def _require_probabilities(endpoint: Endpoint, tokens: list[str], found: dict[str, float]) -> None:
    """Raise EndpointFailed where a token is named twice (pieces of letters aside, which all read U+FFFD), or all exceed 1."""
    twice = [token for token in found if tokens.count(token) > 1 and "\ufffd" not in token]
    if twice:
        raise nonsense(endpoint, "every token once", f"{short_text(twice[0], 40)} twice", _HINT)
    if (total := sum(found.values())) > 1 + _ROUNDING:
        raise nonsense(endpoint, "probabilities of one token", f"a sum of {total:.3g}", _HINT)


def nonsense(endpoint: Endpoint, expected: str, got: str, hint: str) -> EndpointFailed:
    """The error for a reply that is not what was asked for."""
    return EndpointFailed(
        f"The endpoint {endpoint.name} answers nonsense: expected {expected}, got '{short_text(got, 160)}'. {hint}"
    )


def _key() -> str:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not _plain(key):
        raise BadOption(f"The environment variable {KEY_VARIABLE} holds what no key can hold. Set it again, or unset it.")
    return key


def _send(endpoint: Endpoint, path: str, body: dict[str, Any] | None, hint: str) -> Any:
    """The JSON that comes back; passing trouble is waited out twice."""
    key, problem = _key(), ""
    secrets = (key, *secrets_in(endpoint.url))
    for attempt in range(_RETRIES + 1):
        if attempt:
            time.sleep(endpoint.pause_seconds * 2 ** (attempt - 1))
        try:
            status, reply = _exchange(endpoint, path, body, key)
        except (OSError, UnicodeError, http.client.HTTPException) as trouble:
            problem = without(_trouble(endpoint, trouble), secrets)
            continue
        if 200 <= status < 300:
            return _decoded(endpoint, reply, secrets, hint)
        reply = without(reply, secrets)
        problem = f"answered with status {status}: '{short_text(reply, 160)}'"
        if 300 <= status < 400:
            problem += "; a redirect is not followed, because the text and the key would go somewhere else"
        if status not in _WORTH_RETRYING:
            break
    raise EndpointFailed(f"The endpoint {endpoint.name} {problem}. {hint}{_instead(endpoint)}")


def _instead(endpoint: Endpoint) -> str:
    return " Or use --describe offline." if endpoint.option == "--describe" else ""


def _trouble(endpoint: Endpoint, trouble: Exception) -> str:
    reason = trouble.reason if isinstance(trouble, error.URLError) else trouble
    if isinstance(reason, TimeoutError):
        return f"gave no whole reply within {endpoint.timeout_seconds:g} s"
    return f"cannot be reached ({short_text(str(reason) or type(reason).__name__, 160)})"


def _decoded(endpoint: Endpoint, reply: str, secrets: tuple[str, ...], hint: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)  # NaN and Infinity are Python's, not JSON's

    try:
        return _cleaned(json.loads(reply, parse_constant=refuse), secrets)
    except (ValueError, RecursionError):
        raise nonsense(endpoint, "JSON", without(reply, secrets), hint) from None


def _cleaned(reply: Any, secrets: tuple[str, ...]) -> Any:
    """The reply without what it repeats of `secrets`, in its strings and names; other values as they are."""
    if isinstance(reply, str):
        return without(reply, secrets)
    if isinstance(reply, list):
        return [_cleaned(item, secrets) for item in reply]
    if isinstance(reply, dict):
        return {without(name, secrets): _cleaned(item, secrets) for name, item in reply.items()}
    return reply


def _exchange(endpoint: Endpoint, path: str, body: dict[str, Any] | None, key: str) -> tuple[int, str]:
    """Status and text of one request. Errors: OSError, UnicodeError (host name) and HTTPException as they come."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    asked = request.Request(endpoint.url + path, data=data, headers=headers)
    deadline = time.monotonic() + endpoint.timeout_seconds
    try:
        with _opener(endpoint).open(asked, timeout=endpoint.timeout_seconds) as response:
            return response.status, _read(response, deadline)
    except error.HTTPError as refusal:
        with refusal:
            return refusal.code, _read(refusal, deadline)


def _opener(endpoint: Endpoint) -> request.OpenerDirector:
    """Opens http and https and nothing else; without the handler of redirects a redirect is an answer like any other."""
    opener = request.OpenerDirector()
    own = parse.urlsplit(endpoint.url).hostname in _LOOPBACK
    for handler in (
        request.ProxyHandler({} if own else None),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: Any, deadline: float) -> str:
    """The body: the time limit holds for all of it, so that a server which drips cannot hold the run; longer ones are cut."""
    pieces, size = [], 0
    while size <= _MAX_REPLY_BYTES and (piece := response.read1(65_536)):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(pieces).decode("utf-8", errors="replace")
