"""What a token gets in a forest is what it gets in its own sequence, or the model is not read so."""

import pytest
import torch

from mneme.models.architecture import find_parts
from mneme.models.forest import plant, read_forest, reads_forests
from mneme.models.hooks import read_residuals
from tests.models.architectures import SIZES, random_model

SEQUENCES = [[5, 6, 7, 8], [5, 6, 7, 9, 10], [5, 6, 11], [12, 13], [5, 6, 7, 8, 14]]


def test_beginnings_stand_once_by_hand() -> None:
    forest = plant(SEQUENCES)
    assert forest.ids.tolist() == [[5, 6, 7, 8, 14, 9, 10, 11, 12, 13]]
    assert forest.position.tolist() == [[0, 1, 2, 3, 4, 3, 4, 2, 0, 1]]
    assert [forest.ids[0, one].tolist() for one in forest.places] == SEQUENCES
    assert forest.sees[0, 6].nonzero().flatten().tolist() == [0, 1, 2, 5, 6]
    assert forest.sees[0, 9].nonzero().flatten().tolist() == [8, 9]


def test_a_full_row_begins_anew() -> None:
    forest = plant(SEQUENCES, row_tokens=6)
    assert [forest.ids[row, place].tolist() for row, place in zip(forest.row, forest.places, strict=True)] == SEQUENCES
    assert forest.ids.shape[1] <= 6
    assert len(forest.ids) > 1


@pytest.mark.parametrize("name", SIZES)
def test_every_architecture_is_read_alike_or_not_so(name: str) -> None:
    model = random_model(name).eval()
    parts = find_parts(model)
    alike = reads_forests(parts, SEQUENCES)
    assert alike or name not in {"llama", "qwen2", "mistral"}
    if not alike:
        return
    forest = plant(SEQUENCES)
    layer = len(parts.blocks) - 1
    found = read_forest(parts, forest, slice(None), layer)[0]
    for place, own in zip(forest.places, SEQUENCES, strict=True):
        alone = read_residuals(parts, torch.tensor([own]), [layer])[layer][0]
        torch.testing.assert_close(found[place], alone, rtol=1e-3, atol=1e-3)


def test_a_model_that_looks_past_the_mask_is_not_believed() -> None:
    parts = find_parts(random_model("llama").eval())
    forward = parts.decoder.forward
    parts.decoder.forward = lambda **given: forward(**(given | {"attention_mask": None}))  # type: ignore[method-assign]
    assert not reads_forests(parts, SEQUENCES)
