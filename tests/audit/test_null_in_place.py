"""A purposeless change is made in place, block by block, and is the one that whole copies would make."""

import pytest
import torch

from mneme.audit.null import shuffled_change
from mneme.models import slices
from mneme.models.matching import matched_tensors
from tests.diff.pairs import changed_in_block


def test_the_blocks_make_the_change_that_whole_copies_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_ELEMENTS", 37)
    pair = changed_in_block(1)
    generator = torch.Generator().manual_seed(5)
    wanted = {}
    for name, base, weight in matched_tensors(pair.base_parts, pair.tuned_parts):
        change = (weight - base).detach()
        for axis in range(change.ndim):
            change = change.index_select(axis, torch.randperm(change.shape[axis], generator=generator))
        wanted[name] = base + change
    shuffled_change(pair, 5)
    found = {name: weight for name, _, weight in matched_tensors(pair.base_parts, pair.tuned_parts)}
    assert any(not torch.equal(found[name], base) for name, base, _ in matched_tensors(pair.base_parts, pair.tuned_parts))
    for name, weight in found.items():
        assert torch.equal(weight, wanted[name]), name
