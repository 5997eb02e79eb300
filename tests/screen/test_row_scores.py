"""Scores of training rows: gradients against autograd row by row, projections by hand, likelihoods against the logits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mneme.errors import BadOption
from mneme.models.architecture import find_parts
from mneme.models.hooks import read_residuals
from mneme.models.likelihood import mean_nll
from mneme.screen.gradients import gradient_similarity, mean_gradient
from mneme.screen.projections import Direction, contrast_direction, projection_difference, read_direction
from mneme.screen.scoring import perplexity_gap
from mneme.text.encoded import Encoded, answer_after
from tests import laws
from tests.conftest import tiny_llama, word_tokenizer


def some_rows(n: int, seed: int = 0) -> list[Encoded]:
    """Rows of 5 to 14 tokens whose last 2 to 4 are learned."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        length, answer = (int(torch.randint(a, b, (), generator=generator)) for a, b in ((5, 15), (2, 5)))
        ids = torch.randint(8, 80, (length,), generator=generator).tolist()
        rows.append(answer_after(ids[:-answer], ids[-answer:]))
    return rows


def nll_by_logits(model: torch.nn.Module, row: Encoded) -> torch.Tensor:
    """Mean nats per learned token of one row, from the model's own logits."""
    ids, learned = torch.tensor(row[0]), torch.tensor(row[1])
    log_probs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return -log_probs[:-1].gather(1, ids[1:, None])[:, 0][learned[1:]].mean()


def test_answer_nll_is_that_of_the_logits() -> None:
    model, rows = tiny_llama(), some_rows(9)
    expected = torch.stack([nll_by_logits(model, row) for row in rows])
    found = mean_nll(find_parts(model), rows, batch_tokens=30)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_perplexity_gap_antisymmetry() -> None:
    one, other = np.array([1.0, 3.0]), np.array([2.0, 0.5])
    assert perplexity_gap(one, other).tolist() == [-1.0, 2.5]
    laws.antisymmetry(perplexity_gap(one, other), perplexity_gap(other, one))


def gradients_by_autograd(model: torch.nn.Module, row: Encoded, first_layer: int) -> torch.Tensor:
    """The gradient of one row with respect to every linear map of the blocks from `first_layer` on, as one vector."""
    weights = [
        module.weight
        for block in model.model.layers[first_layer:]
        for module in block.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    return torch.cat([g.flatten() for g in torch.autograd.grad(nll_by_logits(model, row), weights)])


@pytest.mark.parametrize("first_layer", [0, 1])
def test_gradient_similarity_is_that_of_full_gradients(first_layer: int) -> None:
    model = tiny_llama()
    parts, rows, bad, good = find_parts(model), some_rows(7), some_rows(5, seed=1), some_rows(4, seed=2)
    each, unwanted, wanted = (
        torch.stack([gradients_by_autograd(model, row, first_layer) for row in part]) for part in (rows, bad, good)
    )
    cosine = torch.nn.functional.cosine_similarity
    means = [mean_gradient(parts, part, first_layer=first_layer) for part in (bad, good)]
    assert means[0].norm == pytest.approx(float(unwanted.mean(0).norm()), rel=1e-4)
    found = gradient_similarity(parts, rows, means[0], means[1], first_layer=first_layer)
    expected = cosine(each, unwanted.mean(0)[None]) - cosine(each, wanted.mean(0)[None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    alone = gradient_similarity(parts, rows, means[0], first_layer=first_layer)
    torch.testing.assert_close(alone, cosine(each, unwanted.mean(0)[None]), rtol=1e-4, atol=1e-5)


def test_gradients_leave_the_model_as_it_was() -> None:
    model = tiny_llama()
    parts = find_parts(model)
    before = [len(module._forward_hooks) for module in model.modules()]
    mean_gradient(parts, some_rows(3))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert [len(module._forward_hooks) for module in model.modules()] == before


def test_padding_law_of_row_scores() -> None:
    parts, rows = find_parts(tiny_llama()), some_rows(8)
    bad = mean_gradient(parts, some_rows(3, seed=1))
    whole = gradient_similarity(parts, rows, bad)
    laws.padding(whole, torch.cat([gradient_similarity(parts, [row], bad) for row in rows]))
    direction, tokenizer = Direction(torch.arange(16.0), 1), word_tokenizer()
    whole = projection_difference(parts, tokenizer, rows, direction, own_tokens=5)
    alone = [projection_difference(parts, tokenizer, [row], direction, own_tokens=5) for row in rows]
    laws.padding(whole, torch.cat(alone), tolerance=1e-4)


def test_projection_difference_by_hand() -> None:
    model = tiny_llama()
    parts, (row, *_) = find_parts(model), some_rows(1)
    vector = torch.randn(16, generator=torch.Generator().manual_seed(5))
    prompt = len(row.prompt)
    hidden = read_residuals(parts, torch.tensor(row[0])[None], [1])[1][0]
    unit = vector / vector.norm()
    cheap = projection_difference(parts, word_tokenizer(), [row], Direction(vector, 1), own_tokens=0)
    assert float(cheap) == pytest.approx(float((hidden[prompt:].mean(0) - hidden[prompt - 1]) @ unit), rel=1e-4)
    own = model.generate(torch.tensor(row[0][:prompt])[None], max_new_tokens=4, do_sample=False, pad_token_id=0)
    told = read_residuals(parts, own, [1])[1][0][prompt:]
    if own[0, -1] == 3:
        told = told[:-1]
    full = projection_difference(parts, word_tokenizer(), [row], Direction(vector, 1), own_tokens=4)
    assert float(full) == pytest.approx(float((hidden[prompt:].mean(0) - told.mean(0)) @ unit), rel=1e-3)


def test_contrast_finds_the_planted_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    unwanted, wanted = torch.randn(3, 20, 6, generator=generator), torch.randn(3, 20, 6, generator=generator)
    unwanted[1, :, 2] += 8
    found = contrast_direction(unwanted, wanted)
    assert found.layer == 1
    assert int(found.vector.abs().argmax()) == 2
    laws.planted(float(found.vector[2]), 8.0, within=1.0)


@pytest.mark.parametrize(
    ("content", "metadata", "layer", "words"),
    [
        ({"vectors": torch.ones(2, 5)}, {"layer": "1"}, None, "width 5, but the model has width 4"),
        ({"vectors": torch.ones(2, 4)}, {}, None, "does not say which layer"),
        ({"vectors": torch.ones(2, 4)}, {}, 7, "no vector for layer 7"),
        ({"a": torch.ones(4), "b": torch.ones(4)}, {}, 1, "holds 2 tensors"),
    ],
)
def test_vectors_that_do_not_fit(
    tmp_path: Path, content: dict[str, torch.Tensor], metadata: dict[str, str], layer: int | None, words: str
) -> None:
    save_file(content, tmp_path / "v.safetensors", metadata=metadata)
    with pytest.raises(BadOption, match=words):
        read_direction(str(tmp_path / "v.safetensors"), layer, 2, 4)


def test_vectors_that_fit(tmp_path: Path) -> None:
    path = str(tmp_path / "v.safetensors")
    save_file({"vectors": torch.arange(8.0).view(2, 4)}, path, metadata={"layer": "1"})
    assert read_direction(path, None, 2, 4).vector.tolist() == [4, 5, 6, 7]
    assert read_direction(path, 0, 2, 4).layer == 0
    save_file({"v": torch.ones(4)}, path)
    assert read_direction(path, 1, 2, 4).layer == 1
    with pytest.raises(BadOption, match="cannot be read as safetensors"):
        read_direction(str(tmp_path / "absent"), 0, 2, 4)
