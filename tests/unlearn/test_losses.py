"""The losses by hand, and the laws they claim."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from mneme.errors import EmptyMask
from mneme.unlearn import losses
from tests import laws

NLL = torch.tensor([[1.0, 2.0, 3.0], [4.0, 7.0, 9.0]])
TEXT = torch.tensor([[True, True, True], [True, False, False]])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_means_are_over_text_alone() -> None:
    assert losses.likelihood_loss(NLL, TEXT).item() == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert losses.ascent_loss(NLL, TEXT).item() == pytest.approx(-(1 + 2 + 3 + 4) / 4)


def test_documents_are_summed_and_counted() -> None:
    total, count = losses.document_nll(NLL, TEXT)
    assert total.tolist() == [6.0, 4.0]
    assert count.tolist() == [3.0, 1.0]
    with pytest.raises(EmptyMask, match="at least two tokens a document"):
        losses.document_nll(NLL, torch.zeros_like(TEXT))


def test_npo_by_hand() -> None:
    tuned, reference = torch.tensor([6.0, 4.0]), torch.tensor([5.0, 4.5])
    by_hand = -(2 / 0.5) * (math.log(sigmoid(0.5 * 1.0)) + math.log(sigmoid(0.5 * -0.5))) / 2
    assert losses.npo_loss(tuned, reference, 0.5).item() == pytest.approx(by_hand)
    assert losses.npo_loss(tuned, tuned, 0.1).item() == pytest.approx(2 / 0.1 * math.log(2))


def test_npo_pushes_like_ascent_less_what_is_already_gone() -> None:
    """Zhang et al. 2024, eq. 4: the gradient is that of ascent times 2 sigmoid(-beta (NLL - NLL_ref))."""
    tuned = torch.tensor([6.0, 40.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.npo_loss(tuned, torch.tensor([6.0, 4.0]), 0.1), tuned)
    assert gradient.tolist() == pytest.approx([-1.0 / 2, -2 * sigmoid(-3.6) / 2])
    (limit,) = torch.autograd.grad(losses.npo_loss(tuned, torch.tensor([6.0, 4.0]), 1e-6), tuned)
    assert limit.tolist() == pytest.approx([-0.5, -0.5], abs=1e-4)


def test_simnpo_by_hand() -> None:
    by_hand = -(2 / 4.5) * (math.log(sigmoid(4.5 * (2.0 - 0.5))) + math.log(sigmoid(4.5 * (0.1 - 0.5)))) / 2
    assert losses.simnpo_loss(torch.tensor([2.0, 0.1]), 4.5, 0.5).item() == pytest.approx(by_hand, rel=1e-5)


def test_undial_by_hand() -> None:
    """Base logits (0, 0), the true token lowered by log 3: the target is (1/4, 3/4)."""
    tuned, ids = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    p = math.e / (math.e + 1)
    by_hand = -(0.25 * math.log(p) + 0.75 * math.log(1 - p))
    assert losses.undial_loss(tuned, torch.zeros(1, 2), ids, math.log(3)).item() == pytest.approx(by_hand, rel=1e-5)


def test_undial_at_strength_0_pushes_nothing() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    tuned = logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.undial_loss(tuned, logits, torch.arange(5), 0.0), tuned)
    assert gradient.abs().max().item() < 1e-7


def test_undial_far_down_is_never_the_true_token() -> None:
    tuned = torch.tensor([[3.0, 1.0, 0.0]])
    rest = cross_entropy(tuned, torch.tensor([[0.0, 0.5, 0.5]])).item()
    assert losses.undial_loss(tuned, torch.zeros(1, 3), torch.tensor([0]), 1e4).item() == pytest.approx(rest)


def test_control_vectors_are_one_for_each_layer() -> None:
    first, second = (losses.control_vector(64, layer, 3.0, seed=5) for layer in (1, 2))
    assert first.norm().item() == pytest.approx(3.0)
    assert bool((first >= 0).all())
    assert torch.nn.functional.cosine_similarity(first, second, dim=0).item() < 0.95
    laws.determinism(lambda: losses.control_vector(64, 1, 3.0, seed=5))


def test_distances_of_the_stream_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 0.0], [50.0, 50.0]]])
    text = torch.tensor([[True, True], [True, False]])
    control = torch.tensor([1.0, 0.0])
    # Squared, per entry: (0 + 9)/2, (1 + 0)/2, (1 + 0)/2 over three tokens.
    assert losses.misdirection_loss(hidden, control, text).item() == pytest.approx((4.5 + 0.5 + 0.5) / 3)
    assert losses.stillness_loss(hidden, torch.zeros_like(hidden), text).item() == pytest.approx((5.0 + 0.0 + 2.0) / 3)
    laws.identity(losses.stillness_loss(hidden, hidden, text))


def test_divergence_by_hand_and_without_padding() -> None:
    base = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])
    tuned = torch.zeros(1, 2, 2)
    by_hand = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    only_first = torch.tensor([[True, False]])
    assert losses.divergence_loss(tuned[only_first], base[only_first]).item() == pytest.approx(by_hand)
    assert losses.divergence_loss(tuned[0], base[0]).item() == pytest.approx(by_hand / 2)
    laws.identity(losses.divergence_loss(base[0], base[0]))


@pytest.mark.parametrize(
    "name", ["likelihood", "ascent", "npo", "simnpo", "undial", "misdirection", "stillness", "divergence"]
)
def test_padding_changes_nothing(name: str) -> None:
    """Four more places a row, filled with NaN where the loss may not look and with noise where a model writes it."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 5, (2, 3), generator=generator)
    logits, other = (torch.randn(2, 3, 5, generator=generator) for _ in range(2))

    def loss(ids: torch.Tensor, logits: torch.Tensor, other: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        nll = cross_entropy(logits.transpose(1, 2), ids, reduction="none")
        total, count = losses.document_nll(nll, text)
        by_name = {
            "likelihood": lambda: losses.likelihood_loss(nll, text),
            "ascent": lambda: losses.ascent_loss(nll, text),
            "npo": lambda: losses.npo_loss(total, torch.tensor([3.0, 1.0]), 0.1),
            "simnpo": lambda: losses.simnpo_loss(total / count, 4.5),
            "undial": lambda: losses.undial_loss(logits[text], other[text], ids[text], 10.0),
            "misdirection": lambda: losses.misdirection_loss(logits, torch.ones(5), text),
            "stillness": lambda: losses.stillness_loss(logits, other, text),
            "divergence": lambda: losses.divergence_loss(logits[text], other[text]),
        }
        return by_name[name]()

    short = loss(ids, logits, other, TEXT)
    long_text = torch.cat([TEXT, torch.zeros(2, 4, dtype=torch.bool)], dim=1)
    noise = torch.full((2, 4, 5), 1e4)
    long_ids = torch.cat([ids, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    laws.padding(short, loss(long_ids, torch.cat([logits, noise], 1), torch.cat([other, -noise], 1), long_text))
