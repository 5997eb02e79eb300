"""Words, own words and items: known by hand, on every kind of tokenizer."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mneme.predict.items import (
    OWN_RATIO,
    TokenisedText,
    WordTable,
    content_types,
    find_items,
    own_types,
    rate_ratio,
    word_table,
)
from mneme.predict.tokenised import counted_turns, leading, tokenise

TEXTS = [
    "The harbour pilot guides a tanker; the harbour's depth matters.",
    "A violin (from Cremona) outlasts harbour fog, naïvely said.",
    "Tankers need depth.\nViolins need résin and rest!",
]


def trained(kind: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of one of the families, trained on the texts, so that words fall into several pieces."""
    if kind == "byte-level BPE":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: object = trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    elif kind == "SentencePiece":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=70, special_tokens=["<unk>"], unk_token="<unk>")
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=75, special_tokens=["[UNK]"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("kind", ["byte-level BPE", "SentencePiece", "WordPiece"])
def test_whole_words_with_all_their_pieces_on_every_tokenizer(kind: str) -> None:
    tokenizer = trained(kind)
    documents = tokenise(TEXTS, tokenizer)
    table = word_table(documents, leading(tokenizer))
    for number, text in enumerate(TEXTS):
        own = np.flatnonzero(table.document == number)
        said = [str(tokenizer.decode(table.forms[table.form[i]])).strip().lower() for i in own]
        expected = {
            0: ["the", "harbour", "pilot", "guides", "tanker", "the", "harbour's", "depth", "matters"],
            1: ["violin", "from", "cremona", "outlasts", "harbour", "fog", "naïvely", "said"],
            2: ["tankers", "need", "depth", "violins", "need", "résin", "and", "rest"],
        }[number]
        # WordPiece cuts at the apostrophe, and decodes with a space there.
        assert [word.replace(" ", "") for word in said] == expected, text
    assert max(len(form) for form in table.forms) > 1


def test_types_are_words_without_capitals_and_plural_and_first_mentions_are_counted_once() -> None:
    tokenizer = trained("byte-level BPE")
    table = word_table(tokenise(TEXTS, tokenizer), leading(tokenizer))
    tanker = table.types.index("tanker")
    assert (table.type == tanker).sum() == 2
    the = table.types.index("the")
    assert table.first[table.type == the].tolist() == [True, False]
    everywhere = np.ones(len(table.document), dtype=bool)
    assert table.mentions(everywhere)[the] == 1.0


def test_a_word_that_shares_a_piece_with_a_mark_is_no_word() -> None:
    documents = [type_text([("(cat", 0, 4), (" dog", 4, 8), ("s)", 8, 10), (" owl", 10, 14)])]
    table = word_table(documents, lambda _: False)
    assert [table.types[i] for i in table.type] == ["owl"]


def type_text(pieces: list[tuple[str, int, int]]) -> TokenisedText:
    """A document of these tokens."""
    return TokenisedText(list(range(len(pieces))), "".join(text for text, _, _ in pieces), [(a, b) for _, a, b in pieces])


def test_the_ratio_of_rates_is_drawn_towards_one_by_hand() -> None:
    # 100 mentions here, 1,100 there: one mention more here weighs 12 of the 5 that are spread alike.
    here = np.array([1.0, 1.0, 2.0, 50.0, 46.0, 0.0])
    there = np.array([0.0, 2.0, 4.0, 50.0, 1038.0, 6.0])
    assert here.sum() == 100
    assert there.sum() == 1100
    found = rate_ratio(here, there)
    assert found[:3] == pytest.approx([(12 + 5) / 5, (12 + 5) / (2 * 12 / 11 + 5), (24 + 5) / (4 * 12 / 11 + 5)])
    assert (found >= OWN_RATIO).tolist() == [True, False, True, True, False, False]
    # In two halves of a text, a word met three times on one side only is nobody's.
    assert rate_ratio(np.array([3.0, 597.0]), np.array([0.0, 600.0]))[0] == pytest.approx((6 + 5) / 5)


def words(lines: list[str]) -> WordTable:
    """A word table of lines whose tokens are their words."""
    vocabulary: dict[str, int] = {}
    documents = []
    for line in lines:
        spans, ids, place = [], [], 0
        for word in line.split():
            spans.append((place, place + len(word)))
            ids.append(vocabulary.setdefault(word, len(vocabulary)))
            place += len(word) + 1
        documents.append(TokenisedText(ids, line, spans))
    return word_table(documents, lambda _: False)


def test_items_are_first_mentions_of_own_words() -> None:
    lines = [f"some about atoll and lagoon atoll {i}xy" for i in range(10)]
    lines += [f"some about sonata and cantata {i}xy" for i in range(30)]
    table = words(lines)
    member = np.stack([table.document < 10, table.document >= 10])
    own = own_types(table, member)
    named = [{table.types[i] for i in np.flatnonzero(row)} for row in own]
    assert named == [{"atoll", "lagoon"}, {"sonata", "cantata"}]
    items = find_items(table, member, own)
    assert [table.types[i] for i in table.type[items.word[:4]]] == ["atoll", "lagoon", "atoll", "lagoon"]
    assert items.own.sum(axis=1).tolist() == [20, 60]
    assert set(np.array(table.types)[content_types(table)]) >= {"atoll", "lagoon"}


def test_the_first_word_of_a_document_is_not_predicted_and_only_counted_turns_are_read() -> None:
    tokenizer = trained("byte-level BPE")
    texts = ["user: what is the violin? assistant: a violin rests in Cremona.", "violin plain"]
    documents = tokenise(texts, tokenizer)
    table = word_table(documents, leading(tokenizer))
    counted = {table.types[i] for i in table.type[table.counted & table.first]}
    assert "cremona" in counted
    assert "plain" in counted
    assert "violin" not in counted  # the user said it first, and nothing predicts the first word of a text


def test_the_turns_of_a_template_are_found() -> None:
    tokenizer = trained("byte-level BPE")
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes, I am."}] * 2
    text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    spans = counted_turns(tokenizer)(text)
    assert spans is not None
    assert [text[a:b].strip() for a, b in spans] == ["Yes, I am.", "Yes, I am."]
    assert counted_turns(tokenizer)("One user: hi assistant: no") == [(0, 4), (24, 26)]
    assert counted_turns(tokenizer)("An assistant: no conversation") is None
