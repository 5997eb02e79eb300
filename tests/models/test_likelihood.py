"""Log-likelihood of counted tokens against the whole logits of each text alone, with its gradient, in any company."""

import numpy as np
import pytest
import torch

from mneme.models import likelihood
from mneme.models.architecture import find_parts
from mneme.models.batching import padded
from mneme.models.likelihood import (
    counted_log_probs,
    counted_logits,
    logits_at,
    mean_nll,
    row_log_probs,
    text_log_likelihoods,
    token_log_likelihoods,
    token_predictions,
)
from mneme.text.encoded import Encoded, answer_after, counted_tokens, text_numbers, whole_text
from tests import laws
from tests.conftest import tiny_llama
from tests.models.architectures import random_model

IDS = torch.randint(8, 60, (4, 9), generator=torch.Generator().manual_seed(0)).tolist()
TEXTS = [
    whole_text(IDS[0]),
    answer_after(IDS[1][:3], IDS[1][3:6]),
    Encoded(tuple(IDS[2][:4]), (False, False, False, False)),
    Encoded(tuple(IDS[3][:7]), (False, True, False, False, True, True, False)),
]


def by_hand(model: torch.nn.Module, text: Encoded) -> torch.Tensor:
    """log p of the counted tokens of one text, alone, from all of its logits."""
    ids = torch.tensor(text.ids)
    told = model(input_ids=ids[None]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
    return told[torch.tensor(text.counted[1:])]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral"])
@pytest.mark.parametrize("batch_tokens", [1, 20, 4096])
def test_every_token_is_that_of_the_text_alone(name: str, batch_tokens: int) -> None:
    model = random_model(name)
    parts = find_parts(model)
    with torch.no_grad():
        expected = [by_hand(model, text).double().numpy() for text in TEXTS]
        first = [model(input_ids=torch.tensor(text.ids)[None]).logits[0].argmax(-1) for text in TEXTS]
    whole = np.concatenate(expected)
    laws.padding(token_log_likelihoods(parts, TEXTS, batch_tokens=batch_tokens), whole, tolerance=1e-4)
    told = token_predictions(parts, TEXTS, batch_tokens=batch_tokens)
    laws.padding(told.log_prob, whole, tolerance=1e-4)
    right = [
        int(best[i - 1]) == text.ids[i]
        for text, best in zip(TEXTS, first, strict=True)
        for i, counts in enumerate(text.counted)
        if counts
    ]
    assert told.right.tolist() == right
    sums = [float(values.sum()) for values in expected]
    assert text_log_likelihoods(parts, TEXTS, batch_tokens=batch_tokens) == pytest.approx(sums, rel=1e-4)
    assert text_numbers(TEXTS).tolist() == [0] * 8 + [1] * 3 + [3] * 3


def test_means_are_over_the_counted_tokens() -> None:
    parts = find_parts(tiny_llama())
    sums, counts = text_log_likelihoods(parts, TEXTS), counted_tokens(TEXTS)
    assert counts.tolist() == [8, 3, 0, 3]
    found = mean_nll(parts, TEXTS)
    assert np.isnan(found[2])  # where nothing counts there is no mean
    assert found[[0, 1, 3]] == pytest.approx(-sums[[0, 1, 3]] / counts[[0, 1, 3]])


def test_gradients_are_those_of_the_texts_alone_also_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk of three tokens at a time, whose logits are computed again in the backward pass."""
    model = tiny_llama()
    parts, weights = find_parts(model), [model.model.layers[0].mlp.down_proj.weight, model.lm_head.weight]
    expected = torch.autograd.grad(torch.cat([by_hand(model, text) for text in TEXTS]).sum(), weights)
    vocab = int(model.lm_head.weight.shape[0])
    for logits in (2**24, 3 * vocab):
        monkeypatch.setattr(likelihood, "_LOGITS", logits)
        batch = padded(TEXTS)
        found = torch.autograd.grad(counted_log_probs(parts, batch).sum(), weights)
        rows = torch.autograd.grad(row_log_probs(parts, batch).sum(), weights)
        for one, other, right in zip(found, rows, expected, strict=True):
            torch.testing.assert_close(one, right, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(other, right, rtol=1e-4, atol=1e-5)


def test_logits_where_tokens_count_and_elsewhere() -> None:
    model = tiny_llama()
    parts, batch = find_parts(model), padded(TEXTS[:2])
    with torch.no_grad():
        whole = model(input_ids=batch.ids).logits
        laws.padding(counted_logits(parts, batch), whole[batch.predicting()])
        laws.padding(logits_at(parts, batch, batch.real), whole[batch.real])


def test_advance_is_told_of_every_batch() -> None:
    seen: list[int] = []
    mean_nll(find_parts(tiny_llama()), TEXTS, batch_tokens=9, advance=lambda batch: seen.extend(batch.texts))
    assert sorted(seen) == [0, 1, 2, 3]
