"""The parts of ten architectures, found by structure, against what transformers itself says."""

import pytest
import torch
from torch import nn

from mneme.errors import BadOption, UnsupportedArchitecture
from mneme.models.architecture import find_parts, lens
from mneme.models.hooks import add, read, read_residuals, replace, stop_after
from tests.models.architectures import SIZES, VOCAB, random_model

IDS = torch.arange(24).view(2, 12) * 5 % VOCAB
every_architecture = pytest.mark.parametrize("name", SIZES)


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@torch.no_grad()
@every_architecture
def test_reads_what_output_hidden_states_says(name: str) -> None:
    model = random_model(name)
    parts = find_parts(model)
    before = n_hooks(model)
    with read(parts, [0, 1, 2]) as found:
        out = model(input_ids=IDS, output_hidden_states=True, use_cache=False)
    assert torch.equal(found[0], out.hidden_states[1])
    assert torch.equal(found[1], out.hidden_states[2])
    torch.testing.assert_close(lens(parts, found[2].flatten(0, 1)), out.logits.flatten(0, 1), rtol=1e-5, atol=1e-5)
    assert n_hooks(model) == before


@torch.no_grad()
@every_architecture
def test_early_stop_changes_nothing(name: str) -> None:
    parts = find_parts(random_model(name))
    for layer in range(3):
        with read(parts, range(layer + 1)) as whole:
            logits = parts.model(input_ids=IDS, use_cache=False).logits
        stopped = read_residuals(parts, IDS, range(layer + 1))
        assert all(torch.equal(stopped[i], whole[i]) for i in range(layer + 1))
        after = parts.model(input_ids=IDS, use_cache=False, output_hidden_states=True)
        assert torch.equal(after.logits, logits)
        assert len(after.hidden_states) == 4


@torch.no_grad()
@every_architecture
def test_replace_and_add_reach_the_logits(name: str) -> None:
    parts = find_parts(random_model(name))
    plain = parts.model(input_ids=IDS, use_cache=False).logits
    with replace(parts, 1, lambda hidden: hidden):
        assert torch.equal(parts.model(input_ids=IDS, use_cache=False).logits, plain)
    with add(parts, 2, torch.zeros(16)):
        assert torch.equal(parts.model(input_ids=IDS, use_cache=False).logits, plain)
    vector = torch.linspace(-1, 1, 16)
    with read(parts, [2]) as found:
        parts.model(input_ids=IDS, use_cache=False)
    with add(parts, 2, vector):
        moved = parts.model(input_ids=IDS, use_cache=False).logits
    expected = lens(parts, (found[2] + vector).flatten(0, 1)).view_as(moved)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(parts.model(input_ids=IDS, use_cache=False).logits, plain)


def test_blocks_stopped_early_never_run() -> None:
    parts = find_parts(random_model("llama"))
    ran: list[int] = []
    for i, block in enumerate(parts.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    parts.head.register_forward_hook(lambda *_: ran.append(99))
    read_residuals(parts, IDS, [0, 1])
    assert ran == [0, 1]


def test_hooks_are_removed_when_the_model_fails() -> None:
    parts = find_parts(random_model("llama"))
    before = n_hooks(parts.model)
    with pytest.raises(RuntimeError, match="on purpose"), read(parts, [0]), stop_after(parts, 2), replace(parts, 1, fail):
        parts.model(input_ids=IDS)
    assert n_hooks(parts.model) == before


def fail(hidden: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("on purpose")


def test_unknown_layer_names_the_range() -> None:
    parts = find_parts(random_model("llama"))
    with (
        pytest.raises(BadOption, match=r"layer 3 does not exist: this model has 3 blocks. Give layers from 0 to 2"),
        read(parts, [0, 3]),
    ):
        pass


def test_soft_cap_and_scale_are_found() -> None:
    assert find_parts(random_model("gemma2")).logit_softcap == 3.0
    assert find_parts(random_model("cohere")).logit_scale == pytest.approx(0.25)
    assert find_parts(random_model("llama")).logit_softcap is None


def test_half_precision_is_proven_too() -> None:
    for name in ("llama", "gpt2", "gemma2", "cohere"):
        assert len(find_parts(random_model(name).bfloat16()).blocks) == 3


def test_a_head_that_does_something_else_is_refused() -> None:
    model = random_model("llama")
    model.lm_head.register_forward_hook(lambda _m, _a, logits: logits + torch.randn_like(logits))
    with pytest.raises(UnsupportedArchitecture, match="no final norm beside the blocks reproduces the model's logits"):
        find_parts(model)


def test_a_stack_of_another_length_is_refused() -> None:
    model = random_model("llama")
    model.config.num_hidden_layers = 2
    with pytest.raises(UnsupportedArchitecture, match="no stack of 2 blocks passes the proof"):
        find_parts(model)


def test_blocks_may_return_tuples() -> None:
    model = random_model("llama")

    class Older(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, *args: object, **kwargs: object) -> tuple[torch.Tensor, None]:
            return self.block(*args, **kwargs), None

    parts = find_parts(model)
    with torch.no_grad():
        plain = read_residuals(parts, IDS, [0])[0]
        parts.blocks[0] = Older(parts.blocks[0])
        parts.blocks[1].register_forward_pre_hook(lambda _m, args: (args[0][0], *args[1:]))
        assert torch.equal(read_residuals(parts, IDS, [0])[0], plain)
        with add(parts, 0, torch.ones(16)), read(parts, [1]) as found:
            model(input_ids=IDS, use_cache=False)
    assert found[1].shape == (2, 12, 16)
