"""What counts as known, by hand; likelihood of texts against one pass a text; identity."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mneme.models.architecture import find_parts
from mneme.text.encoded import whole_text
from mneme.text.pieces import Pieces, cut_pieces
from mneme.unlearn.job import measured
from mneme.unlearn.recall import TokenReading, change_in_nats, kept, likelihood, read_pieces, recalled_tokens, telling_types
from tests import laws
from tests.conftest import WORDS, tiny_llama, word_tokenizer
from tests.unlearn.conftest import as_documents

TEXTS = tuple(" ".join(WORDS[(i * 5 + j * (i + 2)) % len(WORDS)] for j in range(2 + i)) for i in range(40))


def reading(document: list[int], token: list[int], nll: list[float], right: list[bool]) -> TokenReading:
    return TokenReading(np.array(document), np.array(token), np.array(nll), np.array(right))


def test_types_that_tell_of_one_text_and_not_of_the_other() -> None:
    own, other = np.array([0] * 4 + [1] * 4 + [2] * 2), np.array([0] * 8 + [1] * 1 + [3] * 11)
    # (4.5/10) / (8.5/20) is below e, (4.5/10) / (1.5/20) is 6, (2.5/10) / (0.5/20) is 10; 3 is not there.
    assert telling_types(own, other, 5).tolist() == [False, True, True, False, False]


def test_kept_by_hand() -> None:
    nats = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.6, 2.0]
    before = reading([0, 0, 0, 0, 1, 1, 1, 1], [9, 9, 1, 2, 9, 9, 3, 4], nats, [True] * 8)
    telling = np.isin(np.arange(10), [1, 2, 3, 4])
    # Recalled: 1 and 2 of the first text, 3 of the second; 9 tells nothing, 4 had less than half.
    assert recalled_tokens(before, telling).tolist() == [False, False, True, True, False, False, True, False]
    repeated = before._replace(token=np.array([1, 1, 1, 2, 9, 9, 1, 4]))
    assert recalled_tokens(repeated, telling).tolist() == [True, False, False, True, False, False, True, False]
    after = before._replace(right=np.array([False, False, True, False, False, False, True, True]))
    share = kept(before, after, telling)
    assert share is not None
    assert (share.value, share.n, share.unit) == (pytest.approx(2 / 3), 2, "share of recalled tokens")
    nothing = reading([0, 0], [1, 2], [3.0, 4.0], [False, False])
    assert kept(nothing, nothing, telling) is None


def test_identity_and_antisymmetry() -> None:
    one = read_pieces(find_parts(tiny_llama(0)), cut_pieces(as_documents(TEXTS), word_tokenizer(), 512))
    two = read_pieces(find_parts(tiny_llama(1)), cut_pieces(as_documents(TEXTS), word_tokenizer(), 512))
    same = change_in_nats(one, one, seed=0)
    laws.identity([same.value, same.low, same.high])
    there, back = change_in_nats(one, two, seed=0), change_in_nats(two, one, seed=0)
    laws.antisymmetry([there.value, there.low, there.high], [back.value, back.high, back.low], tolerance=1e-12)


def test_reading_in_batches_is_reading_text_by_text() -> None:
    """Law *padding*: texts of 2 to 41 tokens, in batches of any company."""
    parts, pieces = find_parts(tiny_llama()), cut_pieces(as_documents(TEXTS), word_tokenizer(), 512)
    found = read_pieces(parts, pieces)
    with torch.no_grad():
        texts = [torch.tensor(text.ids) for text in pieces.texts]
        logits = [parts.model(input_ids=ids[None]).logits[0, :-1] for ids in texts]
        nll = torch.cat([cross_entropy(row, ids[1:], reduction="none") for row, ids in zip(logits, texts, strict=True)])
        first = torch.cat([row.argmax(-1) == ids[1:] for row, ids in zip(logits, texts, strict=True)])
    laws.padding(found.nll, nll.double().numpy())
    assert found.right.tolist() == first.tolist()
    assert found.token.tolist() == torch.cat([ids[1:] for ids in texts]).tolist()
    assert likelihood(found, seed=0).value == pytest.approx(float(nll.mean()), rel=1e-5)
    assert likelihood(found, seed=0).n == len(TEXTS)


def test_a_sample_has_every_text_once_before_any_twice() -> None:
    """20 texts of 300 tokens in three pieces each: 2,048 tokens are 21 pieces of 100, so one text is read twice."""
    documents = np.repeat(np.arange(20), 3)
    pieces = Pieces(tuple(whole_text(list(range(100))) for _ in documents), documents)
    sample = measured(pieces, seed=0)
    assert len(sample) == 21
    assert len(np.unique(sample.document)) == 20
    assert (np.diff(sample.document) >= 0).all()
    assert measured(pieces, seed=0).document.tolist() == sample.document.tolist() != measured(pieces, seed=1).document.tolist()
    long = Pieces(tuple(whole_text(list(range(1000))) for _ in range(30)), np.arange(30))
    assert len(measured(long, seed=0)) == 16
    few = pieces.select([0, 1, 2])
    assert len(measured(few, seed=0)) == 3
