import pytest
import torch
from torch import Tensor

from mneme.dictionaries.crosscoder import KINDS, Kind, decode_change, decoders, encode, input_statistics
from mneme.dictionaries.training import Settings, Trainer


def planted(n_tokens: int, seed: int, width: int = 16, n_directions: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """m is noise; q is one of `n_directions` unit directions on 6 % of tokens, size 0.2."""
    truth = torch.Generator().manual_seed(90_001)
    directions = torch.nn.functional.normalize(torch.randn(n_directions, width, generator=truth), dim=1)
    generator = torch.Generator().manual_seed(seed + 70_000)
    fires = torch.rand(n_tokens, n_directions, generator=generator) < 0.02
    size = 0.2 * (0.5 + torch.rand(n_tokens, n_directions, generator=generator))
    m = torch.randn(n_tokens, width, generator=generator)
    return m, (fires * size) @ directions, directions


def settings(kind: Kind = "change", **changed: object) -> Settings:
    values: dict = {
        "kind": kind,
        "d_model": 16,
        "n_latents": 32,
        "ks": (0.06,),
        "seeds": (0,),
        "n_steps": 400,
        "batch_size": 256,
    }
    return Settings(**(values | changed))


def trained(chosen: Settings) -> Trainer:
    trainer = Trainer(chosen, *input_statistics(chosen.kind, *planted(8192, 0)[:2]))
    for step in range(chosen.n_steps):
        trainer.step(*planted(chosen.batch_size, step + 1)[:2])
    return trainer


def test_the_change_dictionary_finds_planted_directions() -> None:
    dictionary = trained(settings()).finish(*planted(8192, 99_999)[:2])[0]
    m, q, truth = planted(4096, 88_888)
    codes = encode(dictionary, m, q)
    change = decoders(dictionary)[:, 1] - decoders(dictionary)[:, 0]
    energy = torch.zeros(32).index_add_(0, codes.latent_index, codes.value**2) * change.square().sum(1)
    top = torch.nn.functional.normalize(change[energy.topk(3).indices], dim=1)
    assert (top @ truth.T).max(0).values.min() > 0.9
    left = (q - decode_change(dictionary, codes, 4096)).square().sum() / (q - q.mean(0)).square().sum()
    assert left < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_resume_gives_the_same_bytes(kind: Kind) -> None:
    chosen = settings(kind, ks=(0.1, 1.0), seeds=(0, 1), n_steps=40)
    whole = trained(chosen)
    half = Trainer(chosen, *input_statistics(kind, *planted(8192, 0)[:2]))
    for step in range(40):
        if step == 20:
            half = Trainer.from_state(chosen, half.state())
        half.step(*planted(256, step + 1)[:2])
    assert whole.state().keys() == half.state().keys()
    assert all(torch.equal(value, half.state()[name]) for name, value in whole.state().items())
