"""A fresh LoRA changes nothing, is drawn by its seed, comes off without a trace, and leaves others' random numbers alone."""

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from mneme.errors import BadOption
from mneme.models.adapters import adapter_off, attach_lora, detach_lora, inner_model, lora_config, switched_off
from mneme.models.modes import evaluating
from tests import laws
from tests.conftest import tiny_llama

IDS = torch.arange(8, 20)[None]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_a_fresh_adapter_changes_nothing_and_comes_off() -> None:
    model = tiny_llama()
    before, names = logits(model), [name for name, _ in model.named_modules()]
    with evaluating(model, frozen=True):
        adapted = attach_lora(model, 2, seed=0)
        laws.zero_strength(logits(adapted), before)
        trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
        assert trained
        assert all("lora_" in name for name in trained)
        with torch.no_grad():
            for weight in trained.values():
                weight.add_(1.0)
        assert not torch.allclose(logits(adapted), before)
        with adapter_off(adapted):
            laws.zero_strength(logits(adapted), before)
        assert inner_model(adapted) is model
        detach_lora(adapted)
    laws.zero_strength(logits(model), before)
    assert [name for name, _ in model.named_modules()] == names
    assert all(weight.requires_grad for weight in model.parameters())


def test_switching_off_leaves_gradients_and_layers_as_peft_does() -> None:
    def state() -> list[tuple[str, bool]]:
        off = [(name, layer.disable_adapters) for name, layer in adapted.named_modules() if isinstance(layer, BaseTunerLayer)]
        return off + [(name, weight.requires_grad) for name, weight in adapted.named_parameters()]

    adapted = attach_lora(tiny_llama(), 2, seed=0)
    before = state()
    with adapted.disable_adapter():
        inside = state()
    with switched_off(adapted):
        assert state() == inside != before
        with switched_off(adapted):  # what is off already stays off
            assert state() == inside
        assert state() == inside
    assert state() == before
    with pytest.raises(BadOption), switched_off(adapted):
        raise BadOption("x")
    assert state() == before


def test_a_plain_model_has_no_adapter_to_switch() -> None:
    model = tiny_llama()
    assert inner_model(model) is model
    with adapter_off(model):
        logits(model)


def test_seeds_decide_and_nobody_elses_random_numbers_are_touched() -> None:
    def drawn(seed: int) -> torch.Tensor:
        adapted = attach_lora(tiny_llama(), 2, seed=seed, targets=["q_proj"])
        return torch.cat([w.detach().flatten() for name, w in adapted.named_parameters() if "lora_A" in name])

    laws.determinism(lambda: drawn(3).numpy())
    assert not torch.equal(drawn(3), drawn(4))
    model = tiny_llama()
    state = torch.get_rng_state()
    attach_lora(model, 2, seed=9)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_two_factors_count_twofold_at_any_rank() -> None:
    for rank in (1, 8):
        config = lora_config(rank)
        assert (config.r, config.lora_alpha / config.r, config.lora_dropout) == (rank, 2.0, 0.0)
