"""Ten architectures from disk: saved, loaded as a pair, adapted, merged; the same through every door."""

import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mneme.models.hooks import read_residuals
from mneme.models.pair import ModelPair, load_pair
from mneme.models.weights import weight_changes
from tests.conftest import word_tokenizer
from tests.models.architectures import SIZES, random_model

IDS = torch.arange(24).view(2, 12) * 5 % 64


@pytest.mark.parametrize("name", SIZES)
def test_a_lora_adapter_equals_its_merged_checkpoint(name: str, tmp_path: Path) -> None:
    base, adapter, merged = (tmp_path / kind for kind in ("base", "adapter", "merged"))
    model = random_model(name)
    model.save_pretrained(base)
    word_tokenizer(64).save_pretrained(base)
    model.name_or_path = str(base)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out")
        warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys")
        wrapped = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(adapter, save_embedding_layers=False)
    wrapped.merge_and_unload().save_pretrained(merged)

    switched = load_pair(base, adapter)
    assert switched.adapter
    assert switched.base_parts is not None
    two = load_pair(base, merged)
    for side in ("base", "tuned"):
        for layer in range(3):
            torch.testing.assert_close(
                residual(switched, side, layer), residual(two, side, layer), rtol=1e-4, atol=1e-3, msg=f"{side} {layer}"
            )
    assert not torch.allclose(residual(two, "base", 2), residual(two, "tuned", 2), atol=1e-2)
    from_factors, dense = weight_changes(switched), weight_changes(two)
    assert (from_factors.changed, from_factors.total) == (dense.changed, dense.total)
    assert from_factors.relative_change == pytest.approx(dense.relative_change, rel=1e-4)


def residual(pair: ModelPair, side: str, layer: int) -> torch.Tensor:
    with pair.using(side) as parts:
        return read_residuals(parts, IDS, [layer])[layer]
