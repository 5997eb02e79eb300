"""What a training is said to cost: bytes and tokens that can be counted, and recomputing where memory is short."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import mneme
from mneme.models.architecture import find_parts
from mneme.models.footprint import footprint, saved_bytes
from mneme.text.rows import encode_rows
from mneme.train import plan as planning
from mneme.train.plan import TrainingWork, batch_tokens, plan_training
from tests.conftest import tiny_llama
from tests.train.conftest import chat_rows, chat_tokenizer


def test_saved_bytes_by_hand() -> None:
    """x W: x is kept for the gradient of W, W itself is a weight; relu keeps its output; squaring keeps it again, once."""
    x, weight = torch.randn(10, 4), torch.randn(4, 6, requires_grad=True)
    _, size = saved_bytes(lambda: ((x @ weight).relu() ** 2).sum(), [weight])
    assert size == 4 * (10 * 4 + 10 * 6)


def test_a_footprint_leaves_no_gradient_and_no_random_number() -> None:
    weight = torch.randn(4, 6, requires_grad=True)
    state = torch.get_rng_state()
    found = footprint(lambda: (torch.randn(10, 4) @ weight).square().sum(), 10, [weight])
    assert weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)
    assert found.saved_bytes == 4 * (4 + 6)
    assert found.step_seconds > 0 < found.forward_seconds


def test_tokens_with_padding() -> None:
    assert batch_tokens(np.array([100, 100, 100, 100]), 4, 0, cut=True) == (400.0, 400)
    tokens, most = batch_tokens(np.array([800, 100]), 2, 0, cut=True)
    assert (tokens, most) == (900.0, 800)  # each on its own
    assert batch_tokens(np.array([800, 100]), 2, 0, cut=False) == (1600.0, 1600)


def test_activations_are_made_twice_only_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, parts = chat_tokenizer(), find_parts(tiny_llama())
    rows = [{"input_ids": list(text.ids)} for text in encode_rows(chat_rows(8), tokenizer)]

    def plan(free: int | None) -> planning.TrainingPlan:
        monkeypatch.setattr(planning, "free_bytes", lambda: free)
        return plan_training(parts, rows, 0, TrainingWork(batches=3, batch_rows=4), lean=True, seed=0)

    plenty, unknown, short = plan(10**12), plan(None), plan(10**6)
    assert not plenty.recomputes
    assert not unknown.recomputes
    assert short.recomputes
    assert "made twice" in short.told(3, 8, 0)
    assert "made twice" not in plenty.told(3, 8, 0)
    assert plenty.tokens == short.tokens > 0


def test_a_run_that_recomputes_has_the_same_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    tiny_llama().save_pretrained(base)
    chat_tokenizer().save_pretrained(base)
    runs = []
    for name, free in (("plenty", 10**12), ("short", 10**6)):
        monkeypatch.setattr(planning, "free_bytes", lambda free=free: free)
        training = mneme.Training(batch=4, lora_rank=2, learning_rate=1e-2)
        progress = mneme.Progress(Console(stderr=True, width=300))
        record = mneme.train(base, chat_rows(12), out=tmp_path / name, training=training, progress=progress)
        runs.append([step.loss for step in record.losses])
    assert runs[0] == pytest.approx(runs[1], abs=1e-5)
    told = re.findall(r"Plan: 3 steps, 12 rows .* peak memory about [\d.]+ GB(.*)\.", capsys.readouterr().err)
    assert told == ["", ", activations made twice to fit into memory"]
