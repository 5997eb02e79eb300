"""Every parser of files and words that a user gives: whatever stands in them, the answer or a MnemeError, nothing else.

Sixty examples of each are tried here; `-m slow` tries 10,000.
"""

import datetime
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mneme.audit.options import AuditOptions
from mneme.audit.stored import evidence_bytes, evidence_from
from mneme.card.run import Card, mended_card
from mneme.compare_logs.reading import Fields, read_log
from mneme.errors import MnemeError
from mneme.gate.policy import policy_of, read_policy
from mneme.measure.suite import read_suite
from mneme.models.client import endpoint_of
from mneme.models.secrets import shown_option
from mneme.options import restored
from mneme.options.values import parse_numbers
from mneme.predict.areas import read_areas
from mneme.report.audit import render_html
from mneme.report.reading import read_report
from mneme.runs.manifest import Manifest, read_manifest
from mneme.text.documents import read_corpus
from mneme.text.pairs import prompt_of, read_pairs
from mneme.text.rows import answer_of, question_of, read_rows, rows_hash, trainable
from mneme.train.safeguards import SAFEGUARDS, parse_safeguards
from tests.audit.test_stored import sample_evidence

KEYS = [
    "name", "description", "keywords", "kind", "probes", "ask", "shows", "lacks", "system", "id", "type", "paraphrases",
    "samples_per_paraphrase", "judge", "judge_prompts", "area", "counts_as", "prompt", "question", "choices", "answer",
    "cluster", "text", "messages", "role", "content", "completion", "chosen", "rejected", "aligned",
    "rules", "waivers", "everything", "not_worse_than", "probability", "verdict", "power", "until", "reason", "baseline",
    "doc_id", "doc", "metrics", "acc", "arguments", "filtered_resps", "scores", "samples", "eval", "task", "value", "metadata",
    "tags", "model-index", "results", "dataset", "base_model",
]  # fmt: skip
WORDS = [
    "capability", "behaviour", "user", "assistant", "system", "free_form_judge_0_100", "free_form_judge", "grammar", "all",
    "{question} {answer}", 'say "A" or "B" {answer}', "2027-13-45", "2027-03-31", "affected", "C", 10**400,
    "", " ", "\x1b[31m", "\ud800", "\u202e", "x" * 300, "\0",
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
POLICY = {
    "not_worse_than": 5,
    "rules": [{"area": "law", "size": 2}, {"everything": True, "probability": 0.5, "verdict": ["affected"]}],
    "waivers": [{"area": "law", "until": datetime.date(2027, 3, 31), "reason": "r"}], "baseline": "x",
}  # fmt: skip
SAMPLE = {
    "doc_id": 1, "doc_hash": "a", "doc": {"question": "q", "cluster": "c"}, "metrics": ["acc"], "acc": 1.0, "target": "0",
    "filter": "none", "arguments": {"gen_args_0": {"arg_0": "q", "arg_1": "a"}, "gen_args_1": {"arg_0": "q", "arg_1": "b"}},
    "filtered_resps": [[-1.0, False], [-2.0, True]],
}  # fmt: skip
ITEM = {"id": "1", "task": "t", "correct": True, "prompt": "p", "answer": "a", "scores": {"one": 1, "two": 0.5}}
INSPECT_SAMPLE = {
    "id": 1, "epoch": 1, "input": [{"role": "user", "content": "q"}], "target": "a", "metadata": {"cluster": "x"},
    "scores": {"match": {"value": "C", "answer": "a"}}, "output": {"choices": [{"message": {"content": "a"}}]},
}  # fmt: skip
INSPECT = {"eval": {"task": "t/u"}, "samples": [INSPECT_SAMPLE]}
CARD = {
    "license": "mit", "tags": ["a"], "base_model": "a/b",
    "model-index": [{"name": "m", "results": [{"task": {"type": "t"}, "dataset": {"type": "mneme-audit"}, "metrics": []}]}],
}  # fmt: skip
MANIFEST = json.loads(
    Manifest(
        mneme="1", key="k", files={"report.json": "a"}, models={"base": {"x": "b"}, "tuned": {}}, text={"texts": "c"}
    ).content()
)


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


def plain_of(found: Any) -> Any:
    """The same without what YAML cannot hold."""
    if isinstance(found, dict):
        return {plain_of(key): plain_of(value) for key, value in found.items()}
    if isinstance(found, list):
        return [plain_of(value) for value in found]
    return found.encode("utf-8", "ignore").decode() if isinstance(found, str) else found


def as_yaml(rows: Any) -> bytes:
    return yaml.safe_dump(plain_of(rows)).encode()


MARKS = [
    "- ", "{", "}", "[", "]", ": ", ", ", "&a ", "*a", "<<: ", "!!int ", "!!timestamp ", "!!set ", "!!float ", "!!binary ",
    "? ", "| ", "> ", '"', "'", "\\x", "\n", "\n  ", "2027-13-45", "1:60", "0x", "0b", "_", ".inf", "name", "rules", "area",
    "x",
]  # fmt: skip
marked = st.lists(st.sampled_from(MARKS), max_size=9).map(lambda parts: "".join(parts).encode())
"""What YAML gives a meaning to, in any order."""


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
        marked,
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


def head_of(path: Path) -> None:
    mended_card(path, Card("section", {"tags": ["mneme"], "base_model": "a/b", "model-index": CARD["model-index"]}, "<svg/>"))


def evidence_of(path: Path) -> None:
    evidence_from(path.read_bytes(), path.name)


def as_whole_yaml(rows: list[Any]) -> bytes:
    return yaml.safe_dump(plain_of(rows[0]) if rows else None).encode()


def one_of(*ways: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=60), *ways)


