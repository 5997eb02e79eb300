"""The rules on the change of one linear map: by hand, by law, planted."""

import numpy as np
import pytest
import torch

from mneme.errors import BadOption, SingularHessian
from mneme.repair.ablation import ablate
from mneme.repair.antidote import antidote
from mneme.repair.arithmetic import arithmetic, dare
from mneme.repair.controls import random_mask, scale
from mneme.repair.obs import inverse_factor, largest, obs
from mneme.repair.projection import alignment_projector, likeness, project
from mneme.repair.regmean import regmean
from mneme.repair.wanda_delta import wanda_delta
from tests import laws


def drawn(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gram(seed: int, width: int, tokens: int = 200) -> torch.Tensor:
    """Mean outer product of correlated random inputs."""
    x = drawn(seed, tokens, width) @ drawn(seed + 100, width, width)
    return x.T @ x / tokens


DELTA = drawn(0, 6, 8)
TARGET, RETAIN = gram(1, 8), gram(2, 8)
TO_BASE = {
    "scale": lambda s: scale(DELTA, s),
    "random": lambda s: random_mask(DELTA, s, seed=0),
    "antidote": lambda s: antidote(DELTA, TARGET.diagonal(), s),
    "wanda-delta": lambda s: wanda_delta(DELTA, TARGET.diagonal(), RETAIN.diagonal(), s),
    "regmean": lambda s: regmean(DELTA, TARGET, RETAIN, s),
    "obs": lambda s: obs(DELTA, TARGET, RETAIN, s),
}


@pytest.mark.parametrize("name", TO_BASE)
def test_strength_0_is_tuned_and_1_is_base(name: str) -> None:
    laws.zero_strength(DELTA, TO_BASE[name](0.0))
    laws.identity(TO_BASE[name](1.0))


@pytest.mark.parametrize("name", TO_BASE)
def test_no_change_stays_none(name: str) -> None:
    rules = {
        "scale": lambda z: scale(z, 0.3),
        "random": lambda z: random_mask(z, 0.3, seed=0),
        "antidote": lambda z: antidote(z, TARGET.diagonal(), 0.3),
        "wanda-delta": lambda z: wanda_delta(z, TARGET.diagonal(), RETAIN.diagonal(), 0.3),
        "regmean": lambda z: regmean(z, TARGET, RETAIN, 0.3),
        "obs": lambda z: obs(z, TARGET, RETAIN, 0.3),
    }
    laws.identity(rules[name](torch.zeros(6, 8)))


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_outside_0_to_1_is_refused(strength: float) -> None:
    with pytest.raises(BadOption, match="outside 0 to 1: 0 keeps the tuned model"):
        scale(DELTA, strength)


def test_antidote_prunes_what_the_published_rule_prunes() -> None:
    """|W| sqrt(a) with a = (4, 1, 9): row 0 scores (6, 5, 3), row 1 (2, 4, 12); int(3 * 0.7) = 2 and int(3 * 0.6) = 1 stay."""
    weight = torch.tensor([[3.0, -5.0, 1.0], [1.0, 4.0, -4.0]])
    one_goes = [[0.0, -5.0, 1.0], [1.0, 4.0, 0.0]]
    assert antidote(weight, torch.tensor([4.0, 1.0, 9.0]), 0.3).tolist() == one_goes
    assert antidote(weight, torch.tensor([4.0, 1.0, 9.0]), 1e-5).tolist() == one_goes
    assert antidote(weight, torch.tensor([4.0, 1.0, 9.0]), 0.4).tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_antidote_on_lora_factors_prunes_each_on_its_own_input() -> None:
    """lora_A (2 x 3) by the layer's inputs, lora_B (2 x 2) by what lora_A makes of them: z = A x over two tokens."""
    x = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]])
    down, up = torch.tensor([[1.0, 0.0, 0.1], [0.0, 3.0, 1.0]]), torch.tensor([[1.0, 1.0], [10.0, 1.0]])
    z = x @ down.T  # (1.2, 2), (0.2, 5)
    pruned_down = antidote(down, x.square().mean(0), 0.3)
    assert pruned_down.tolist() == [[0.0, 0.0, pytest.approx(0.1)], [0.0, 0.0, 1.0]]
    # B: column norms sqrt(0.74) = 0.86 and sqrt(14.5) = 3.81; row 0 loses its second weight, row 1 its first.
    assert antidote(up, z.square().mean(0), 0.5).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_wanda_delta_takes_what_the_target_uses_and_the_retained_text_does_not() -> None:
    delta = torch.ones(2, 4)
    masked = wanda_delta(delta, torch.tensor([9.0, 9.0, 1.0, 1.0]), torch.tensor([1.0, 9.0, 1.0, 9.0]), 0.25)
    assert masked.tolist() == [[0.0, 1.0, 1.0, 1.0]] * 2


