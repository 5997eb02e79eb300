"""Weight changes against values worked out by hand and against dense differences."""

import math
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from mneme.models.pair import load_pair
from mneme.models.weights import TensorChange, effective_rank, weight_changes
from tests.conftest import TinyPair, tiny_llama

NAME = "model.layers.0.mlp.up_proj.weight"


def test_effective_rank_of_equal_singular_values_is_their_number() -> None:
    assert effective_rank(torch.tensor([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3.0)
    assert effective_rank(torch.zeros(3)) == 0.0
    assert effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_identical_models_have_no_change(tiny_pair: TinyPair, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny_pair.base, tmp_path / "copy")
    for tuned in (tiny_pair.base, copied):
        found = weight_changes(load_pair(tiny_pair.base, tuned))
        assert (found.changed, found.relative_change, found.median_rank) == (0, 0.0, None)
        assert found.total == len(list(tiny_llama().parameters()))


def test_a_planted_rank_two_change(tiny_pair: TinyPair, tmp_path: Path) -> None:
    tuned = shutil.copytree(tiny_pair.base, tmp_path / "tuned")
    weights = load_file(tuned / "model.safetensors")
    before = weights[NAME].clone()
    delta = torch.zeros_like(before)
    delta[0, 0] = delta[1, 1] = 0.5
    weights[NAME] += delta
    save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
    found = weight_changes(load_pair(tiny_pair.base, tuned))
    [change] = [c for c in found.tensors if c.relative_change > 0]
    assert (change.name, change.shape, found.changed) == (NAME, (32, 16), 1)
    assert change.relative_change == pytest.approx(math.sqrt(0.5) / float(before.norm()), rel=1e-5)
    assert change.effective_rank == pytest.approx(2.0, abs=1e-3)
    assert found.median_rank == change.effective_rank
    whole = math.sqrt(sum(float(p.detach().norm()) ** 2 for p in tiny_llama().parameters()))
    assert found.relative_change == pytest.approx(math.sqrt(0.5) / whole, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"use_rslora": True}])
def test_an_adapter_changes_what_its_merged_model_changes(
    tiny_pair: TinyPair, tmp_path: Path, options: dict[str, object]
) -> None:
    model = tiny_llama()
    torch.manual_seed(1)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        wrapped: PeftModel = get_peft_model(model, config)
    if "modules_to_save" in options:
        wrapped.get_base_model().lm_head.modules_to_save["default"].weight.data += 0.1
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    pair = load_pair(tiny_pair.base, tmp_path / "adapter")
    state = {name: p.detach().clone() for name, p in pair.peft_model.named_parameters()}
    adapter = weight_changes(pair)
    assert all(torch.equal(p, state[name]) for name, p in pair.peft_model.named_parameters())
    merged = weight_changes(load_pair(tiny_pair.base, tmp_path / "merged"))
    assert (adapter.total, adapter.changed) == (merged.total, merged.changed)
    assert adapter.relative_change == pytest.approx(merged.relative_change, rel=1e-4)
    expected = {change.name: change for change in merged.tensors}
    for change in adapter.tensors:
        other: TensorChange = expected[change.name]
        assert change.shape == other.shape
        assert change.relative_change == pytest.approx(other.relative_change, rel=1e-4)
        assert (change.effective_rank is None) == (other.effective_rank is None)
        assert change.effective_rank is None or change.effective_rank == pytest.approx(other.effective_rank, rel=1e-2)
    if not options:
        assert max(change.effective_rank or 0 for change in adapter.tensors) <= 3.0 + 1e-6


def test_large_matrices_have_no_rank(tiny_pair: TinyPair) -> None:
    found = weight_changes(load_pair(tiny_pair.base, tiny_pair.tuned), rank_limit=8)
    assert found.changed == 1
    assert found.median_rank is None
