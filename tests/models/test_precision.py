"""bfloat16 where it is fast, float32 where a difference is taken; the rounding that is left is measured, exactly."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from mneme.activations.harvest import harvest, rotate, rounding_share
from mneme.errors import BadOption
from mneme.models.hooks import in_float32, read_residuals
from mneme.models.pair import ModelPair, load_pair
from mneme.models.reading import _check_placed
from tests.conftest import tiny_llama, word_tokenizer

IDS = torch.arange(8, 8 + 4 * 24).view(4, 24) % 90
LAYERS = [0, 1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and the same with a small change in its first block, stored in bfloat16. The residual stream is much larger than
    what a block adds to it, as in deep models."""
    folder = tmp_path_factory.mktemp("narrow")
    model = tiny_llama(hidden_size=64, intermediate_size=128).to(torch.bfloat16)
    model.model.embed_tokens.weight.data *= 256
    for name in ("base", "tuned"):
        model.save_pretrained(folder / name)
        word_tokenizer().save_pretrained(folder / name)
        weight = model.model.layers[0].mlp.down_proj.weight
        generator = torch.Generator().manual_seed(3)
        weight.data += (0.02 * torch.randn(weight.shape, generator=generator)).to(torch.bfloat16)
    return folder / "base", folder / "tuned"


def changes(pair: ModelPair) -> dict[int, torch.Tensor]:
    [found] = harvest(pair, IDS, LAYERS, batch_rows=4)
    return found.q


def test_narrow_weights_and_a_float32_residual_stream(folders: tuple[Path, Path]) -> None:
    pair = load_pair(*folders, precision="bfloat16")
    assert {weight.dtype for weight in pair.base_parts.model.parameters()} == {torch.bfloat16}
    with pair.using("tuned") as parts:
        assert {h.dtype for h in read_residuals(parts, IDS, LAYERS).values()} == {torch.float32}


def test_float32_weights_stay_so(save_llama: Callable[..., Path]) -> None:
    """Rounding the weights could round a fine-tune away."""
    pair = load_pair(save_llama(0), save_llama(1), precision="bfloat16")
    assert {weight.dtype for weight in pair.tuned_parts.model.parameters()} == {torch.float32}


def test_equal_models_do_not_differ(folders: tuple[Path, Path], tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folders[0], dtype="auto").save_pretrained(tmp_path)
    for q in changes(load_pair(folders[0], tmp_path, precision="bfloat16")).values():
        assert torch.equal(q, torch.zeros_like(q))


def test_the_change_is_taken_before_rounding(folders: tuple[Path, Path]) -> None:
    """Rounding the two residual streams to bfloat16 first would make its error ten times as large."""
    true = changes(load_pair(*folders))
    found = changes(load_pair(*folders, precision="bfloat16"))
    both = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval() for folder in folders]
    with torch.no_grad():
        narrow = [model(IDS, output_hidden_states=True).hidden_states[1] for model in both]
    stored = rotate(*narrow)[1]
    assert (found[0] - true[0]).norm() < 0.1 * (stored - true[0]).norm()


def test_rounding_is_what_float32_says_otherwise(folders: tuple[Path, Path]) -> None:
    """Parity: weights of bfloat16 are exact in float32, so the pair loaded in float32 knows the answer."""
    pair = load_pair(*folders, precision="bfloat16")
    found, true = changes(pair), changes(load_pair(*folders))
    shares = rounding_share(pair, IDS, LAYERS)
    for layer in LAYERS:
        rounded, exact = (q[layer][:, 1:].flatten(0, 1).double() for q in (found, true))
        expected = (rounded - exact).square().sum() / (exact - exact.mean(0)).square().sum()
        assert shares[layer] == pytest.approx(float(expected), rel=1e-3)
        assert 1e-8 < shares[layer] < 0.1
    assert {weight.dtype for weight in pair.base_parts.model.parameters()} == {torch.bfloat16}


def test_float32_rounds_nothing(folders: tuple[Path, Path]) -> None:
    assert rounding_share(load_pair(*folders), IDS, LAYERS) == {0: 0.0, 1: 0.0}


def test_widened_weights_come_back_after_a_failure(folders: tuple[Path, Path]) -> None:
    parts = load_pair(*folders, precision="bfloat16").base_parts
    before = {name: weight.data_ptr() for name, weight in parts.model.named_parameters()}
    with pytest.raises(IndexError), in_float32(parts):
        parts.model(torch.full((1, 4), 10_000))
    assert {name: weight.data_ptr() for name, weight in parts.model.named_parameters()} == before


def test_attention_is_transformers_own_switch(folders: tuple[Path, Path]) -> None:
    pair = load_pair(*folders, attention="eager")
    assert pair.base_parts.model.config._attn_implementation == "eager"
    with pytest.raises(BadOption, match=r"--attention 'quick' cannot be used.*attn_implementation.*Give sdpa or eager"):
        load_pair(*folders, attention="quick")


def test_auto_is_the_cpu_where_there_is_no_gpu(folders: tuple[Path, Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    spread, plain = changes(load_pair(*folders, device="auto")), changes(load_pair(*folders))
    assert all(torch.equal(spread[layer], plain[layer]) for layer in LAYERS)


def test_parts_outside_the_gpus_are_refused() -> None:
    model = tiny_llama()
    model.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": "disk", "lm_head": "disk"}
    with pytest.raises(BadOption, match=r"2 of its 3 parts would lie outside them, first lm_head.*--precision bfloat16"):
        _check_placed(model, Path("big"))