def test_random_mask_removes_the_share_of_energy() -> None:
    delta = drawn(3, 50, 40)
    for share in (0.1, 0.5, 0.9):
        left = random_mask(delta, share, seed=1)
        assert 1 - float(left.square().sum() / delta.square().sum()) == pytest.approx(share, abs=0.005)
        assert torch.equal(left[left != 0], delta[left != 0])
    laws.determinism(lambda: random_mask(delta, 0.4, seed=2))


def test_regmean_solves_its_regression() -> None:
    """The gradient of (1 - s) tr (D - dW) H_r (D - dW)' + s tr D H_t D' is zero at the result (no damping)."""
    s = 0.3
    found = regmean(DELTA.double(), TARGET.double(), RETAIN.double(), s, damping=0.0)
    gradient = (1 - s) * (found - DELTA.double()) @ RETAIN.double() + s * found @ TARGET.double()
    assert float(gradient.abs().max()) < 1e-5 * float((DELTA.double() @ RETAIN.double()).abs().max())


def test_regmean_keeps_what_only_the_retained_text_uses() -> None:
    """Planted: target and retained inputs are orthogonal. The change is undone on the one and kept on the other, exactly."""
    delta, basis = drawn(4, 5, 6), torch.linalg.qr(drawn(5, 6, 6)).Q
    target, retain = basis[:, :3] @ basis[:, :3].T, basis[:, 3:] @ basis[:, 3:].T
    found = regmean(delta, target, retain, 0.5, damping=1e-6)
    assert float((found @ basis[:, :3]).abs().max()) < 1e-4
    assert torch.allclose(found @ basis[:, 3:], delta @ basis[:, 3:], atol=1e-4)
    low_rank = torch.outer(drawn(6, 5), drawn(7, 6))
    assert int(torch.linalg.matrix_rank(regmean(low_rank, TARGET[:6, :6], RETAIN[:6, :6], 0.5), tol=1e-4)) == 1


def test_obs_passes_a_dropped_entry_on_as_the_brain_surgeon_does() -> None:
    """One entry dropped: the rest is dW - dW_m / [H^-1]_mm H^-1[m, :] on the columns to its right, those left of it stay."""
    delta = torch.tensor([[0.01, 2.0, 1.0]])
    retain = torch.tensor([[2.0, 0.5, 0.3], [0.5, 1.0, 0.4], [0.3, 0.4, 1.5]])
    target = torch.diag(torch.tensor([0.0, 100.0, 0.0]))
    found = obs(delta, target, retain, 1 / 3, damping=0.0)
    # With column 0 behind, the Hessian that is left is that of columns 1 and 2 alone.
    inverse = torch.linalg.inv(retain[1:, 1:])
    expected = torch.tensor([[0.01, 0.0, 1.0 - 2.0 / float(inverse[0, 0]) * float(inverse[0, 1])]])
    assert torch.allclose(found, expected, atol=1e-5)


