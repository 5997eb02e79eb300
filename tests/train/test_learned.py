"""The lean trainer is TRL's: the same losses and gradients, from fewer positions of the head and less padding."""

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import Trainer
from trl import SFTTrainer

from mneme.train.guarding import guard
from mneme.train.learned import chunked_loss, cut_batch, is_plain, lean, length_pieces
from mneme.train.penalties import kl_base_to_tuned, kl_tuned_to_base, ldifs
from tests import laws
from tests.conftest import tiny_llama
from tests.train.conftest import chat_rows, gradients_of_one_step, step_losses, weights_after

Build = Callable[..., Trainer]
LEARNED = importlib.import_module("mneme.train.learned")  # `mneme.train` is a function too


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 3, "max_steps": 2}], ids=["plain", "accumulated"])
def test_losses_and_gradients_are_those_of_trl(
    trainer_of: Build, monkeypatch: pytest.MonkeyPatch, full: bool, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(LEARNED, "_FEW", 8)  # else a batch of so few tokens is one piece
    model = {"model": tiny_llama()} if full else {}
    theirs, ours = (trainer_of(made, **model, **changes) for made in (SFTTrainer, lean(SFTTrainer)))
    gradients = [gradients_of_one_step(trainer) for trainer in (theirs, ours)]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))
    laws.padding(step_losses(theirs), step_losses(ours), tolerance=1e-5)


def test_penalties_from_shared_logits_are_the_same(trainer_of: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LEARNED, "_FEW", 8)
    penalties = [kl_tuned_to_base(0.7), kl_base_to_tuned(0.3), ldifs(0.5)]
    theirs, ours = (trainer_of(guard(made, penalties)) for made in (SFTTrainer, lean(SFTTrainer)))
    laws.padding(weights_after(theirs), weights_after(ours), tolerance=1e-4)
    logs = [[{k: v for k, v in e.items() if k.startswith("penalty/")} for e in t.state.log_history] for t in (theirs, ours)]
    laws.padding(logs[0], logs[1], tolerance=1e-5)
    laws.padding(step_losses(theirs), step_losses(ours), tolerance=1e-5)


def test_an_evaluation_after_a_step_has_no_penalty(trainer_of: Build) -> None:
    ours = trainer_of(guard(lean(SFTTrainer), [kl_tuned_to_base(5.0)]))
    batch = ours._prepare_inputs(ours.data_collator([ours.train_dataset[i] for i in range(4)]))
    ours.current_gradient_accumulation_steps = 1
    ours.model.train()
    with_penalty = ours.compute_loss(ours.model, dict(batch)).item()
    ours.model.eval()
    with torch.no_grad():
        evaluated = ours.compute_loss(ours.model, dict(batch)).item()
        plain = SFTTrainer.compute_loss(trainer_of(), ours.model, dict(batch)).item()
    assert evaluated == pytest.approx(plain, rel=1e-5)
    assert with_penalty > plain + 1e-3


def test_only_learned_tokens_meet_the_head(trainer_of: Build) -> None:
    trainer = trainer_of(lean(SFTTrainer), chat_rows(4), max_steps=1)
    learned = sum(sum(label != -100 for label in row["labels"][1:]) for row in _with_labels(trainer))
    seen: list[int] = []
    head = trainer.model.get_base_model().lm_head
    head.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[0]))
    weights_after(trainer)
    assert sum(seen) == learned


def test_chunks_add_up_and_their_gradient_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama().double().requires_grad_(True)
    from mneme.models.architecture import find_parts, lens

    parts = find_parts(model.eval())
    torch.manual_seed(0)
    hidden = torch.randn(7, parts.width, dtype=torch.float64, requires_grad=True)
    weights = [hidden, parts.norm.weight, parts.head.weight]

    def of_chunk(logits: torch.Tensor, cut: slice) -> tuple[torch.Tensor, torch.Tensor]:
        share = torch.arange(7.0, dtype=torch.float64)[cut]
        return (logits.logsumexp(-1) * share).sum(), logits.softmax(-1) * share[:, None]

    whole = of_chunk(lens(parts, hidden), slice(0, 7))[0]
    expected = torch.autograd.grad(whole, weights)
    monkeypatch.setattr(LEARNED, "_LOGITS", 3 * parts.embedding.weight.shape[0])
    found = chunked_loss(parts, hidden, of_chunk)
    torch.testing.assert_close(found, whole)
    for ours, theirs in zip(torch.autograd.grad(2 * found, weights), expected, strict=True):
        torch.testing.assert_close(ours, 2 * theirs)
    with torch.no_grad():
        torch.testing.assert_close(chunked_loss(parts, hidden, of_chunk), whole.detach())


def test_rows_of_a_length_run_together() -> None:
    assert length_pieces([100, 90, 30, 95, 31]) == [[0, 3, 1], [4, 2]]  # 300 tokens are enough, 31 would be padded to 100
    assert length_pieces([100, 20]) == [[0, 1]]  # too few tokens to leave one out
    assert length_pieces([700, 650]) == [[0], [1]]  # more than fit together
    assert length_pieces([5000]) == [[0]]


def test_what_is_no_plain_batch() -> None:
    ids = torch.ones(2, 3, dtype=torch.long)
    right = {"input_ids": ids, "labels": ids, "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    assert is_plain(right)
    assert not is_plain(right | {"attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1]])})
    assert not is_plain(right | {"position_ids": ids})
    pieces = cut_batch(right)
    assert [piece["input_ids"].shape for piece in pieces] == [(2, 3)]


def _with_labels(trainer: Trainer) -> list[dict[str, Any]]:
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    return [{"labels": row.tolist()} for row in batch["labels"]]
