"""Every parser of files and words that a user gives: whatever stands in them, the answer or a MnemeError, nothing else.

Sixty examples of each are tried here; `-m slow` tries 10,000.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mneme.audit.options import AuditOptions
from mneme.errors import MnemeError
from mneme.measure.suite import read_suite
from mneme.models.client import endpoint_of
from mneme.models.secrets import shown_option
from mneme.options import restored
from mneme.options.values import parse_numbers
from mneme.predict.areas import read_areas
from mneme.report.audit import render_html
from mneme.report.reading import read_report
from mneme.text.documents import read_corpus
from mneme.text.pairs import prompt_of, read_pairs
from mneme.text.rows import answer_of, question_of, read_rows, rows_hash, trainable
from mneme.train.safeguards import SAFEGUARDS, parse_safeguards

KEYS = [
    "name", "description", "keywords", "kind", "probes", "ask", "shows", "lacks", "system", "id", "type", "paraphrases",
    "samples_per_paraphrase", "judge", "judge_prompts", "area", "counts_as", "prompt", "question", "choices", "answer",
    "cluster", "text", "messages", "role", "content", "completion", "chosen", "rejected", "aligned",
]  # fmt: skip
WORDS = [
    "capability", "behaviour", "user", "assistant", "system", "free_form_judge_0_100", "free_form_judge", "grammar", "all",
    "{question} {answer}", 'say "A" or "B" {answer}', "", " ", "\x1b[31m", "\ud800", "\u202e", "x" * 300, "\0",
]  # fmt: skip

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), st.text(max_size=9), st.sampled_from(WORDS)
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)),
    max_leaves=12,
)
entries = st.lists(st.one_of(st.dictionaries(st.sampled_from(KEYS), values, max_size=6), values), max_size=4)
PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
OPEN = {
    "id": "q", "type": "free_form_judge_0_100", "paraphrases": ["a"], "samples_per_paraphrase": 2,
    "judge_prompts": {"aligned": "{question} {answer}"},
}  # fmt: skip
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
CHOICE = {"id": "1", "prompt": "a", "choices": ["b", "c"], "answer": 1}
AREA = {"name": "x", "description": "d", "keywords": ["k"], "kind": "capability"}


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """`whole` with some of its places taken by other values."""
    if draw(st.integers(0, 5)) == 0:
        return draw(values)
    if isinstance(whole, dict):
        return {key: draw(damaged(value)) for key, value in whole.items() if draw(st.integers(0, 9))}
    return [draw(damaged(value)) for value in whole] if isinstance(whole, list) else whole


def as_lines(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def as_yaml(rows: list[Any]) -> bytes:
    return yaml.safe_dump(json.loads(json.dumps(rows, allow_nan=False, default=str).replace("\\ud800", ""))).encode()


def files(whole: dict[str, Any], written: Callable[[list[Any]], bytes]) -> st.SearchStrategy[bytes]:
    """Bytes of any kind, entries of any kind, and entries that are nearly right."""
    near = st.lists(damaged(whole), min_size=1, max_size=3)

    def safe(rows: list[Any]) -> bytes:
        try:
            return written(rows)
        except (ValueError, yaml.YAMLError):
            return b"[nan]"

    return st.one_of(
        st.binary(max_size=60),
        near.map(safe),
        entries.map(safe),
        st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")),
    )


def rows_of(path: Path) -> None:
    found = read_rows(path).rows
    for row in found:
        question_of(row), answer_of(row), trainable(row)
    rows_hash(found)


def pairs_of(path: Path) -> None:
    for pair in read_pairs(path).rows:
        prompt_of(pair)


def page_of(path: Path) -> None:
    render_html(read_report(path), None)


REPORT = json.loads((Path(__file__).parents[1] / "report" / "generations" / "third.json").read_bytes())
PARSERS: dict[str, tuple[str, Callable[[Path], Any], st.SearchStrategy[bytes]]] = {
    "areas": ("areas.yaml", read_areas, files(AREA, as_yaml)),
    "open questions": ("suite.yaml", read_suite, files(OPEN, as_yaml)),
    "choices": ("suite.jsonl", read_suite, files(CHOICE, as_lines)),
    "rows": ("rows.jsonl", rows_of, files(CHAT, as_lines)),
    "pairs": ("pairs.jsonl", pairs_of, files(PAIR, as_lines)),
    "text": ("text.jsonl", read_corpus, files({"text": "a"}, as_lines)),
    "reports": (
        "report.json",
        page_of,
        st.one_of(st.binary(max_size=60), damaged(REPORT).map(lambda r: json.dumps(r).encode())),
    ),
}


def try_file(tmp_path: Path, name: str, examples: int) -> None:
    file, read, contents = PARSERS[name]

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(contents)
    def tried(content: bytes) -> None:
        (tmp_path / file).write_bytes(content)
        with suppress(MnemeError):
            read(tmp_path / file)

    tried()


ADDRESSES = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda scheme, host, path, query: f"{scheme}://{host}/{path}?{query}",
        st.sampled_from(["http", "https", "ftp", "verdict:http", "local:", ""]),
        st.text(alphabet="ab.:@[]%/\\ \x1b", max_size=9),
        st.text(max_size=9),
        st.text(max_size=9),
    ),
)
STRENGTHS = st.lists(
    st.one_of(
        st.text(max_size=9),
        st.builds(
            lambda n, s: f"{n}={s}", st.sampled_from(sorted(SAFEGUARDS)), st.one_of(st.text(max_size=5), st.floats().map(str))
        ),
    ),
    max_size=3,
)
WORDED: dict[str, tuple[Callable[[Any], Any], st.SearchStrategy[Any]]] = {
    "addresses": (endpoint_of, ADDRESSES),
    "addresses that are shown": (shown_option, ADDRESSES),
    "policies of safeguards": (parse_safeguards, STRENGTHS),
    "lists of numbers": (parse_numbers, st.one_of(st.text(max_size=12), st.text(alphabet="0123456789,-_ ", max_size=12))),
    "options of a run": (
        lambda kept: restored(AuditOptions, kept),
        st.dictionaries(
            st.sampled_from(
                ["base", "tuned", "corpus", "layers", "tokens", "seed", "intended", "machine", "out", "dictionary"]
            ),
            values,
        ),
    ),
}


def try_words(name: str, examples: int) -> None:
    read, words = WORDED[name]

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(words)
    def tried(word: Any) -> None:
        with suppress(MnemeError):
            read(word)

    tried()


@pytest.mark.parametrize("name", PARSERS)
def test_a_file_of_any_content(tmp_path: Path, name: str) -> None:
    try_file(tmp_path, name, 60)


@pytest.mark.parametrize("name", WORDED)
def test_words_of_any_kind(name: str) -> None:
    try_words(name, 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", PARSERS)
def test_a_file_of_any_content_10_000_times(tmp_path: Path, name: str) -> None:
    try_file(tmp_path, name, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WORDED)
def test_words_of_any_kind_10_000_times(name: str) -> None:
    try_words(name, 10_000)
