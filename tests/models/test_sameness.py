"""An adapter against its merge, a checkpoint against the same in another format: the same to rounding, or where they part."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mneme.models.pair import load_pair
from mneme.models.sameness import coarsest_format, output_difference
from tests.conftest import tiny_llama, word_tokenizer
from tests.models.adapter_kinds import quiet_peft
from tests.models.test_pair import save_adapter


def saved(model: torch.nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    model.to(dtype).save_pretrained(folder)  # type: ignore[operator]
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_llama(), tmp_path_factory.mktemp("same") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of the base whose product is not 0."""
    return save_adapter(tmp_path_factory.mktemp("same") / "adapter", base)


def merged(base: Path, adapter: Path) -> torch.nn.Module:
    with quiet_peft():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")])
def test_an_adapter_and_its_merge_are_one_model(
    base: Path, adapter: Path, tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    seen = output_difference(load_pair(adapter, saved(merged(base, adapter), tmp_path / "merge", dtype), adapter_base=base))
    assert seen.same_to == name
    assert seen.kl < 1e-3


def test_a_merge_with_one_block_left_out_is_another_model(base: Path, adapter: Path, tmp_path: Path) -> None:
    model = merged(base, adapter)
    plain = AutoModelForCausalLM.from_pretrained(base)
    model.model.layers[1].load_state_dict(plain.model.layers[1].state_dict())
    seen = output_difference(load_pair(adapter, saved(model, tmp_path / "merge"), adapter_base=base))
    assert seen.same_to is None
    assert seen.first_layer == 1
    assert seen.relative > 1e-3
    assert seen.largest > 0


def test_a_checkpoint_in_another_format_is_the_same_and_a_step_of_training_in_one_is_not(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    half = saved(model, tmp_path / "half", torch.bfloat16)
    assert coarsest_format(half) == "BF16"
    assert output_difference(load_pair(base, half)).same_to == "bfloat16"
    with torch.no_grad():  # the next number of bfloat16: what one small step of training does
        weight = model.model.layers[0].self_attn.q_proj.weight
        weight.view(torch.int16)[0, :8] += 1
    stepped = saved(model, tmp_path / "stepped", torch.bfloat16)
    seen = output_difference(load_pair(half, stepped))
    assert seen.same_to is None
    assert output_difference(load_pair(half, half)).same_to == "bfloat16"


def test_quantized_weights_are_no_rounding(base: Path, tmp_path: Path) -> None:
    """int4 by hand, kept as floats: the weights lie far outside of what their format rounds off."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            scale = weight.abs().max() / 7
            weight.copy_((weight / scale).round() * scale)
    seen = output_difference(load_pair(base, saved(model, tmp_path / "int4", torch.bfloat16)))
    assert seen.same_to is None
    assert seen.first_layer == 0