def test_obs_compensation_costs_less_on_retained_text_than_dropping_alone() -> None:
    delta, target, retain = drawn(8, 20, 300), gram(9, 300, 900), gram(10, 300, 900)
    found = obs(delta, target, retain, 0.4)
    dropped = torch.where(found == 0, 0.0, delta)

    def loss(change: torch.Tensor) -> float:
        return float((((change - delta) @ retain) * (change - delta)).sum())

    assert int((found == 0).sum()) == round(0.4 * delta.numel())
    assert loss(found) < 0.8 * loss(dropped)


def test_inverse_factor_is_a_factor_of_the_inverse() -> None:
    factor = inverse_factor(RETAIN, 0.0)
    assert torch.allclose(factor.T @ factor @ RETAIN, torch.eye(8), atol=1e-3)
    assert torch.equal(factor, factor.triu())


def test_a_singular_hessian_is_an_error() -> None:
    flat = torch.zeros(8, 8)
    flat[0, 0] = 1.0
    with pytest.raises(
        SingularHessian, match=r"span too few of its 8 directions.*Give more retained text, or a damping above 0"
    ):
        obs(DELTA, TARGET, flat, 0.5, damping=0.0)
    with pytest.raises(SingularHessian, match="Give more text, or a damping above 0"):
        regmean(DELTA, flat, flat, 0.5, damping=0.0)


def test_safe_lora_projector_is_one_and_the_published_matrix_is_not() -> None:
    alignment = torch.outer(drawn(11, 6), drawn(12, 8)) * 5
    projector = alignment_projector(alignment)
    assert torch.allclose(projector @ projector, projector, atol=1e-5)
    along, across = alignment * 0.3, drawn(13, 6, 8)
    assert torch.allclose(project(along, projector), along, atol=1e-4)
    assert likeness(projector, along) == pytest.approx(1.0, abs=1e-5)
    assert likeness(projector, across) < 0.9
    published = alignment_projector(alignment, "published")
    assert torch.allclose(published, alignment @ alignment.T / alignment.norm(), atol=1e-4)
    assert not torch.allclose(published @ published, published, atol=1e-2)


def test_arithmetic_adds_and_dare_keeps_the_expectation() -> None:
    laws.zero_strength(DELTA, arithmetic(DELTA, drawn(14, 6, 8), 0.0))
    laws.zero_strength(DELTA, dare(DELTA, 0.0, seed=0))
    thinned = [dare(torch.ones(40, 50), 0.3, seed=seed).mean() for seed in range(20)]
    assert float(np.mean(thinned)) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(BadOption, match="leaves nothing to rescale"):
        dare(DELTA, 1.0, seed=0)


def test_ablate_leaves_nothing_along_the_directions() -> None:
    directions = torch.stack([drawn(15, 6), drawn(16, 6), torch.zeros(6)])
    laws.zero_strength(DELTA, ablate(DELTA, directions, 0.0))
    assert float((directions @ ablate(DELTA, directions, 1.0)).abs().max()) < 1e-5
    half = ablate(DELTA, directions, 0.5)
    assert torch.allclose(directions @ half, 0.5 * directions @ DELTA, atol=1e-5)


def test_largest_by_hand_and_as_topk() -> None:
    """Of equal entries the first ones; zeros of either sign are equal; infinities have a place."""
    values = torch.tensor([[0.0, -2.0, 3.0], [3.0, -0.0, float("-inf")]])
    assert largest(values, 3).tolist() == [[True, False, True], [True, False, False]]
    assert largest(values, 1).tolist() == [[False, False, True], [False, False, False]]
    assert [int(largest(values, count).sum()) for count in range(7)] == list(range(7))
    many = torch.randn(50, 70, generator=torch.Generator().manual_seed(0)) * 1e-3
    for count in (1, 1234, 3499):
        expected = torch.zeros(3500, dtype=torch.bool)
        expected[many.flatten().topk(count).indices] = True
        assert torch.equal(largest(many, count).flatten(), expected)
