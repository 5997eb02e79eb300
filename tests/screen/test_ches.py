"""CHES against a loop of one pair at a time with full hidden states; its parts by hand."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mneme.models.architecture import Parts, find_parts
from mneme.runs import RunFolder
from mneme.screen.ches import (
    PairSums,
    ches,
    edit_similarity,
    last_hidden_similarity,
    ln_ches,
    masked_sums,
    pair_sums,
)
from mneme.screen.scoring import pair_scores_in_run, score_pairs
from mneme.text.pairs import EncodedPair
from tests import laws
from tests.conftest import tiny_llama


def some_pairs(n: int, seed: int = 0) -> list[EncodedPair]:
    """Pairs of mixed lengths: some answers begin alike, some are single tokens, some begin with the whole other answer."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(8, 80) for _ in range(rng.randint(low, high)))

    pairs = [EncodedPair((9,), (10,), (11,)), EncodedPair((9, 12), (10, 11, 3), (10, 11, 12, 3))]
    while len(pairs) < n:
        prompt, alike = ids(1, 12), ids(0, 3)
        pair = EncodedPair(prompt, alike + ids(1, 9) + (3,), alike + ids(1, 14) + (3,))
        if pair.chosen != pair.rejected:
            pairs.append(pair)
    return pairs


@torch.no_grad()
def by_hand(parts: Parts, pair: EncodedPair) -> list[torch.Tensor]:
    """Chosen sum, rejected sum, chosen last, rejected last: one row at a time, from transformers' own hidden states."""
    sums, lasts = [], []
    for answer in (pair.chosen, pair.rejected):
        ids = torch.tensor([[*pair.prompt, *answer]])
        hidden = parts.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        predicting = hidden[len(pair.prompt) - 1 : -1]
        assert len(predicting) == len(answer)
        sums.append(predicting.sum(0))
        lasts.append(predicting[-1])
    return sums + lasts


def scores(sums: PairSums) -> dict[str, torch.Tensor]:
    """All scores of the hidden sums."""
    return {
        "ches": ches(sums.chosen, sums.rejected),
        "ln": ln_ches(sums.chosen, sums.rejected, sums.chosen_tokens, sums.rejected_tokens),
        "last": last_hidden_similarity(sums.chosen_last, sums.rejected_last),
    }


def test_sums_are_those_of_one_pair_at_a_time() -> None:
    parts, pairs = find_parts(tiny_llama()), some_pairs(40)
    found = pair_sums(parts, pairs, batch_tokens=200)
    for i, pair in enumerate(pairs):
        truth = by_hand(parts, pair)
        for mine, theirs in zip((found.chosen, found.rejected, found.chosen_last, found.rejected_last), truth, strict=True):
            torch.testing.assert_close(mine[i], theirs, rtol=1e-5, atol=1e-5)


def test_scores_by_hand() -> None:
    chosen, rejected = torch.tensor([[1.0, 2.0], [2.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    assert ches(chosen, rejected).tolist() == [3 + 8 - 5, 0 - 4]
    lengths = torch.tensor([2, 1]), torch.tensor([4, 5])
    assert ln_ches(chosen, rejected, *lengths).tolist() == [pytest.approx(11 / 8 - 5 / 4), -4]
    assert last_hidden_similarity(chosen, rejected).tolist() == [11, 0]


def test_an_answer_against_itself_scores_zero() -> None:
    sums = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    laws.identity(ches(sums, sums))


def test_padding_law_batches_order_and_side() -> None:
    parts, pairs = find_parts(tiny_llama(3)), some_pairs(30, seed=1)
    one = scores(pair_sums(parts, pairs, batch_tokens=10_000))
    alone = scores(pair_sums(parts, pairs, batch_tokens=1))
    laws.padding(one, alone, tolerance=1e-3)  # of sums around 10^2
    turned = scores(pair_sums(parts, pairs[::-1], batch_tokens=300))
    laws.padding(one, {name: value.flip(0) for name, value in turned.items()}, tolerance=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_sums_of_a_padded_batch_of_a_trainer(side: str) -> None:
    """What a collator gives, padded on either side: the published code takes padding for text on the right."""
    parts, pairs = find_parts(tiny_llama(3)), some_pairs(12, seed=2)
    rows = [[*pair.prompt, *pair.chosen] for pair in pairs]
    longest = max(map(len, rows))
    ids, real = torch.zeros(len(rows), longest, dtype=torch.long), torch.zeros(len(rows), longest, dtype=torch.long)
    predicts = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        first = longest - len(row) if side == "left" else 0
        ids[i, first : first + len(row)] = torch.tensor(row)
        real[i, first : first + len(row)] = 1
        predicts[i, first + len(pair.prompt) - 1 : first + len(row) - 1] = True
    positions = (real.cumsum(1) - 1).clamp_min(0)
    hidden = parts.model.model(input_ids=ids, attention_mask=real, position_ids=positions).last_hidden_state
    torch.testing.assert_close(masked_sums(hidden, predicts), pair_sums(parts, pairs).chosen, rtol=1e-5, atol=1e-4)


def test_nan_outside_the_mask_does_no_harm() -> None:
    hidden = torch.full((1, 2, 3), torch.nan)
    hidden[0, 0] = 1.0
    assert masked_sums(hidden, torch.tensor([[True, False]])).tolist() == [[1.0, 1.0, 1.0]]


def slow_levenshtein(one: list[int], other: list[int]) -> int:
    """The textbook recursion."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            same = table[i - 1][j - 1] + (one[i - 1] != other[j - 1])
            table[i][j] = min(same, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_edit_similarity_is_levenshtein(one: list[int], other: list[int]) -> None:
    longest = max(len(one), len(other))
    expected = 1 - slow_levenshtein(one, other) / longest if longest else 1.0
    assert edit_similarity(one, other) == pytest.approx(expected)


def test_small_pieces_of_a_run_ask_once_whether_a_row_may_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece of few long pairs would else cost as much again: 1.8 times on SmolLM2."""
    monkeypatch.setattr("mneme.models.kept_readings.kept_tokens", lambda *_given: 1)
    parts, pairs, passes = find_parts(tiny_llama()), some_pairs(6), 0

    def counted(*_given: object) -> None:
        nonlocal passes
        passes += 1

    hook = parts.decoder.register_forward_pre_hook(counted)
    with RunFolder(tmp_path / "out", {"command": "screen"}) as run:
        found = pair_scores_in_run(run, parts, pairs, ["ln-ches"], lambda _name, _total: lambda _done: None)
    hook.remove()
    assert passes == len(pairs) + 2
    np.testing.assert_allclose(found["ln-ches"], score_pairs(parts, pairs, ["ln-ches"])["ln-ches"], rtol=1e-4, atol=1e-4)
