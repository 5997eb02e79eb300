import pytest
import torch

from mneme.dictionaries.crosscoder import Dictionary
from mneme.dictionaries.quality import choose_k, measure_quality
from mneme.errors import BadOption, EmptyMask

KS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


def change_dictionary(width: int = 2) -> Dictionary:
    """Codes +x of each axis above 0.5, exact."""
    eye = torch.eye(width)
    zero, one = torch.zeros(width), torch.ones(width)
    return Dictionary("change", eye, eye, zero, zero, 0.5, zero, one, 1.0, width, 0)


def test_quality_of_a_dictionary_worked_out_by_hand() -> None:
    # q = (1, 0), (-1, 0): mean 0, total 2; only the first is above the threshold, so 1 of 2 is left.
    q = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    quality = measure_quality(change_dictionary(), torch.zeros(2, 2), q)
    assert quality.unexplained_change == pytest.approx(0.5)
    assert (quality.l0, quality.dead_share, quality.n_tokens) == (0.5, 0.5, 2)


def test_a_change_that_is_one_vector_has_no_share_to_explain() -> None:
    with pytest.raises(EmptyMask, match="same vector on all 3"):
        measure_quality(change_dictionary(), torch.zeros(3, 2), torch.ones(3, 2))
    with pytest.raises(EmptyMask, match="0 held-out tokens"):
        measure_quality(change_dictionary(), torch.zeros(0, 2), torch.zeros(0, 2))


@pytest.mark.parametrize(
    ("shares", "k"),
    [
        ((0.638, 0.378, 0.055, 0.0, 0.0, 0.0, 0.0, 0.0), 0.05),  # planted, rate 0.06, clean
        ((0.811, 0.696, 0.542, 0.511, 0.507, 0.500, 0.478, 0.444), 0.05),  # the same with dense noise
        ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.0125),  # the elbow lies below the sweep
        (tuple(1 - 0.6 * k for k in KS), 1.6),  # every code explains the same: the elbow lies above the sweep
        (tuple(1 - 0.1 * k for k in KS), 0.0125),  # pure noise: no code is better than another
        ((1.01, 1.0, 1.02, 1.0, 1.03, 1.1, 1.2, 1.0), 0.0125),  # nothing is explained
    ],
)
def test_elbow(shares: tuple[float, ...], k: float) -> None:
    curve = list(zip(KS, shares, strict=True))
    assert choose_k(curve) == k
    assert choose_k(curve[::-1] + curve) == k


def test_elbow_of_one_point_and_of_nonsense() -> None:
    assert choose_k([(0.3, 0.9)]) == 0.3
    with pytest.raises(BadOption, match="empty sweep"):
        choose_k([])
    with pytest.raises(BadOption, match="positive k with a finite share"):
        choose_k([(0.1, float("nan"))])
