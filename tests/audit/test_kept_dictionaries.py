"""Passes and trainings of dictionaries keep their state: a kill costs what was made since, and no byte differs."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mneme.audit.halves import Half, Stream
from mneme.dictionaries.training import Trainer
from mneme.models.pair import ModelPair, load_pair
from tests.audit.conftest import World, audited
from tests.conftest import keep_every
from tests.hostile.test_kills import results


@pytest.fixture(scope="module")
def pair(world: World) -> ModelPair:
    return load_pair(world.base, world.damaged)


def stream_of(pair: ModelPair) -> Stream:
    ids = torch.randint(8, 80, (24, 32), generator=torch.Generator().manual_seed(0))
    sink = torch.zeros(ids.shape, dtype=torch.bool)
    sink[:, 0] = True
    return Stream(pair=pair, ids=ids, layer=1, sink=sink, batch_rows=4, seed=0)


@pytest.mark.slow
def test_a_kill_while_dictionaries_are_trained_costs_no_kept_step(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the sweep, and in the training after it."""
    steps, killed_at = 0, set[int]()
    real = Trainer.step

    def counted(trainer: Trainer, m: Tensor, q: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        if steps in killed_at:
            raise KeyboardInterrupt
        return real(trainer, m, q)

    monkeypatch.setattr(Trainer, "step", counted)
    keep_every(monkeypatch, 10)
    audited(world, tmp_path / "whole", tokens=2048, layers=[1], dictionary="change")
    whole, steps = steps, 0
    killed_at = {35, whole // 2 + 60}
    for _ in sorted(killed_at):
        with pytest.raises(KeyboardInterrupt):
            audited(world, tmp_path / "killed", tokens=2048, layers=[1], dictionary="change")
    audited(world, tmp_path / "killed", tokens=2048, layers=[1], dictionary="change")
    assert whole > 400
    assert steps <= whole + 2 * (10 + 1) * 2, "a kill costs ten batches and the one it is in, of two dictionaries"
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.safetensors"))


def test_a_pass_goes_on_after_the_rows_that_were_kept(
    pair: ModelPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(pair)
    whole = list(Half(stream, resident=True).pieces())
    keep_every(monkeypatch, 1)
    real, read = Half._passes, []

    def killed(half: Half, ids: Tensor, sink: Tensor) -> object:
        for number, found in enumerate(real(half, ids, sink)):
            read.append(len(found[0]))
            if number == 3 and len(ids) == len(stream.ids):
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(Half, "_passes", killed)
    with pytest.raises(KeyboardInterrupt):
        Half(stream, resident=True, checkpoint=tmp_path / "train.safetensors")
    again = list(Half(stream, resident=True, checkpoint=tmp_path / "train.safetensors").pieces())
    assert len(read) == 4 + 3  # of 6 batches: three kept, one lost, three more
    for one, other in zip(whole, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("start", [0, 3, 4, 11, 12])
def test_batches_are_the_same_wherever_they_begin(pair: ModelPair, resident: bool, start: int) -> None:
    half = Half(stream_of(pair), resident)
    batch = half.tokens // 4 - 3
    whole = [(m.clone(), q.clone()) for m, q in half.batches(batch, 12)]
    late = [(m.clone(), q.clone()) for m, q in half.batches(batch, 12, start)]
    assert len(late) == 12 - start
    for one, other in zip(whole[start:], late, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
