"""Reading and packing text: what comes out of good files, and what every bad one says."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mneme.errors import BadCorpus, BadOption
from mneme.text.documents import Documents, read_corpus
from mneme.text.packing import document_pieces, pack_rows
from tests.conftest import WORDS, TinyPair, word_tokenizer

MESSAGES = [{"role": "user", "content": "ba be"}, {"role": "assistant", "content": "bi"}]


def documents(*texts: str) -> Documents:
    return Documents(tuple(texts), "test", "0")


def file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_document_a_line(tmp_path: Path) -> None:
    found = read_corpus(file(tmp_path, "a.txt", "ba be\n bi \nbo\n"))
    assert found.texts == ("ba be", "bi", "bo")
    assert found.sha256 == hashlib.sha256(b"ba be\0bi\0bo\0").hexdigest()


def test_paragraphs_where_blank_lines_separate_them(tmp_path: Path) -> None:
    found = read_corpus(file(tmp_path, "a.txt", "\ufeffba\nbe\r\n \r\nbi\n\n\nbo\n"))
    assert found.texts == ("ba\nbe", "bi", "bo")


def test_jsonl_with_text_or_messages(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "ba", "id": 1}), "", json.dumps({"messages": MESSAGES})]
    path = file(tmp_path, "a.jsonl", "\n".join(lines))
    assert read_corpus(path).texts == ("ba", "user: ba be\nassistant: bi")
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    assert read_corpus(path, tokenizer=tokenizer).texts == ("ba", "<user>ba be<assistant>bi")


def test_a_conversation_that_the_template_refuses(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    path = file(tmp_path, "a.jsonl", json.dumps({"messages": MESSAGES}))
    with pytest.raises(
        BadCorpus, match=r"line 1: the tokenizer's chat template refuses .*roles must alternate.*or give it as"
    ):
        read_corpus(path, tokenizer=tokenizer)


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    assert read_corpus(file(tmp_path, "a.jsonl", r'{"text": "ba \ud800 be"}')).texts == ("ba \ufffd be",)


def test_parquet_with_text_or_messages(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["ba", "be"], "id": [1, 2]}), tmp_path / "a.parquet")
    assert read_corpus(tmp_path / "a.parquet").texts == ("ba", "be")
    pq.write_table(pa.table({"messages": [MESSAGES]}), tmp_path / "b.parquet")
    assert read_corpus(str(tmp_path / "b.parquet")).texts == ("user: ba be\nassistant: bi",)


def test_max_documents(tmp_path: Path) -> None:
    assert read_corpus(file(tmp_path, "a.txt", "ba\nbe\nbi"), max_documents=2).texts == ("ba", "be")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", r"is empty. Give ordinary text"),
        ("a.txt", b" \n \n", r"holds no text at all. Give ordinary text"),
        ("a.txt", b"ab\0cd" * 100, r"is binary \(a zero byte at 2\). Give text, or a .jsonl"),
        ("a.txt", "ba café be\n".encode("latin1"), r"not UTF-8: byte 0xe9 at offset 6. Convert it.*iconv"),
        ("a.jsonl", b'{"text": "ba"}\n{"text": \n', r"a.jsonl, line 2: not JSON .*one object a line. 1 of 2 rows"),
        ("a.jsonl", b'{"text": "ba"}\n\n{"prompt": "x", "b": 1}', r"line 3: has the columns \['b', 'prompt'\]; expected"),
        ("a.jsonl", b"[" * 100_000, r"begins like a JSON array and is not JSON"),
        ("a.jsonl", b'["ba"]', r"row 1: no JSON object but str"),
        ("a.jsonl", b'{"text": null}', r"line 1: has the columns \['text'\]; expected"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}', r"line 1: message 1 \(user\) has no content"),
        ("a.parquet", b"PAR1 not really", r"cannot be read as parquet .*or give JSON lines"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = file(tmp_path, name, content)
    with pytest.raises(BadCorpus, match=words):
        read_corpus(path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_parquet_without_a_text_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["ba"]}), tmp_path / "a.parquet")
    with pytest.raises(BadCorpus, match=r"has the columns \['body'\]; expected"):
        read_corpus(tmp_path / "a.parquet")


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(BadCorpus, match=r"a.txt does not exist. Give a .txt, .jsonl, .json, .parquet, .csv or .tsv file"):
        read_corpus(tmp_path / "a.txt")
    with pytest.raises(BadCorpus, match=r"is a folder"):
        read_corpus(tmp_path)


def test_an_unreachable_dataset() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(
        BadCorpus, match=r"neither a file here nor a dataset that can be reached.*check the name and the network"
    ):
        read_corpus("owner/no-such-dataset")


def test_packing_by_hand() -> None:
    tokenizer = word_tokenizer()
    rows = pack_rows(documents("ba be bi", "bo bu", "da de di do"), tokenizer, 4)
    expected = tokenizer("ba be bi bo bu da de di")["input_ids"]
    assert rows.ids.tolist() == [expected[:4], expected[4:]]
    assert rows.passage.tolist() == [[0, 0, 0, 1], [1, 2, 2, 2]]
    assert [(p.text, p.document, p.start_token) for p in rows.passages] == [
        ("ba be bi", 0, 0),
        ("bo bu", 1, 3),
        ("da de di do", 2, 5),
    ]


def test_long_documents_are_cut_evenly_and_nothing_is_lost() -> None:
    words = [WORDS[i % len(WORDS)] for i in range(300)]
    rows = pack_rows(documents(" ".join(words), "ba " * 20), word_tokenizer(), 10)
    assert torch.bincount(rows.passage.flatten()).tolist() == [100, 100, 100, 20]
    assert " ".join(p.text for p in rows.passages[:3]) == " ".join(words)
    assert [p.start_token for p in rows.passages] == [0, 100, 200, 300]


def test_special_tokens_are_those_of_the_tokenizer() -> None:
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    rows = pack_rows(documents("ba be", "bi"), tokenizer, 7)
    ba = tokenizer.convert_tokens_to_ids("ba")
    assert rows.ids.tolist() == [[2, ba, ba + 1, 3, 2, ba + 2, 3]]
    assert [p.text for p in rows.passages] == ["ba be", "bi"]


def test_max_tokens_and_too_little_text() -> None:
    text = documents("ba be bi " * 30)
    assert pack_rows(text, word_tokenizer(), 16, 40).ids.shape == (2, 16)
    with pytest.raises(BadCorpus, match=r"test has 90 tokens in 1 documents, less than one row of 128. Give more text"):
        pack_rows(text, word_tokenizer(), 128)
    with pytest.raises(BadOption, match=r"10 tokens in rows of 16: give at least one row"):
        pack_rows(text, word_tokenizer(), 16, 10)


@pytest.fixture(scope="module")
def bytes_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(min_size=1).filter(lambda t: t.strip()), min_size=1, max_size=5), st.integers(2, 9))
def test_packing_any_text(bytes_tokenizer: PreTrainedTokenizerFast, texts: list[str], row_length: int) -> None:
    """Law: rows are the concatenation of what the tokenizer says, and every token knows its document."""
    texts = [text.encode("utf-8", "ignore").decode() or "x" for text in texts]
    ids = [i for text in texts for i in bytes_tokenizer(text)["input_ids"]]
    if len(ids) < row_length:
        return
    rows = pack_rows(documents(*texts), bytes_tokenizer, row_length)
    kept = len(ids) // row_length * row_length
    assert rows.ids.flatten().tolist() == ids[:kept]
    owners = [d for d, text in enumerate(texts) for _ in bytes_tokenizer(text)["input_ids"]]
    assert [rows.passages[p].document for p in rows.passage.flatten().tolist()] == owners[:kept]


def test_pieces_are_documents_cut_to_length() -> None:
    """Documents of 3, 5 and 4 tokens, of which rows of 5 keep the first 10, in pieces of at most 3."""
    rows = pack_rows(documents("ba be bi", "bo bu ba be bi", "bo bo bo bo"), word_tokenizer(), 5)
    assert document_pieces(rows, 3).tolist() == [[0, 3], [3, 6], [6, 8], [8, 10]]
    assert document_pieces(rows, 100).tolist() == [[0, 3], [3, 8], [8, 10]]


def test_packing_is_deterministic(tiny_pair: TinyPair) -> None:
    first, second = (pack_rows(read_corpus(tiny_pair.corpus), word_tokenizer(), 32) for _ in range(2))
    assert torch.equal(first.ids, second.ids)
    assert first.passages == second.passages
    assert first.ids.shape == (187, 32)
