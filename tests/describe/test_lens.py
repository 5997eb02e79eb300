"""The logit lens of a direction, against the model's own head."""

import torch

from mneme.describe.lens import promoted_tokens
from mneme.models.architecture import find_parts
from tests.conftest import tiny_llama


def test_tokens_whose_logits_the_direction_moves_most() -> None:
    """Against the definition: head(gain * direction), sorted."""
    model = tiny_llama()
    generator = torch.Generator().manual_seed(2)
    model.model.norm.weight.data = torch.rand(16, generator=generator) + 0.5
    direction = torch.randn(16, generator=generator)
    scores = (model.lm_head.weight * model.model.norm.weight * direction).sum(dim=1).detach()
    up, down = promoted_tokens(find_parts(model), direction, limit=5)
    assert up == scores.argsort(descending=True)[:5].tolist()
    assert down == scores.argsort()[:5].tolist()


def test_planted_token_comes_first_and_turns_over() -> None:
    model = tiny_llama()
    direction = torch.randn(16, generator=torch.Generator().manual_seed(3))
    model.lm_head.weight.data[17] = 10 * direction
    up, down = promoted_tokens(find_parts(model), direction)
    assert (up[0], len(up), len(down)) == (17, 6, 6)
    assert promoted_tokens(find_parts(model), -direction) == (down, up)
