"""Activation patching: the block that was changed is found, with as few patches as need be."""

import numpy as np
import pytest
import torch

from mneme.diff.patching import choose_layers, coarse_to_fine, patched_kl_share
from mneme.models.hooks import can_go_on, going_on, read_residuals, replace
from tests import laws
from tests.diff.pairs import changed_in_block, equal_pair, pair_of, random_rows


@pytest.mark.parametrize("block", [0, 1, 2])
def test_patching_finds_the_block_that_was_changed(block: int) -> None:
    shares = patched_kl_share(changed_in_block(block), random_rows(4), [0, 1, 2], batch_rows=3)
    laws.planted([shares[layer] for layer in range(3)], [float(layer >= block) for layer in range(3)], within=1e-5)
    assert choose_layers(shares) == [block]


def test_patching_of_equal_models_is_zero() -> None:
    laws.identity(patched_kl_share(equal_pair(), random_rows(4), [0, 1], batch_rows=3))


def test_a_change_of_the_head_alone_has_happened_nowhere() -> None:
    base = equal_pair().base_parts.model
    tuned = equal_pair().base_parts.model
    tuned.get_output_embeddings().weight.data[20] += 1.0
    laws.identity(patched_kl_share(pair_of(base, tuned), random_rows(4), [0, 1], batch_rows=3))  # type: ignore[arg-type]


def test_choose_layers_by_hand() -> None:
    assert choose_layers({0: 0.1, 1: 0.8, 2: 0.9, 3: 1.0}) == [1]
    assert choose_layers({0: 0.1, 1: 0.7, 2: 0.74, 3: 1.0}) == [3]
    assert choose_layers({0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}) == [1]
    assert choose_layers({0: 0.1, 1: 0.4, 2: 0.6}, enough=0.4) == [1]
    assert choose_layers({0: 1.0}) == [0]


@pytest.mark.parametrize("block", range(30))
def test_coarse_to_fine_finds_the_layer_that_all_layers_would_give(block: int) -> None:
    curve = {layer: float(np.clip((layer - block) / 4 + 0.75, 0, 1)) for layer in range(30)}
    asked: list[int] = []

    def measure(layers: list[int]) -> dict[int, float]:
        asked.extend(layers)
        return {layer: curve[layer] for layer in layers}

    found = coarse_to_fine(measure, 30)
    assert choose_layers(found) == choose_layers(curve) == [block]
    assert list(found) == sorted(found)
    assert len(asked) == len(set(asked)) <= 11


def test_coarse_to_fine_without_a_layer_that_reaches_it() -> None:
    found = coarse_to_fine(lambda layers: dict.fromkeys(layers, 0.1), 9)
    assert list(found) == [2, 5, 8]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_going_on_from_a_layer_is_replacing_its_stream(layer: int) -> None:
    parts, ids = changed_in_block(0).tuned_parts, random_rows(3)
    other = read_residuals(parts, ids.flip(1), [layer])[layer]
    with replace(parts, layer, lambda _: other):
        whole = read_residuals(parts, ids, [2])[2]
    assert can_go_on(parts, ids)
    with going_on(parts, layer, other, skip=True):
        part = read_residuals(parts, ids, [2])[2]
    assert torch.equal(part, whole)
    assert torch.equal(read_residuals(parts, ids, [2])[2], read_residuals(changed_in_block(0).tuned_parts, ids, [2])[2])


def test_a_model_whose_blocks_talk_beside_the_stream_is_told() -> None:
    """Block 2 adds what block 1 left for it: passing over block 1 would change what it says."""
    parts, left = changed_in_block(0).tuned_parts, []
    handles = [
        parts.blocks[1].register_forward_hook(lambda _m, _a, output: left.append(output * 2)),
        parts.blocks[2].register_forward_hook(lambda _m, _a, output: output + left[-1]),
    ]
    try:
        assert not can_go_on(parts, random_rows(1))
    finally:
        for handle in handles:
            handle.remove()
    assert can_go_on(parts, random_rows(1))
