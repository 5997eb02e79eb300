"""A model is as it was afterwards, module by module and weight by weight, also where it broke in between."""

import pytest
import torch

from mneme.models.modes import evaluating
from tests.conftest import tiny_llama


def state(model: torch.nn.Module) -> tuple[list[bool], list[bool]]:
    return [module.training for module in model.modules()], [weight.requires_grad for weight in model.parameters()]


@pytest.mark.parametrize("frozen", [False, True])
def test_modes_come_back_one_by_one(frozen: bool) -> None:
    model = tiny_llama().train()
    model.model.layers[0].eval()
    model.lm_head.weight.requires_grad_(False)
    before = state(model)

    def look() -> None:
        with evaluating(model, frozen=frozen):
            assert not any(module.training for module in model.modules())
            assert any(weight.requires_grad for weight in model.parameters()) is not frozen
            raise KeyError

    with pytest.raises(KeyError):
        look()
    assert state(model) == before


def test_what_is_added_meanwhile_stays_as_it_is() -> None:
    model = tiny_llama().train()
    with evaluating(model, frozen=True):
        model.added = torch.nn.Linear(2, 2)
    assert model.added.training
    assert model.added.weight.requires_grad
