"""The maps that write to the stream are those of each architecture's own code, and the proof is not by name."""

import pytest
import torch

from mneme.models.adapters import attach_lora
from mneme.models.architecture import find_parts
from mneme.models.writers import output_axis, residual_writers
from tests.conftest import tiny_llama
from tests.models.architectures import SIZES, random_model

WRITERS = {
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "phi": ("self_attn.dense", "mlp.fc2"),
    "opt": ("self_attn.out_proj", "fc2"),
    "mixtral": ("self_attn.o_proj",),  # its experts are fused tensors, no linear maps
}
"""As read in the code of transformers; all others: o_proj and down_proj."""


@pytest.mark.parametrize("name", SIZES)
def test_writers_of_every_architecture(name: str) -> None:
    parts = find_parts(random_model(name))
    ends = WRITERS.get(name, ("self_attn.o_proj", "mlp.down_proj"))
    stack = next(n for n, module in parts.model.named_modules() if module is parts.blocks)
    assert residual_writers(parts) == tuple(tuple(f"{stack}.{i}.{end}" for end in ends) for i in range(3))
    for writer in (parts.model.get_submodule(n) for block in residual_writers(parts) for n in block):
        assert writer.weight.shape[output_axis(writer)] == parts.width


def test_names_do_not_decide() -> None:
    model = tiny_llama()
    for block in model.model.layers:
        block.mlp.speaks = block.mlp.down_proj
        del block.mlp.down_proj
        block.mlp.forward = lambda x, m=block.mlp: m.speaks(m.act_fn(m.gate_proj(x)) * m.up_proj(x))
    writers = residual_writers(find_parts(model))
    assert [block[-1] for block in writers] == [f"model.layers.{i}.mlp.speaks" for i in (0, 1)]


def test_a_lora_writes_by_its_outer_factor() -> None:
    parts = find_parts(attach_lora(tiny_llama(), 2, seed=0).get_base_model())
    expected = tuple(
        f"model.layers.0.{end}.{factor}"
        for end in ("self_attn.o_proj", "mlp.down_proj")
        for factor in ("base_layer", "lora_B.default")
    )
    assert residual_writers(parts)[0] == expected


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_llama()
    parts, ids = find_parts(model), torch.arange(8, 20)[None]
    before = model(input_ids=ids).logits
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    residual_writers(parts)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()] == hooks
