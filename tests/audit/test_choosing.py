"""What is read of a corpus that holds more than is asked for."""

import numpy as np

from mneme.audit.choosing import _spread, text_to_read
from mneme.predict.areas import Area, count_words
from mneme.predict.matching import match_areas
from mneme.text.documents import Documents
from tests.conftest import word_tokenizer

TOPICS, OWN, PLAIN = 4, 40, 60


def sorted_corpus(per_topic: int, seed: int = 0) -> Documents:
    """Topic after topic, and at the end as much text of none: 12 words of 40 of the topic's own, 20 of 60 plain ones."""
    draw = np.random.default_rng(seed)
    vocabulary = np.array(word_list())
    plain = vocabulary[TOPICS * OWN :]
    texts = []
    for topic in range(TOPICS + 1):
        own = vocabulary[topic * OWN : (topic + 1) * OWN] if topic < TOPICS else plain
        texts += [" ".join([*draw.choice(own, 12, replace=False), *draw.choice(plain, 20)]) for _ in range(per_topic)]
    return Documents(tuple(texts), "sorted", "0" * 64)


def word_list() -> list[str]:
    """Words of letters; that the tokenizer of the tests does not know them is nothing to what is chosen."""
    return ["w" + "".join("bcdfghklmn"[int(digit)] for digit in str(n)) for n in range(1000, 1000 + TOPICS * OWN + PLAIN)]


def areas() -> tuple[Area, ...]:
    words = word_list()
    return tuple(Area(name=f"topic {t}", keywords=tuple(words[t * OWN : t * OWN + 12])) for t in range(TOPICS))


def members(documents: Documents) -> list[int]:
    return match_areas(count_words(list(documents.texts)), areas()).member.sum(axis=1).tolist()


def test_a_corpus_sorted_by_subject_is_read_in_all_its_subjects() -> None:
    corpus, tokenizer = sorted_corpus(300), word_tokenizer(256)
    chosen, rows = text_to_read(corpus, tokenizer, areas(), None, 8192)
    assert rows.ids.numel() == 8192
    assert (chosen.source, chosen.sha256) == (corpus.source, corpus.sha256)
    found = members(chosen)
    assert min(found) >= 40
    assert max(found) <= 1.5 * min(found)
    assert len(set(chosen.texts) & set(corpus.texts[-300:])) >= 10  # text of no area
    again = text_to_read(corpus, tokenizer, areas(), None, 8192)[0]
    assert again == chosen


def test_a_corpus_that_begins_with_everything_is_read_from_its_beginning() -> None:
    corpus, tokenizer = sorted_corpus(300), word_tokenizer(256)
    order = np.random.default_rng(1).permutation(len(corpus.texts))
    mixed = Documents(tuple(corpus.texts[i] for i in order), "mixed", "1" * 64)
    chosen, rows = text_to_read(mixed, tokenizer, areas(), None, 16_384)
    assert chosen is mixed
    assert rows.ids.numel() == 16_384
    whole, all_rows = text_to_read(mixed, tokenizer, areas(), None, None)
    assert whole is mixed
    assert all_rows.ids.numel() > 16_384


def test_every_beginning_is_spread_over_the_whole() -> None:
    order = _spread(np.arange(64))
    assert sorted(order) == list(range(64))
    for n in (4, 8, 16):
        assert np.diff(np.sort(order[:n])).max() <= 64 // n
