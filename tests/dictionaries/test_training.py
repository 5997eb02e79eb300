import pytest
import torch
from torch import Tensor

from mneme.dictionaries.crosscoder import (
    KINDS,
    Kind,
    coordinates,
    decode_change,
    decoders,
    encode,
    input_statistics,
    normalise,
    pair_rows,
)
from mneme.dictionaries.settings import initial_rows
from mneme.dictionaries.training import Settings, Trainer
from mneme.errors import BadOption, BadRun, EmptyMask


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


@pytest.mark.parametrize("kind", KINDS)
def test_hand_written_gradients_equal_autograd(kind: Kind) -> None:
    """Gradients after one step, delta loss and AuxK included, against a dense autograd crosscoder."""
    chosen = settings(kind, ks=(0.9,), n_steps=100, batch_size=64, aux_weight=0.5, delta_weight=0.7)
    m, q = planted(64, 3)[:2]
    m, q = m, q + 0.1 * torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    trainer = Trainer(chosen, *input_statistics(kind, m, q))
    dead = torch.arange(32) % 5 == 0
    trainer._silent_tokens[dead] = 10**6
    encoder, decoder = (rows.clone().requires_grad_() for rows in initial_rows(chosen, 0))
    x = (coordinates(kind, m, q) - trainer.mean) / trainer.scale
    codes = torch.relu(x @ encoder.T)
    halves = decoder.detach().reshape(32, 2, -1).norm(dim=2).sum(1)
    scores = codes.detach() * (halves if kind in ("batchtopk", "delta") else 1.0)
    mask = torch.zeros_like(scores)
    for start, stop, n_keep in ((0, 6, 38), (6, 32, 19)) if kind == "delta" else ((0, 32, 58),):
        mask[:, start:stop] = scores[:, start:stop] >= scores[:, start:stop].flatten().topk(n_keep).values.min()
    kept = codes * mask
    error = kept @ decoder - x
    loss = error.square().mean()
    if kind == "delta":
        carried = kept[:, 6:] @ (decoder[6:, 16:] - decoder[6:, :16])
        loss = loss + 0.7 * (carried - (x[:, 16:] - x[:, :16])).square().mean()
    still = dead & ~(mask > 0).any(0)
    left = -error.detach()
    revived = torch.relu(x @ encoder[still].T)
    n_aux = min(x.shape[1] // 2, int(still.sum()))
    revived = revived * (revived >= revived.topk(n_aux, dim=1).values[:, -1:])
    aux = (revived @ decoder[still] - left).square().sum() / (left - left.mean(0)).square().sum()
    (loss + 0.5 * aux).backward()
    losses = trainer.step(m, q)
    torch.testing.assert_close(losses[0], error.square().mean().detach())
    assert encoder.grad is not None
    torch.testing.assert_close(trainer._encoder.grad, encoder.grad, rtol=1e-4, atol=1e-6)
    expected = decoder.grad
    assert expected is not None
    if kind in ("change", "rotated"):
        start_rows = decoder.detach()
        expected = expected - (expected * start_rows).sum(1, keepdim=True) * start_rows
    torch.testing.assert_close(trainer._decoder.grad, expected, rtol=1e-4, atol=1e-6)


def test_members_come_out_the_same_in_trainers_of_their_own() -> None:
    together, apart = trained(settings(ks=(1.0, 2.0, 3.0))), [trained(settings(ks=ks)) for ks in ((1.0, 3.0), (2.0,))]
    m, q, _ = planted(512, seed=3)
    own = {one.k: one for trainer in apart for one in trainer.finish(m, q)}
    for one in together.finish(m, q):
        for name in ("w_enc", "w_dec", "b_enc", "b_dec"):
            torch.testing.assert_close(getattr(one, name), getattr(own[one.k], name), rtol=1e-5, atol=1e-6)
        assert one.threshold == pytest.approx(own[one.k].threshold, rel=1e-5)


def test_thresholds_fire_k_times_on_the_held_out_tokens() -> None:
    chosen = settings("rotated", ks=(0.5, 2.0), n_steps=60)
    held_out = planted(4096, 77_777)[:2]
    for dictionary in trained(chosen).finish(*held_out):
        assert encode(dictionary, *held_out).value.numel() == pytest.approx(dictionary.k * 4096, abs=3)


def test_codes_do_not_depend_on_the_rest_of_the_batch() -> None:
    dictionary = trained(settings(n_steps=60)).finish(*planted(4096, 77_777)[:2])[0]
    m, q = planted(512, 55_555)[:2]
    whole, part = encode(dictionary, m, q), encode(dictionary, m[100:200], q[100:200])
    inside = (whole.token_index >= 100) & (whole.token_index < 200)
    assert torch.equal(whole.latent_index[inside], part.latent_index)
    torch.testing.assert_close(whole.value[inside], part.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_reconstructs_what_its_trainer_saw(kind: Kind) -> None:
    """Codes, threshold and folded weights of the finished dictionary give about the loss of the last training steps."""
    chosen = settings(kind, ks=(3.0,), n_steps=200)
    trainer = trained(chosen)
    m, q = planted(8192, 66_666)[:2]
    dictionary = trainer.finish(m, q)[0]
    x = normalise(dictionary, m, q)
    codes = encode(dictionary, m, q)
    dense = torch.zeros(8192, 32).index_put_((codes.token_index, codes.latent_index), codes.value)
    rebuilt = dense @ dictionary.w_dec + dictionary.b_dec
    loss = float(trainer.step(m, q)[0])
    assert float((rebuilt - x).square().mean()) == pytest.approx(loss, rel=0.02)
    assert rebuilt.shape == x.shape
    pair = pair_rows(dictionary, rebuilt * dictionary.scale + dictionary.mean)
    torch.testing.assert_close(
        decode_change(dictionary, codes, 8192), (pair[:, 1] - pair[:, 0]) / 2**0.5, rtol=1e-3, atol=1e-4
    )


def test_a_change_that_is_one_vector_cannot_be_trained_on() -> None:
    m = torch.randn(10, 16)
    with pytest.raises(EmptyMask, match="no change for a dictionary to learn"):
        input_statistics("change", m, torch.zeros(10, 16))
    with pytest.raises(EmptyMask, match="0 tokens"):
        input_statistics("change", m[:0], m[:0])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ks": (0.001,)}, "at least one code a batch"),
        ({"ks": (33.0,)}, "at most every latent"),
        ({"ks": ()}, "at least one k and one seed"),
        ({"n_steps": 0}, "must all be at least 1"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(changed: dict, words: str) -> None:
    with pytest.raises(BadOption, match=words):
        settings(**changed)


def test_a_state_of_other_settings_is_refused() -> None:
    trainer = Trainer(settings(), torch.zeros(16), torch.ones(16))
    with pytest.raises(BadRun, match="belongs to other settings: encoder has shape"):
        Trainer.from_state(settings(n_latents=16), trainer.state())
    with pytest.raises(BadRun, match="lacks encoder"):
        Trainer.from_state(settings(), {})
