"""The cheap signals of a pair: against the plain definitions, and exactly nothing where the models are equal."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mneme.bench.real.signals import SIGNALS, read_signals
from mneme.models.pair import load_pair

TEXTS = {"physics": [[8, 9, 10, 11, 12, 13], [14, 15, 16]], "chats": [[20, 21, 22, 23]]}


def test_signals_are_means_over_the_predicted_tokens_of_a_passage(save_llama: Callable[..., Path]) -> None:
    pair = load_pair(save_llama(0), save_llama(1))
    found = read_signals(pair, TEXTS)
    assert found["tokens"] == 2 * 13
    ids = torch.tensor([TEXTS["physics"][1]])
    with torch.no_grad():
        base = pair.base_parts.model(input_ids=ids, output_hidden_states=True)
        tuned = pair.tuned_parts.model(input_ids=ids, output_hidden_states=True)
    before, after = (out.logits[0, :2].log_softmax(-1) for out in (base, tuned))
    kl = (after.exp() * (after - before)).sum(-1).mean()
    loss = (before - after)[torch.arange(2), ids[0, 1:]].mean()
    first = (tuned.hidden_states[1] - base.hidden_states[1])[0, :2].norm(dim=-1) / base.hidden_states[1][0, :2].norm(dim=-1)
    physics = found["areas"]["physics"]
    assert physics["kl_tuned_to_base"][1] == pytest.approx(float(kl), rel=1e-3)
    assert physics["loss_change"][1] == pytest.approx(float(loss), rel=1e-3)
    assert physics["activation_change"][1] > 0.3 * float(first.mean())
    assert [len(physics[name]) for name in SIGNALS] == [2] * 4


def test_equal_models_have_no_signal(save_llama: Callable[..., Path]) -> None:
    found = read_signals(load_pair(save_llama(0), save_llama(0)), TEXTS)
    assert found["weights"] == 0.0
    assert {value for area in found["areas"].values() for values in area.values() for value in values} == {0.0}
