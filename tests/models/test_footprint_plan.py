"""What plans are made from."""

import torch

from mneme.models.architecture import find_parts
from mneme.models.footprint import likelihood_footprint, peak_bytes, resident_bytes
from mneme.text.encoded import whole_text
from tests.conftest import tiny_llama


def test_a_probe_leaves_the_model_as_it_was() -> None:
    parts = find_parts(tiny_llama())
    parts.model.requires_grad_(False)
    parts.norm.requires_grad_(True)
    texts = [whole_text(range(3, 3 + n)) for n in (9, 5)]
    before = {name: (weight.requires_grad, weight.clone()) for name, weight in parts.model.named_parameters()}
    every = likelihood_footprint(parts, texts, parts.model.parameters())
    few = likelihood_footprint(parts, texts, parts.embedding.parameters())
    assert every.saved_bytes > few.saved_bytes > 0  # a gradient in weights keeps what goes into every product
    for name, weight in parts.model.named_parameters():
        assert weight.requires_grad == before[name][0]
        assert weight.grad is None
        assert torch.equal(weight, before[name][1])


def test_the_peak_is_at_least_what_is_there_now() -> None:
    assert peak_bytes() >= resident_bytes() > 0
