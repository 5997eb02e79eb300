"""A LoRA layer whose sums are made inside the products is peft's."""

import copy

import torch
from torch import nn

from mneme.models.adapters import adapter_off
from mneme.models.fused import fuse_lora
from tests.conftest import tiny_llama
from tests.train.conftest import with_lora


def moved(model: nn.Module) -> nn.Module:
    """Away from B = 0, where half of the gradients are zero."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = torch.randn_like(weight) * 0.1
    return model


def gradients(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_loss_and_gradients_are_those_of_peft() -> None:
    model = moved(with_lora(tiny_llama()).double()).train()
    ids = torch.arange(3, 15).view(2, 6)
    expected, loss = gradients(model, ids), model(input_ids=ids, labels=ids).loss.detach()
    assert fuse_lora(model) > 0
    assert fuse_lora(model) == 0  # twice is once
    torch.testing.assert_close(model(input_ids=ids, labels=ids).loss.detach(), loss, rtol=1e-12, atol=0)
    found = gradients(model, ids)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


def test_a_copy_has_weights_of_its_own() -> None:
    model = moved(with_lora(tiny_llama()))
    fuse_lora(model)
    ids = torch.arange(3, 15).view(2, 6)
    other = copy.deepcopy(model)
    before = model(input_ids=ids).logits
    for weight in other.parameters():
        weight.data.zero_()
    assert torch.equal(model(input_ids=ids).logits, before)
    assert not torch.equal(other(input_ids=ids).logits, before)


def test_an_adapter_that_is_off_is_off_and_is_saved_as_before() -> None:
    model = moved(with_lora(tiny_llama()))
    ids = torch.arange(3, 15).view(2, 6)
    names = list(model.state_dict())
    with adapter_off(model):
        base = model(input_ids=ids).logits
    fuse_lora(model)
    with adapter_off(model):
        assert torch.equal(model(input_ids=ids).logits, base)
    assert not torch.equal(model(input_ids=ids).logits, base)
    assert list(model.state_dict()) == names


def test_dropout_and_other_dtypes_run_as_peft_runs_them() -> None:
    model = moved(with_lora(tiny_llama())).train()
    layer = next(module for module in model.modules() if hasattr(module, "lora_A") and module.lora_A)
    expected = type(layer).forward
    fuse_lora(model)
    layer.lora_dropout["default"] = nn.Dropout(0.5)
    x = torch.randn(2, 3, layer.in_features)
    torch.manual_seed(0)
    ours = layer(x)
    torch.manual_seed(0)
    assert torch.equal(ours, expected(layer, x))
