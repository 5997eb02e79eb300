"""Protected directions: what blocks write along them never changes, with any optimizer, and everything else still learns."""

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, Trainer
from trl import SFTTrainer

from mneme.errors import BadOption
from mneme.train.guarding import guard
from mneme.train.protecting import orthonormal, protected_weights
from tests import laws
from tests.conftest import tiny_llama
from tests.train.conftest import weights_after, with_lora

Build = Callable[..., Trainer]
VECTORS = torch.randn(2, 16, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_nothing_is_written_along_the_directions(trainer_of: Build, full: bool) -> None:
    model = tiny_llama() if full else with_lora(tiny_llama())
    before = {name: w.detach().clone() for name, w in model.named_parameters() if w.requires_grad}
    after = weights_after(trainer_of(guard(SFTTrainer, protect=VECTORS), model=model, weight_decay=0.1))
    writers = [n for n in after if ("o_proj" in n or "down_proj" in n) and "lora_A" not in n]
    assert len(writers) == 4
    for name in writers:
        change = after[name] - before[name]
        assert float(change.abs().max()) > 1e-3, name
        laws.planted(VECTORS @ change, torch.zeros(2, change.shape[1]), within=1e-5)
    free = next(n for n in after if "q_proj" in n and "lora_A" not in n)
    assert float((VECTORS @ (after[free] - before[free])).abs().max()) > 1e-3


def test_gradients_are_projected_before_clipping() -> None:
    model = tiny_llama().train()
    protected_weights(model, VECTORS)
    ids = torch.arange(8, 20)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    gradient = model.model.layers[0].mlp.down_proj.weight.grad
    assert gradient is not None
    laws.planted(VECTORS @ gradient, torch.zeros(2, gradient.shape[1]), within=1e-5)


def test_conv1d_weights_are_the_other_way_round() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32))
    found = protected_weights(model, VECTORS)
    assert [one.axis for one in found] == [1, 1, 1, 1]  # c_proj of attention and of the feed-forward part, twice
    model(input_ids=torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    gradient = model.transformer.h[0].mlp.c_proj.weight.grad
    laws.planted(gradient @ VECTORS.T, torch.zeros(gradient.shape[0], 2), within=1e-5)


def test_orthonormal_rows_span_the_same() -> None:
    rows = orthonormal(torch.cat([VECTORS, VECTORS.sum(0, keepdim=True)]))
    assert rows.shape == (2, 16)
    laws.planted(rows @ rows.T, torch.eye(2), within=1e-5)
    laws.planted(VECTORS @ rows.T @ rows, VECTORS, within=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_bad_directions_are_refused() -> None:
    with pytest.raises(BadOption, match="width 8, the model has 16"):
        protected_weights(tiny_llama(), torch.ones(1, 8))
    with pytest.raises(BadOption, match="all zero"):
        protected_weights(tiny_llama(), torch.zeros(1, 16))
    only_queries = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(BadOption, match="no trained weight writes to the residual stream"):
        protected_weights(only_queries.get_base_model(), VECTORS)
