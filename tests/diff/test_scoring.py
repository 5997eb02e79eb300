import math

import pytest
import torch
from torch import Tensor

from mneme.dictionaries.crosscoder import Dictionary, Kind, decoders, encode, pair_rows
from mneme.diff.scoring import latent_scores, latent_sums, score_latents
from mneme.errors import EmptyMask


def random_dictionary(kind: Kind, d_model: int = 12, n_latents: int = 20) -> Dictionary:
    generator = torch.Generator().manual_seed(5)
    width = d_model if kind == "change" else 2 * d_model

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Dictionary(
        kind=kind, w_enc=draw(width, n_latents) / width**0.5, w_dec=draw(n_latents, width) / width**0.5,
        b_enc=0.1 * draw(n_latents), b_dec=0.1 * draw(width), threshold=0.8, mean=0.3 * draw(width),
        scale=0.5 + draw(width).abs(), k=2.0, d_model=d_model, seed=5,
    )  # fmt: skip


def activations(n_tokens: int = 300, d_model: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(6)
    return torch.randn(n_tokens, d_model, generator=generator), 0.3 * torch.randn(n_tokens, d_model, generator=generator)


def closed_form(dictionary: Dictionary, m: Tensor, q: Tensor, latent: int) -> tuple[float, float]:
    """nu_error and nu_reconstruction of one latent by the definition: least squares against explicit targets, float64."""
    codes = encode(dictionary, m, q)
    f = torch.zeros(m.shape[0], dictionary.n_latents, dtype=torch.float64)
    f[codes.token_index, codes.latent_index] = codes.value.double()
    d = decoders(dictionary).double()
    mean = pair_rows(dictionary, dictionary.mean[None])[0].double()
    bias = pair_rows(dictionary, (dictionary.b_dec * dictionary.scale)[None])[0].double()
    root = math.sqrt(0.5)
    streams = [(m.double() - q.double()) * root - mean[0], (m.double() + q.double()) * root - mean[1]]
    beta_error, beta_reconstruction = [], []
    for model in (0, 1):
        rebuilt = f @ d[:, model] + bias[model]
        one = f[:, latent, None] * d[latent, 1]
        without = rebuilt - f[:, latent, None] * d[latent, model]
        beta_error.append(float((one * (streams[model] - without)).sum() / one.square().sum()))
        beta_reconstruction.append(float((one * rebuilt).sum() / one.square().sum()))
    return beta_error[0] / beta_error[1], beta_reconstruction[0] / beta_reconstruction[1]


@pytest.mark.parametrize("kind", ["rotated", "batchtopk", "delta"])
def test_one_pass_equals_the_closed_form_of_every_latent(kind: Kind) -> None:
    dictionary, (m, q) = random_dictionary(kind), activations()
    scores = score_latents(dictionary, [(m[:100], q[:100]), (m[100:], q[100:])])
    assert scores.nu_error is not None
    assert scores.nu_reconstruction is not None
    for latent in range(dictionary.n_latents):
        expected = closed_form(dictionary, m, q, latent)
        assert float(scores.nu_error[latent]) == pytest.approx(expected[0], rel=1e-5, abs=1e-5)
        assert float(scores.nu_reconstruction[latent]) == pytest.approx(expected[1], rel=1e-5, abs=1e-5)


def exact_dictionary() -> Dictionary:
    """Two latents that read the two axes of q exactly above 0.5."""
    eye, zero = torch.eye(2), torch.zeros(2)
    return Dictionary("change", eye, eye, zero, zero, 0.5, zero, torch.ones(2), 1.0, 2, 0)


def test_change_energy_by_hand() -> None:
    # q = (3, 0), (0, 1), (-3, 0), (0, -1): centred already, |q|^2 sums to 20; latent 0 carries 9, latent 1 carries 1.
    q = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-3.0, 0.0], [0.0, -1.0]])
    scores = score_latents(exact_dictionary(), [(torch.zeros(4, 2), q)])
    torch.testing.assert_close(scores.change_energy, torch.tensor([0.45, 0.05], dtype=torch.float64))
    torch.testing.assert_close(scores.firing_rate, torch.tensor([0.25, 0.25]))
    torch.testing.assert_close(scores.mean_code, torch.tensor([3.0, 1.0], dtype=torch.float64))
    assert scores.nu_error is None


@pytest.mark.parametrize(("base_has_it", "norm"), [(False, 1.0), (True, 0.0)])
def test_a_change_latent_knows_which_model_has_the_direction(base_has_it: bool, norm: float) -> None:
    # Only one stream moves along axis 0, on half of the tokens: q is + where the tuned one does and - where the base does.
    h = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).repeat(50, 1)
    dictionary = exact_dictionary()
    still = torch.zeros_like(h)
    base, tuned = (h, still) if base_has_it else (still, h)
    m, q = (base + tuned) / math.sqrt(2), (tuned - base) / math.sqrt(2)
    if base_has_it:
        dictionary = Dictionary(
            "change", -torch.eye(2), -torch.eye(2), *(torch.zeros(2),) * 2, 0.5, torch.zeros(2), torch.ones(2), 1.0, 2, 0
        )
    scores = latent_scores(dictionary, latent_sums(dictionary, encode(dictionary, m, q), m, q))
    assert float(scores.relative_norm[0]) == pytest.approx(norm, abs=1e-6)


def test_swapping_the_models_keeps_energy_and_flips_the_decoders() -> None:
    m, q = activations()
    dictionary = random_dictionary("change")
    swapped = Dictionary(
        "change", -dictionary.w_enc, -dictionary.w_dec, dictionary.b_enc, -dictionary.b_dec, 0.8, -dictionary.mean,
        dictionary.scale, 2.0, 12, 5,
    )  # fmt: skip
    torch.testing.assert_close(
        score_latents(dictionary, [(m, q)]).change_energy, score_latents(swapped, [(m, -q)]).change_energy
    )


def test_no_tokens_and_no_variation_are_errors() -> None:
    with pytest.raises(EmptyMask, match="0 tokens"):
        score_latents(exact_dictionary(), [])
    with pytest.raises(EmptyMask, match="does not vary over the 4 scored tokens"):
        score_latents(exact_dictionary(), [(torch.zeros(4, 2), torch.ones(4, 2))])
