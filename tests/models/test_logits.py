"""Log-probabilities, divergences, labels: by hand and against torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mneme.errors import EmptyMask
from mneme.models import logits as module
from mneme.models.logits import masked_mean, token_kl_base_to_tuned, token_kl_tuned_to_base, token_log_probs
from mneme.text.chat import labels_of, render_messages, trained_on
from tests.conftest import word_tokenizer


def test_masked_mean_by_hand() -> None:
    values = torch.tensor([1.0, 3.0, float("nan")])
    assert masked_mean(values, torch.tensor([True, True, False])).item() == 2.0
    with pytest.raises(EmptyMask, match=r"a mean over no tokens has no value: every token is masked"):
        masked_mean(values, torch.zeros(3, dtype=torch.bool))


def test_kl_by_hand_and_its_direction() -> None:
    tuned, base = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    expected = 0.5 * torch.tensor(0.5 / 0.75).log() + 0.5 * torch.tensor(0.5 / 0.25).log()
    torch.testing.assert_close(token_kl_tuned_to_base(tuned_logits=tuned, base_logits=base)[0], expected)
    other = 0.75 * torch.tensor(0.75 / 0.5).log() + 0.25 * torch.tensor(0.25 / 0.5).log()
    torch.testing.assert_close(token_kl_base_to_tuned(tuned_logits=tuned, base_logits=base)[0], other)


def test_kl_of_a_distribution_with_a_hole() -> None:
    tuned = torch.tensor([[0.0, float("-inf")]])
    base = torch.tensor([[0.0, 0.0]])
    assert token_kl_tuned_to_base(tuned_logits=tuned, base_logits=base).item() == pytest.approx(0.6931472)
    assert token_kl_base_to_tuned(tuned_logits=tuned, base_logits=base).item() == float("inf")
    assert token_kl_tuned_to_base(tuned_logits=tuned, base_logits=tuned).item() == 0.0


@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16]))
def test_identity_antisymmetry_and_parity_with_torch(seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    tuned, base = (5 * torch.randn(2, 3, 7, generator=generator) for _ in range(2))
    tuned, base = tuned.to(dtype), base.to(dtype)
    forward = token_kl_tuned_to_base(tuned_logits=tuned, base_logits=base)
    assert forward.dtype == torch.float32
    assert torch.equal(forward, token_kl_base_to_tuned(tuned_logits=base, base_logits=tuned))
    assert torch.equal(token_kl_tuned_to_base(tuned_logits=base, base_logits=base), torch.zeros(2, 3))
    parity = functional.kl_div(
        base.float().log_softmax(-1), tuned.float().log_softmax(-1), reduction="none", log_target=True
    ).sum(-1)
    torch.testing.assert_close(forward, parity, rtol=1e-4, atol=1e-6)
    ids = torch.randint(7, (2, 3), generator=generator)
    expected = -functional.cross_entropy(base.float().flatten(0, 1), ids.flatten(), reduction="none").view(2, 3)
    torch.testing.assert_close(token_log_probs(base, ids), expected)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    tuned, base = torch.randn(5, 9, 11, generator=generator), torch.randn(5, 9, 11, generator=generator)
    whole = token_kl_tuned_to_base(tuned_logits=tuned, base_logits=base)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", {"cpu": 40})
    torch.testing.assert_close(token_kl_tuned_to_base(tuned_logits=tuned, base_logits=base), whole, rtol=1e-6, atol=1e-7)


def test_labels_leave_out_what_is_not_trained_on() -> None:
    ids = torch.tensor([[5, 6, 7]])
    mask = torch.tensor([[False, True, True]])
    labels = labels_of(ids, mask)
    assert labels.tolist() == [[-100, 6, 7]]
    assert torch.equal(trained_on(labels), mask)


def test_messages_use_the_chat_template_where_there_is_one() -> None:
    messages = [{"role": "user", "content": "ba be"}, {"role": "assistant", "content": "bi"}]
    tokenizer = word_tokenizer()
    assert render_messages(messages, None) == "user: ba be\nassistant: bi"
    assert render_messages(messages, tokenizer) == "user: ba be\nassistant: bi"
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"
    assert render_messages(messages, tokenizer) == "[user] ba be [assistant] bi "
