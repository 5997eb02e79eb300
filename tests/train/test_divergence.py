"""The gradients that are written out are those of autograd, in float64, and of both directions of KL at once."""

from collections.abc import Callable

import pytest
import torch

from mneme.train.divergence import Sloped, Softmaxed, kl_of_base, kl_of_tuned, nats_of, softmaxed
from mneme.train.penalties import kl_per_token

Made = Callable[[Softmaxed, torch.Tensor], Sloped]
CASES: dict[str, tuple[Made, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "tuned to base": (kl_of_tuned, lambda ours, theirs: kl_per_token(ours, theirs)),
    "base to tuned": (kl_of_base, lambda ours, theirs: kl_per_token(theirs, ours)),
    "cross-entropy": (
        lambda tuned, base: nats_of(tuned, base.argmin(-1)),
        lambda ours, theirs: torch.nn.functional.cross_entropy(ours, theirs.argmin(-1), reduction="none"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_autograd(name: str) -> None:
    by_hand, plain = CASES[name]
    torch.manual_seed(0)
    ours = (3 * torch.randn(6, 11, dtype=torch.float64)).requires_grad_()
    theirs = 3 * torch.randn(6, 11, dtype=torch.float64)
    kept = theirs.clone()
    expected = plain(ours, theirs)
    (gradient,) = torch.autograd.grad(expected.sum(), ours)
    found = by_hand(softmaxed(ours.detach()), theirs)
    torch.testing.assert_close(found.values, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.slope, gradient, rtol=1e-12, atol=1e-12)
    assert torch.equal(theirs, kept)  # the base's logits serve every penalty


def test_a_small_divergence_keeps_its_digits_in_float32() -> None:
    """Logits of size 20 that differ by a thousandth: KL about 1e-7, no difference of two large sums."""
    torch.manual_seed(0)
    theirs = 20 * torch.randn(4, 1000, dtype=torch.float64)
    ours = theirs + 1e-3 * torch.randn(4, 1000, dtype=torch.float64)
    exact = kl_of_tuned(softmaxed(ours), theirs).slope
    narrow = kl_of_tuned(softmaxed(ours.float()), theirs.float()).slope.double()
    assert float((narrow - exact).abs().max()) < 1e-5
