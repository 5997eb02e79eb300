"""What counts as known, by hand; likelihood of texts against one pass a text; identity."""

import numpy as np
import pytest
import torch

from mneme.models.architecture import find_parts
from mneme.unlearn.recall import Reading, kept, known_tokens, likelihood, likelihood_change, read_text, says_something
from mneme.unlearn.text import cut, next_token_nll, run_logits
from tests import laws
from tests.conftest import WORDS, tiny_llama, word_tokenizer
from tests.unlearn.conftest import as_documents

TEXTS = tuple(" ".join(WORDS[(i * 5 + j * (i + 2)) % len(WORDS)] for j in range(2 + i)) for i in range(40))


def reading(document: list[int], token: list[int], nll: list[float], right: list[bool]) -> Reading:
    return Reading(np.array(document), np.array(token), np.array(nll), np.array(right))


def test_what_says_something_is_rare_and_new_in_its_document() -> None:
    token = np.array([0, 1, 0, 2, 0, 1, 1, 0])  # 0 makes up half of the text
    document = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert says_something(token, document).tolist() == [False, True, False, True, False, True, False, False]


def test_kept_by_hand() -> None:
    nats = [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.6, 2.0]
    before = reading([0, 0, 0, 0, 1, 1, 1, 1], [9, 9, 1, 2, 9, 9, 3, 4], nats, [True] * 8)
    # Known: 1 and 2 of the first text, 3 of the second; 9 is half of all tokens, of 4 the model was not sure.
    assert known_tokens(before).tolist() == [False, False, True, True, False, False, True, False]
    after = before._replace(right=np.array([False, False, True, False, False, False, True, True]))
    share = kept(before, after, seed=0)
    assert share is not None
    assert (share.value, share.n, share.unit) == (pytest.approx(2 / 3), 2, "share of known tokens")
    nothing = reading([0, 0], [1, 2], [3.0, 4.0], [False, False])
    assert kept(nothing, nothing, seed=0) is None


def test_identity_and_antisymmetry() -> None:
    one = read_text(find_parts(tiny_llama(0)), cut(as_documents(TEXTS), word_tokenizer(), 512))
    two = read_text(find_parts(tiny_llama(1)), cut(as_documents(TEXTS), word_tokenizer(), 512))
    same = likelihood_change(one, one, seed=0)
    laws.identity([same.value, same.low, same.high])
    there, back = likelihood_change(one, two, seed=0), likelihood_change(two, one, seed=0)
    laws.antisymmetry([there.value, there.low, there.high], [back.value, back.high, back.low], tolerance=1e-12)


def test_reading_in_batches_is_reading_text_by_text() -> None:
    """Law *padding*: texts of 2 to 41 tokens, in batches of any company."""
    parts, pieces = find_parts(tiny_llama()), cut(as_documents(TEXTS), word_tokenizer(), 512)
    found = read_text(parts, pieces)
    with torch.no_grad():
        logits = [run_logits(parts, ids[None], torch.ones(1, len(ids), dtype=torch.bool)) for ids in pieces.ids]
        nll = torch.cat([next_token_nll(row, ids[None])[0] for row, ids in zip(logits, pieces.ids, strict=True)])
        first = torch.cat([row[0, :-1].argmax(-1) == ids[1:] for row, ids in zip(logits, pieces.ids, strict=True)])
    laws.padding(found.nll, nll.double().numpy())
    assert found.right.tolist() == first.tolist()
    assert found.token.tolist() == torch.cat([ids[1:] for ids in pieces.ids]).tolist()
    assert likelihood(found, seed=0).value == pytest.approx(float(nll.mean()), rel=1e-5)
    assert likelihood(found, seed=0).n == len(TEXTS)
