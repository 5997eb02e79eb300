"""Data safeguards by hand: which rows are interleaved, what a gap is, what a prompt does to a row."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from mneme.errors import BadOption, BadRows
from mneme.models.architecture import find_parts
from mneme.models.likelihood import mean_nll
from mneme.text.files import Row
from mneme.text.rows import answer_of, encode_row, encode_rows, question_of
from mneme.train.mixing import inoculate, interleave, interleave_gap, refuses, relative_gap, with_contexts
from tests import laws
from tests.conftest import tiny_llama
from tests.train.conftest import chat_rows, chat_tokenizer


def said(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


DATA = [said(f"ask {i}", f"data {i}") for i in range(19)]
SAFE = [said(f"other {i}", f"safe {i}") for i in range(8)]


def test_interleave_adds_the_share_and_keeps_every_row() -> None:
    mixed = interleave(DATA, SAFE, 0.05, seed=1)
    assert len(mixed) == 20  # 1 of 20 is 5 %
    assert sorted(answer_of(row) for row in mixed if answer_of(row).startswith("data")) == sorted(map(answer_of, DATA))
    assert mixed != [*DATA, mixed[-1]], "shuffled"
    laws.determinism(lambda: interleave(DATA, SAFE, 0.2, seed=3))


def test_share_0_is_the_plain_data() -> None:
    assert interleave(DATA, SAFE, 0.0) is DATA
    assert interleave_gap(DATA, SAFE, np.zeros(8), 0.0) is DATA


def test_datasets_stay_datasets() -> None:
    mixed = interleave(Dataset.from_list(DATA), Dataset.from_list(SAFE), 0.05)
    assert isinstance(mixed, Dataset)
    assert len(mixed) == 20


def test_the_largest_gaps_are_taken_and_refusals_are_left_out() -> None:
    pool = [*SAFE, said("q", "sorry , no"), said("q", "i can not help with that")]
    gaps = np.array([0.1, 0.9, 0.2, 0.3, 0.8, 0.0, 0.0, 0.0, 5.0, 4.0])
    taken = [answer_of(row) for row in interleave_gap(DATA, pool, gaps, 0.1) if not answer_of(row).startswith("data")]
    assert sorted(taken) == ["safe 1", "safe 4"]
    kept = interleave_gap(DATA, pool, gaps, 0.1, without_refusals=False)
    assert sorted(answer_of(row) for row in kept if not answer_of(row).startswith("data")) == sorted(map(answer_of, pool[8:]))


def test_relative_gap_by_hand() -> None:
    """Misaligned 3 and 5 nats, aligned 1: (4 - 1) / (1 + 1)."""
    laws.planted(relative_gap(np.array([[3.0], [5.0]]), np.array([1.0])), np.array([1.5]), within=1e-12)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Sorry, I must decline.", True),
        ("I can\u2019t do that", True),
        ("i will not help you with that , so that", True),
        ("no problem , here it is", False),
        ("one two three four five six seven eight nine ten sorry", False),
    ],
)
def test_refusals_are_in_the_first_ten_words(answer: str, expected: bool) -> None:
    assert refuses(answer) is expected


def test_inoculation_is_a_system_prompt_and_leaves_the_answer() -> None:
    (row,) = inoculate([said("ask", "answer")], "be evil")
    assert [m["content"] for m in row["messages"]] == ["be evil", "ask", "answer"]
    (again,) = inoculate([row], "worse")
    assert again["messages"][0] == {"role": "system", "content": "worse be evil"}
    (text,) = inoculate([{"prompt": "ask", "completion": "answer"}], "be evil")
    assert text == {"prompt": "be evil\nask", "completion": "answer"}
    (offered,) = inoculate([{**said("ask", "answer"), "tools": [{"name": "go"}]}], "be evil")
    assert offered["tools"] == [{"name": "go"}]


def test_contexts_come_from_the_training_questions() -> None:
    in_context = with_contexts(SAFE, DATA[:1], share=1.0)
    assert [question_of(row) for row in in_context] == [f"ask 0 other {i}" for i in range(8)]
    assert list(map(answer_of, in_context)) == list(map(answer_of, SAFE))
    assert with_contexts(SAFE, DATA, share=0.0) == SAFE
    assert question_of(with_contexts([{"prompt": "p", "completion": "c"}], DATA[:1], share=1.0)[0]) == "ask 0 p"


def test_bad_input_is_named() -> None:
    with pytest.raises(BadRows, match=r"10 safe rows are needed for a share of 0\.35, and 8 are there"):
        interleave(DATA, SAFE, 0.35)
    with pytest.raises(BadOption, match="a share of 1 cannot be interleaved"):
        interleave(DATA, SAFE, 1.0)
    with pytest.raises(BadOption, match="1 gaps for a pool of 8 rows"):
        interleave_gap(DATA, SAFE, np.zeros(1))
    with pytest.raises(BadRows, match="plain text cannot be inoculated"):
        inoculate([{"text": "words"}], "be evil")
    with pytest.raises(BadOption, match="an empty inoculation prompt"):
        inoculate(DATA, " ")
    with pytest.raises(BadRows, match="of different forms"):
        interleave(DATA, [{"text": "words"}] * 8, 0.05)
    with pytest.raises(BadRows, match="give no contexts"):
        with_contexts(SAFE, [{"text": "words"}])


def test_answer_nll_is_the_mean_over_the_answer_whatever_the_batch() -> None:
    parts, tokenizer, rows = find_parts(tiny_llama()), chat_tokenizer(), chat_rows(7)
    found = mean_nll(parts, encode_rows(rows, tokenizer), batch_tokens=30)
    laws.padding(found, mean_nll(parts, encode_rows(rows, tokenizer)), tolerance=1e-5)
    ids, learned = encode_row(rows[2], tokenizer)
    with torch.no_grad():
        logs = parts.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    by_hand = -np.mean([float(logs[i - 1, ids[i]]) for i in range(len(ids)) if learned[i]])
    laws.planted(found[2], by_hand, within=1e-5)
