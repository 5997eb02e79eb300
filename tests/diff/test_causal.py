"""The causal check: a change planted along one direction is found causal, and nothing else is."""

import numpy as np
import pytest
import torch

from mneme.diff import causal
from mneme.diff.causal import (
    N_CONTROLS,
    CausalResult,
    ablation_kl,
    after_first_firing,
    before_ablation,
    check_latent,
    matched_directions,
)
from mneme.diff.survey import survey_rows
from mneme.errors import EmptyMask
from mneme.models.hooks import read_residuals
from mneme.models.pair import ModelPair
from mneme.stats import benjamini_hochberg
from tests import laws
from tests.conftest import tiny_llama
from tests.diff.pairs import SEQ, changed_in_block, equal_pair, pair_of, random_rows

LAYER = 0
PASSAGE = np.arange(12)[:, None] * 2 + (np.arange(SEQ) >= SEQ // 2)


def planted_pair() -> ModelPair:
    """One unit of block 0 writes one more direction in the tuned model.

    The unit's two input rows are equal, so that its activation is z^2 sigmoid(z) >= 0: the change is a latent with a
    non-negative code, exactly along one direction.
    """
    base, tuned = tiny_llama(), tiny_llama()
    generator = torch.Generator().manual_seed(5)
    row, direction = 0.3 * torch.randn(16, generator=generator), 0.3 * torch.randn(16, generator=generator)
    for model in (base, tuned):
        mlp = model.model.layers[LAYER].mlp
        mlp.gate_proj.weight.data[0] = row
        mlp.up_proj.weight.data[0] = row
    tuned.model.layers[LAYER].mlp.down_proj.weight.data[:, 0] += direction
    return pair_of(base, tuned)


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return planted_pair()


def code_and_direction(pair: ModelPair, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the planted unit does: its code at every token (float32, never negative) and the unit direction of the change."""
    with pair.using("base") as parts:
        base = read_residuals(parts, ids, [LAYER])[LAYER]
    with pair.using("tuned") as parts:
        change = read_residuals(parts, ids, [LAYER])[LAYER] - base
    direction = change.flatten(0, 1)[change.flatten(0, 1).norm(dim=1).argmax()]
    direction = direction / direction.norm()
    return (change @ direction).clamp_min(0.0), direction


def random_latents(n: int = 8) -> torch.Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(9))


def check(pair: ModelPair, code: torch.Tensor, direction: torch.Tensor, seed: int = 0) -> CausalResult:
    return check_latent(pair, random_rows(), PASSAGE, LAYER, code, direction, random_latents(), seed=seed)


def test_planted_latent_carries_all_of_the_change(pair: ModelPair) -> None:
    code, direction = code_and_direction(pair, random_rows())
    result = check(pair, code, direction)
    laws.planted(result.share.value, 1.0, within=1e-3)
    assert result.share.low > 0.99
    assert result.share.n == 24
    assert result.p_value < 1e-4


def test_planted_latent_that_fires_on_some_tokens_only(pair: ModelPair) -> None:
    """Its weak half is left standing, so some of the change is too; it still beats its controls."""
    code, direction = code_and_direction(pair, random_rows())
    strong = torch.where(code > code.median(), code, torch.zeros_like(code))
    result = check(pair, strong, direction)
    assert 0.5 < result.share.value < 0.9999
    assert result.p_value < 1e-3


def test_random_latents_are_not_causal_after_correction(pair: ModelPair) -> None:
    code, direction = code_and_direction(pair, random_rows())
    random = random_latents(6)
    orthogonal = random - (random @ direction)[:, None] * direction
    results = [check(pair, code, direction)]
    results += [check(pair, code.roll(7 * (i + 1), dims=1), other, seed=i) for i, other in enumerate(orthogonal)]
    q_values = benjamini_hochberg(np.array([result.p_value for result in results]))
    assert q_values[0] < 0.05
    assert (q_values[1:] > 0.05).all()
    assert max(result.share.value for result in results[1:]) < 0.3


def test_zero_strength_leaves_the_tuned_model_as_it_is(pair: ModelPair) -> None:
    ids = random_rows()
    plain = survey_rows(pair, ids, batch_rows=len(ids)).kl_tuned_to_base
    every = np.ones((12, SEQ - 1), dtype=bool)
    as_it_is, left = ablation_kl(pair, before_ablation(pair, ids, LAYER), LAYER, [torch.zeros(12, SEQ, 16)], every)
    laws.zero_strength(plain.reshape(-1), as_it_is)
    laws.zero_strength(plain.reshape(-1), left)


def test_several_in_one_batch_are_as_one_at_a_time(pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random_rows()
    before = before_ablation(pair, ids, LAYER)
    removed = list(torch.randn(5, 12, SEQ, 16, generator=torch.Generator().manual_seed(2)))
    every = np.ones((12, SEQ - 1), dtype=bool)
    together = ablation_kl(pair, before, LAYER, removed, every)
    for tokens in (1, 2 * ids.numel()):  # one at a time; two, two and one
        monkeypatch.setattr(causal, "_TOKENS_AT_ONCE", tokens)
        np.testing.assert_allclose(ablation_kl(pair, before, LAYER, removed, every), together, atol=1e-5)
    assert not np.allclose(together[1], together[2], atol=1e-3)


def test_determinism(pair: ModelPair) -> None:
    code, direction = code_and_direction(pair, random_rows())
    laws.determinism(lambda: check(pair, code, direction, seed=4))


def test_a_latent_that_never_fires_has_no_share() -> None:
    with pytest.raises(EmptyMask, match="fires nowhere in these rows: expected rows in which its code is above 0"):
        check(changed_in_block(0), torch.zeros(12, SEQ), torch.ones(16))


def test_models_that_say_the_same_leave_nothing_to_take_away() -> None:
    with pytest.raises(EmptyMask, match="over no tokens has no value"):
        check(equal_pair(), torch.ones(12, SEQ), torch.ones(16))


def test_less_harm_than_the_controls_is_not_causal(pair: ModelPair) -> None:
    """A tiny part of the change, the wrong way round: KL grows, though less than it does under random controls."""
    code, direction = code_and_direction(pair, random_rows())
    result = check(pair, code, -0.3 * direction)
    assert result.share.high < 0
    assert result.p_value > 0.5


def test_only_passages_where_it_fires_are_counted(pair: ModelPair) -> None:
    code, direction = code_and_direction(pair, random_rows())
    code[3:] = 0.0
    code[:, SEQ // 2 :] = 0.0
    assert check(pair, code, direction).share.n == 3


# --- controls -------------------------------------------------------------------------------------------------------------


def test_controls_take_away_as_much_as_the_latent() -> None:
    own, others = torch.full((16,), 0.5), random_latents(5)
    controls = matched_directions(own, others, seed=1)
    assert controls.shape == (N_CONTROLS, 16)
    laws.planted(controls.norm(dim=1), torch.full((N_CONTROLS,), 2.0), within=1e-5)
    likeness = torch.nn.functional.cosine_similarity(controls[:, None], others[None], dim=-1)
    of_others = (likeness > 0.9999).any(dim=1)
    assert of_others.sum() == N_CONTROLS // 2


def test_controls_are_random_where_there_are_too_few_other_latents() -> None:
    controls = matched_directions(torch.ones(16), random_latents(1), seed=1)
    laws.planted(controls.norm(dim=1), torch.full((N_CONTROLS,), 4.0), within=1e-5)
    laws.determinism(lambda: matched_directions(torch.ones(16), torch.zeros(0, 16), seed=1))
    assert not torch.equal(controls, matched_directions(torch.ones(16), random_latents(1), seed=2))


# --- which predictions count ----------------------------------------------------------------------------------------------


def test_after_first_firing_by_hand() -> None:
    passage = np.array([[0, 0, 0, 1, 1, 1, 2, 2], [2, 2, 3, 3, 3, 3, 4, 4]])
    fires = np.zeros((2, 8), dtype=bool)
    fires[0, [1, 5]] = True
    fires[1, [1, 2, 4]] = True
    expected = np.array([[0, 1, 1, 0, 0, 1, 0, 0], [0, 1, 1, 1, 1, 1, 0, 0]], dtype=bool)
    assert np.array_equal(after_first_firing(fires, passage), expected)
    assert not after_first_firing(np.zeros_like(fires), passage).any()


# --- the test -------------------------------------------------------------------------------------------------------------


def test_few_passages_are_no_evidence(pair: ModelPair) -> None:
    """On three passages nothing is claimed, however large the share: the whole range, and p 1 (the test needs 8)."""
    code, direction = code_and_direction(pair, random_rows())
    code[3:] = 0.0
    found = check(pair, code, direction)
    assert (found.share.low, found.share.high, found.p_value) == (-1.0, max(1.0, found.share.value), 1.0)
