"""Harvest, shuffle, sinks, moments: against direct reads, by hand, and by law."""

from dataclasses import replace

import pytest
import torch

from mneme.activations.harvest import Harvested, base_norms, harvest, rotate, shuffled, sink_mask
from mneme.activations.moments import SKETCH_COLUMNS, layer_moments
from mneme.errors import BadCorpus, BadOption
from mneme.models.hooks import read_residuals
from mneme.models.pair import ModelPair, load_pair
from mneme.text.documents import read_corpus
from mneme.text.packing import pack_rows
from tests.conftest import TinyPair

Layer = dict[int, tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def pair(tiny_pair: TinyPair) -> ModelPair:
    return load_pair(tiny_pair.base, tiny_pair.tuned)


@pytest.fixture(scope="module")
def ids(tiny_pair: TinyPair, pair: ModelPair) -> torch.Tensor:
    return pack_rows(read_corpus(tiny_pair.corpus), pair.tokenizer, 32, 640).ids


def stream_of(q: torch.Tensor, m: torch.Tensor | None = None, rows: int = 2) -> list[Harvested]:
    """A harvest of one layer from given tensors [row seq d_model]."""
    m = torch.ones_like(q) if m is None else m
    return [
        Harvested(slice(i, min(i + rows, len(q))), {0: m[i : i + rows]}, {0: q[i : i + rows]}) for i in range(0, len(q), rows)
    ]


def test_harvest_is_both_residual_streams_rotated(pair: ModelPair, ids: torch.Tensor) -> None:
    found = list(harvest(pair, ids, [1, 0], batch_rows=7))
    assert [h.rows for h in found] == [slice(0, 7), slice(7, 14), slice(14, 20)]
    with pair.using("base") as parts:
        base = read_residuals(parts, ids, [0, 1])
    with pair.using("tuned") as parts:
        tuned = read_residuals(parts, ids, [0, 1])
    for layer in (0, 1):
        m, q = (torch.cat([getattr(h, kind)[layer] for h in found]) for kind in "mq")
        torch.testing.assert_close((m - q) / 2**0.5, base[layer])
        torch.testing.assert_close((m + q) / 2**0.5, tuned[layer])
        torch.testing.assert_close(
            m.square().sum() + q.square().sum(), base[layer].square().sum() + tuned[layer].square().sum()
        )


def test_identity_gives_exactly_zero(tiny_pair: TinyPair, ids: torch.Tensor) -> None:
    same = load_pair(tiny_pair.base, tiny_pair.base)
    assert all(not h.q[1].any() for h in harvest(same, ids, [1], batch_rows=4))


def test_antisymmetry(tiny_pair: TinyPair, pair: ModelPair, ids: torch.Tensor) -> None:
    swapped = load_pair(tiny_pair.tuned, tiny_pair.base)
    for there, back in zip(harvest(pair, ids, [1], batch_rows=5), harvest(swapped, ids, [1], batch_rows=5), strict=True):
        assert torch.equal(there.q[1], -back.q[1])
        assert torch.equal(there.m[1], back.m[1])


def test_batches_do_not_matter(pair: ModelPair, ids: torch.Tensor) -> None:
    one = torch.cat([h.q[1] for h in harvest(pair, ids, [1], batch_rows=1)])
    many = torch.cat([h.q[1] for h in harvest(pair, ids, [1], batch_rows=20)])
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


def test_small_changes_survive_half_precision() -> None:
    base = torch.full((1, 4), 100.0, dtype=torch.bfloat16)
    tuned = torch.full((1, 4), 100.5, dtype=torch.bfloat16)
    _, q = rotate(base, tuned)
    torch.testing.assert_close(q, torch.full((1, 4), 0.5 * 0.5**0.5))


def test_bad_options_of_a_harvest(pair: ModelPair, ids: torch.Tensor) -> None:
    with pytest.raises(BadOption, match=r"layer 7 does not exist: this model has 2 blocks"):
        harvest(pair, ids, [7], batch_rows=2)
    with pytest.raises(BadOption, match=r"at least one layer"):
        harvest(pair, ids, [], batch_rows=2)
    with pytest.raises(
        BadOption, match=r"rows of 32 tokens are longer than the 16 positions of these models. Give shorter rows"
    ):
        harvest(replace(pair, max_positions=16), ids, [0], batch_rows=2)


def test_every_token_leaves_the_buffer_once_and_mixed() -> None:
    q = torch.arange(600.0).view(12, 50, 1)
    batches = list(shuffled(stream_of(q, m=-q), buffer_tokens=130, batch_tokens=32, seed=0))
    order = torch.cat([b[0][1] for b in batches])[:, 0]
    assert order.sort().values.tolist() == list(range(600))
    assert all(torch.equal(b[0][0], -b[0][1]) for b in batches)
    assert [len(b[0][1]) for b in batches[:-1]] == [32] * 18
    assert (order.diff() == 1).float().mean() < 0.1


def test_shuffle_is_determined_by_its_seed() -> None:
    q = torch.arange(600.0).view(12, 50, 1)

    def order(seed: int) -> torch.Tensor:
        return torch.cat([b[0][1] for b in shuffled(stream_of(q), buffer_tokens=100, batch_tokens=20, seed=seed)])

    assert torch.equal(order(3), order(3))
    assert not torch.equal(order(3), order(4))


def test_dropped_positions_never_leave() -> None:
    q = torch.arange(200.0).view(10, 20, 1)
    drop = torch.zeros(10, 20, dtype=torch.bool)
    drop[:, 0] = True
    drop[3] = True
    left = torch.cat([b[0][1] for b in shuffled(stream_of(q), buffer_tokens=64, batch_tokens=16, seed=0, drop=drop)])
    assert sorted(left[:, 0].tolist()) == q[..., 0][~drop].tolist()
    with pytest.raises(BadCorpus, match=r"no token was left after the attention sinks were taken out"):
        list(shuffled(stream_of(q), buffer_tokens=64, batch_tokens=16, seed=0, drop=torch.ones(10, 20, dtype=torch.bool)))
    with pytest.raises(BadOption, match=r"batches of 65 tokens do not fit a buffer of 64"):
        list(shuffled(stream_of(q), buffer_tokens=64, batch_tokens=65, seed=0))


def test_what_left_the_buffer_is_not_overwritten() -> None:
    q = torch.arange(600.0).view(12, 50, 1)
    batches = shuffled(stream_of(q), buffer_tokens=100, batch_tokens=20, seed=0)
    first = next(batches)[0][1]
    copy = first.clone()
    list(batches)
    assert torch.equal(first, copy)


def test_sinks_are_first_tokens_and_giants() -> None:
    norms = torch.ones(3, 5)
    norms[1, 3] = 10.5
    norms[2, 2] = 9.5
    expected = torch.zeros(3, 5, dtype=torch.bool)
    expected[:, 0] = expected[1, 3] = True
    assert torch.equal(sink_mask(norms), expected)


def test_base_norms_undo_the_rotation() -> None:
    base, tuned = torch.tensor([[3.0, 4.0]]), torch.tensor([[9.0, 9.0]])
    torch.testing.assert_close(base_norms(*rotate(base, tuned)), torch.tensor([5.0]))


@pytest.mark.parametrize("d_model", [12, SKETCH_COLUMNS + 60])
def test_moments_against_the_whole_matrix(d_model: int) -> None:
    generator = torch.Generator().manual_seed(0)
    m = torch.randn(10, 30, d_model, generator=generator)
    direction = torch.randn(d_model, generator=generator)
    direction /= direction.norm()
    strength = 3 * torch.randn(10, 30, 1, generator=generator)
    q = 0.5 + strength * direction + 0.1 * torch.randn(10, 30, d_model, generator=generator)
    drop = torch.rand(10, 30, generator=generator) < 0.2
    found = layer_moments(stream_of(q, m), drop=drop)[0]
    flat, flat_m = q[~drop].double(), m[~drop].double()
    covariance = (flat - flat.mean(0)).T @ (flat - flat.mean(0)) / len(flat)
    values, vectors = torch.linalg.eigh(covariance)
    assert found.tokens == len(flat)
    torch.testing.assert_close(found.mean, flat.mean(0))
    torch.testing.assert_close(found.m_mean, flat_m.mean(0))
    assert found.mean_square == pytest.approx(float(flat.square().sum(1).mean()))
    assert found.q_rms == pytest.approx(float(flat.square().mean().sqrt()))
    assert found.m_rms == pytest.approx(float(flat_m.square().mean().sqrt()))
    assert found.mean_share == pytest.approx(float(flat.mean(0).square().sum() / flat.square().sum(1).mean()))
    assert found.first_component_share == pytest.approx(float(values[-1] / values.sum()), rel=1e-6 if d_model < 99 else 5e-3)
    assert abs(float(found.first_component @ vectors[:, -1])) > 0.999
    base = (flat_m - flat).norm(dim=1) / 2**0.5
    assert found.relative_change == pytest.approx(float((flat.norm(dim=1) / base).mean()), rel=1e-5)


def test_moments_of_no_change_are_zero() -> None:
    found = layer_moments(stream_of(torch.zeros(4, 5, 6)))[0]
    assert (found.mean_square, found.mean_share, found.first_component_share, found.relative_change) == (0, 0, 0, 0)
    with pytest.raises(BadCorpus, match="no token was left to measure"):
        layer_moments(stream_of(torch.zeros(4, 5, 6)), drop=torch.ones(4, 5, dtype=torch.bool))


def test_a_constant_change_is_all_mean() -> None:
    found = layer_moments(stream_of(torch.full((4, 5, 6), 0.25)))[0]
    assert found.mean_share == pytest.approx(1.0)
    assert found.first_component_share == 0.0
