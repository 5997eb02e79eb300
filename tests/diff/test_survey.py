"""The survey: laws, and every column against what transformers itself says."""

import numpy as np
import pytest
import torch

from mneme.diff.survey import Patching, SurveyColumns, choose_layers, survey_rows
from mneme.models.pair import ModelPair
from tests import laws
from tests.diff.pairs import changed_in_block, equal_pair, pair_of, random_rows, swapped


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return changed_in_block(1)


@pytest.fixture(scope="module")
def columns(pair: ModelPair) -> SurveyColumns:
    return survey_rows(pair, random_rows(), batch_rows=5)


def differences(seen: SurveyColumns) -> dict[str, np.ndarray]:
    """Everything in a survey that says how the two models differ."""
    return {
        "logp": seen.logp_tuned - seen.logp_base,
        "right": seen.right_tuned != seen.right_base,
        "choice": seen.choice_tuned - seen.choice_base,
        "kl_tuned_to_base": seen.kl_tuned_to_base,
        "kl_base_to_tuned": seen.kl_base_to_tuned,
        "relative_change": seen.relative_change,
        "mean_gain": seen.mean_gain,
    }


def test_identity() -> None:
    laws.identity(differences(survey_rows(equal_pair(), random_rows(), batch_rows=4)))


def test_padding_batches_do_not_matter(pair: ModelPair, columns: SurveyColumns) -> None:
    for batch_rows in (1, 12, 100):
        laws.padding(survey_rows(pair, random_rows(), batch_rows=batch_rows), columns)


def test_padding_order_of_rows_does_not_matter(pair: ModelPair, columns: SurveyColumns) -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    mixed = survey_rows(pair, random_rows()[order], batch_rows=5)
    rows = [column[order.numpy()] for column in columns[:-1]]
    laws.padding(list(mixed[:-1]), rows)
    laws.padding(mixed.mean_gain, columns.mean_gain)


def test_antisymmetry(pair: ModelPair, columns: SurveyColumns) -> None:
    back = survey_rows(swapped(pair), random_rows(), batch_rows=5)
    laws.antisymmetry(columns.logp_tuned - columns.logp_base, back.logp_tuned - back.logp_base)
    laws.antisymmetry(columns.mean_gain, back.mean_gain)
    assert np.array_equal(columns.kl_tuned_to_base, back.kl_base_to_tuned)
    assert np.array_equal(columns.kl_base_to_tuned, back.kl_tuned_to_base)
    assert np.array_equal(columns.right_base & ~columns.right_tuned, back.right_tuned & ~back.right_base)
    assert np.array_equal(columns.choice_base, back.choice_tuned)


def test_determinism(pair: ModelPair) -> None:
    laws.determinism(lambda: survey_rows(pair, random_rows(), batch_rows=5))


def test_columns_against_transformers(pair: ModelPair, columns: SurveyColumns) -> None:
    ids = random_rows()
    with torch.no_grad():
        base = pair.base_parts.model(input_ids=ids, output_hidden_states=True)
        tuned = pair.tuned_parts.model(input_ids=ids, output_hidden_states=True)
    log_base, log_tuned = base.logits[:, :-1].double().log_softmax(-1), tuned.logits[:, :-1].double().log_softmax(-1)
    target = ids[:, 1:, None]
    laws.planted(columns.logp_base, log_base.gather(-1, target)[..., 0], within=1e-5)
    laws.planted(columns.logp_tuned, log_tuned.gather(-1, target)[..., 0], within=1e-5)
    laws.planted(columns.kl_tuned_to_base, (log_tuned.exp() * (log_tuned - log_base)).sum(-1), within=1e-5)
    laws.planted(columns.kl_base_to_tuned, (log_base.exp() * (log_base - log_tuned)).sum(-1), within=1e-5)
    laws.planted(columns.mean_gain, (log_tuned.exp() - log_base.exp()).sum((0, 1)), within=1e-4)
    assert np.array_equal(columns.choice_base, log_base.argmax(-1).numpy())
    assert np.array_equal(columns.right_tuned, (log_tuned.argmax(-1) == ids[:, 1:]).numpy())
    for layer in (0, 1):
        a, b = base.hidden_states[layer + 1], tuned.hidden_states[layer + 1]
        laws.planted(columns.relative_change[..., layer], (b - a).norm(dim=-1) / a.norm(dim=-1), within=1e-5)


def test_planted_change_starts_at_its_block(columns: SurveyColumns) -> None:
    assert not columns.relative_change[..., 0].any()
    assert (columns.relative_change[..., 1] > 0).all()
    assert (columns.relative_change[..., 2] > 0).all()


def test_first_token_of_a_row_is_a_sink(columns: SurveyColumns) -> None:
    assert columns.sink[:, 0].all()
    assert columns.sink[:, 1:].mean() < 0.5


def shares_of(pair: ModelPair, layers: list[int]) -> dict[int, float]:
    patching = Patching(pair, random_rows(4), layers)
    return {layer: patching.share(layer) for layer in layers}


@pytest.mark.parametrize("block", [0, 1, 2])
def test_patching_finds_the_block_that_was_changed(block: int) -> None:
    shares = shares_of(changed_in_block(block), [0, 1, 2])
    laws.planted([shares[layer] for layer in range(3)], [float(layer >= block) for layer in range(3)], within=1e-5)
    assert choose_layers(shares) == [block]


def test_patching_of_equal_models_is_zero() -> None:
    laws.identity(shares_of(equal_pair(), [0, 1]))


def test_a_change_of_the_head_alone_has_happened_nowhere() -> None:
    base = equal_pair().base_parts.model
    tuned = equal_pair().base_parts.model
    tuned.get_output_embeddings().weight.data[20] += 1.0
    laws.identity(shares_of(pair_of(base, tuned), [0, 1]))  # type: ignore[arg-type]


def test_choose_layers_by_hand() -> None:
    assert choose_layers({0: 0.1, 1: 0.8, 2: 0.9, 3: 1.0}) == [1]
    assert choose_layers({0: 0.1, 1: 0.7, 2: 0.74, 3: 1.0}) == [3]
    assert choose_layers({0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}) == [1]
    assert choose_layers({0: 0.1, 1: 0.4, 2: 0.6}, enough=0.4) == [1]
    assert choose_layers({0: 1.0}) == [0]