def as_json(whole: Any) -> st.SearchStrategy[bytes]:
    return damaged(whole).map(lambda found: json.dumps(found).encode())


def as_head(rows: list[Any]) -> bytes:
    return b"---\n" + (as_yaml(rows[0]) if rows else b"") + b"---\n\nwords\n"


with np.load(io.BytesIO(evidence_bytes(sample_evidence())), allow_pickle=False) as _stored:
    ARRAYS = {name: _stored[name] for name in _stored.files}
TOLD = json.loads(ARRAYS.pop("told").tobytes())


@st.composite
def packed(draw: st.DrawFn) -> bytes:
    """Evidence with arrays that are missing, of another shape or type, with other words beside them, or other bytes."""
    arrays = {}
    for name, array in ARRAYS.items():
        way = draw(st.integers(0, 30))
        if way == 0:
            continue
        other = array
        if way == 1:
            other = array[..., : draw(st.integers(0, 2))] if array.ndim else array[None]
        elif way == 2:
            other = array.astype(draw(st.sampled_from(["f8", "i8", "u1", "U3", "?", "c16", "M8[s]"])), casting="unsafe")
        elif way == 3:
            other = (
                np.full(array.shape, draw(st.sampled_from([-1, 0, 200]))).astype(array.dtype)
                if array.dtype.kind in "iu"
                else array[None]
            )
        arrays[name] = other
    told = draw(st.one_of(st.just(TOLD), damaged(TOLD)))
    arrays["told"] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = bytearray(buffer.getvalue())
    for at in draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[at] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.sampled_from([len(content), len(content) // 2]))])


@st.composite
def zipped(draw: st.DrawFn) -> bytes:
    """A log of Inspect as it is packed, with damage in its JSON or in its bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("header.json", json.dumps(draw(damaged({"eval": INSPECT["eval"]}))))
        file.writestr("samples/1.json", json.dumps(draw(damaged(INSPECT_SAMPLE))))
    content = bytearray(buffer.getvalue())
    for at in draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[at] = draw(st.integers(0, 255))
    return bytes(content)


def log_of(path: Path) -> None:
    read_log(path, Fields("cluster", "area"))


REPORT = json.loads((Path(__file__).parents[1] / "report" / "generations" / "third.json").read_bytes())
PARSERS: dict[str, tuple[str, Callable[[Path], Any], st.SearchStrategy[bytes]]] = {
    "areas": ("areas.yaml", read_areas, files(AREA, as_yaml)),
    "open questions": ("suite.yaml", read_suite, files(OPEN, as_yaml)),
    "choices": ("suite.jsonl", read_suite, files(CHOICE, as_lines)),
    "rows": ("rows.jsonl", rows_of, files(CHAT, as_lines)),
    "pairs": ("pairs.jsonl", pairs_of, files(PAIR, as_lines)),
    "text": ("text.jsonl", read_corpus, files({"text": "a"}, as_lines)),
    "policies": ("policy.yaml", read_policy, files(POLICY, as_whole_yaml)),
    "logs": ("log.jsonl", log_of, st.one_of(files(SAMPLE, as_lines), files(ITEM, as_lines))),
    "logs of Inspect": ("log.json", log_of, one_of(as_json(INSPECT))),
    "packed logs": ("log.eval", log_of, one_of(zipped())),
    "model cards": ("README.md", head_of, files(CARD, as_head)),
    "manifests": ("manifest.json", read_manifest, one_of(as_json(MANIFEST))),
    "evidence": ("evidence.npz", evidence_of, one_of(packed())),
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


def is_mapping(found: object) -> bool:
    """What Python's types let a policy be."""
    return isinstance(found, dict)


WORDED: dict[str, tuple[Callable[[Any], Any], st.SearchStrategy[Any]]] = {
    "addresses": (endpoint_of, ADDRESSES),
    "addresses that are shown": (shown_option, ADDRESSES),
    "policies in Python": (
        lambda found: policy_of(found, "policy="),
        damaged(POLICY).filter(lambda found: isinstance(found, dict)),
    ),
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
