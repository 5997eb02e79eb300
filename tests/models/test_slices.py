"""What is computed in slices is what is computed at once."""

import pytest
import torch

from mneme.models import slices
from mneme.models.slices import blocks_along, flat_slices, frobenius


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven elements a slice."""
    monkeypatch.setattr(slices, "_ELEMENTS", 7)


@pytest.mark.parametrize("shape", [(3,), (5, 4), (2, 3, 5), (1, 30), ()])
def test_slices_hold_every_element_once_and_in_order(shape: tuple[int, ...]) -> None:
    one = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = list(flat_slices(one, 2 * one))
    assert torch.equal(torch.cat([first for first, _ in found]), one.reshape(-1))
    assert all(torch.equal(2 * first, second) and first.numel() <= 7 for first, second in found)
    assert frobenius(one) == pytest.approx(float(one.double().norm()), rel=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_are_views_that_make_up_the_whole(axis: int) -> None:
    whole = torch.arange(24.0).view(6, 4)
    parts = list(blocks_along(whole, axis))
    assert len(parts) > 1
    assert torch.equal(torch.cat(parts, dim=axis), whole)
    parts[0].zero_()
    assert float(whole.sum()) < 276.0  # 276: what 0 to 23 sum to
