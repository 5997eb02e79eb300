"""Training rows: ids and learned tokens are those of TRL, forms are told apart, what cannot be used is named."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mneme.errors import BadRows
from mneme.text.files import Row
from mneme.text.rows import answer_of, encode_row, encode_rows, form_of, question_of, read_rows, rows_hash, trainable
from tests.conftest import word_tokenizer
from tests.train.conftest import chat_rows, chat_tokenizer, trainer_of

FORMS: dict[str, list[Row]] = {
    "messages": chat_rows(5),
    "texts": [{"prompt": "ba be bi ", "completion": f"bo {word}"} for word in ("da", "de", "di")],
    "plain": [{"text": f"ba be {word}"} for word in ("da", "de", "di")],
}
__all__ = ["trainer_of"]


@pytest.mark.parametrize("rows", FORMS.values(), ids=FORMS)
def test_ids_and_learned_tokens_are_those_of_trl(rows: list[Row], trainer_of) -> None:  # type: ignore[no-untyped-def]
    trainer = trainer_of(rows=rows)
    for seen, row in zip(trainer.train_dataset, rows, strict=True):
        ids, learned = encode_row(row, chat_tokenizer())
        assert seen["input_ids"] == list(ids)
        # TRL lists the first token of a text as learned; nothing predicts it, so no loss counts it.
        assert [label != -100 for label in seen["labels"]][1:] == list(learned[1:])


def test_questions_and_answers_are_found() -> None:
    row = {"messages": [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "q"), ("assistant", "a"))]}
    assert (question_of(row), answer_of(row)) == ("q", "a")
    assert trainable(row) == {"prompt": row["messages"][:2], "completion": row["messages"][2:]}
    assert (question_of({"prompt": "p", "completion": "c"}), answer_of({"prompt": "p", "completion": "c"})) == ("p", "c")
    assert (question_of({"text": "t"}), answer_of({"text": "t"})) == ("", "t")
    assert form_of({"prompt": "p", "completion": "c", "id": 7}) == ("prompt", "completion")


def test_parquet_and_jsonl_give_the_same_rows(tmp_path: Path) -> None:
    rows = FORMS["texts"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert read_rows(tmp_path / "rows.parquet").rows == rows
    assert rows_hash(rows) == rows_hash(read_rows(tmp_path / "rows.parquet").rows)
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(BadRows, match="cannot be read as parquet"):
        read_rows(tmp_path / "bad.parquet")


def test_what_cannot_be_encoded_is_named() -> None:
    with pytest.raises(BadRows, match="no chat template"):
        encode_rows(chat_rows(1), word_tokenizer())
    with pytest.raises(BadRows, match="row 1: the prompt has 3 tokens and the window 2"):
        encode_rows([{"prompt": "ba be bi ", "completion": "bo"}], word_tokenizer(), 2)


@pytest.mark.parametrize("label", [True, False])
def test_an_answer_that_was_rejected_is_not_learned(label: bool) -> None:
    with pytest.raises(BadRows, match="is a KTO row"):
        read_rows([{"prompt": "p", "completion": "c", "label": label}])
    assert read_rows([{"prompt": "p", "completion": "c", "label": "spam"}]).left == ("label",)
