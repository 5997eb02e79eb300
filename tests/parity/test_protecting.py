"""Protected directions against orthogonal gradient descent (Farajtabar et al. 2020), in the code of its successor OGD+
(MehdiAbbanaBennani/continual-learning-ogdplus b633f2c, ogd/tools.py: orthonormalize, project_vec).

Theirs keeps every gradient out of stored gradients of earlier outputs, as vectors over all weights; ours keeps those of a
matrix that writes to the stream out of directions of the stream. A direction u of the stream is the vectors u e_j^T of all
inputs j, and on these the two are the same."""

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from mneme.train.protecting import ProtectUpdates, protected_weights
from tests.parity import FLOAT32, authors_numbers, chat_llama, furthest, seeded

NAMES = ("model.layers.0.self_attn.o_proj.weight", "model.layers.1.mlp.down_proj.weight")
DIRECTIONS = seeded(2, 16, seed=41, dtype=torch.float32)
IDS = (8 + (seeded(2, 9, seed=42) + 1) / 2 * 60).long()
RATE = 0.1


def gradients(model: LlamaForCausalLM) -> dict[str, Tensor]:
    """Of the loss on IDS, by parameter."""
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_gradients_and_a_step_are_those_of_the_authors() -> None:
    """The projected gradient, and plain gradient descent on it: the step is projected already, so putting back what lies along
    the directions changes nothing."""
    expected = authors_numbers("ogd")
    model = chat_llama()[0]
    protected = protected_weights(model, DIRECTIONS)
    found = gradients(model)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name in NAMES:
            weights[name] -= RATE * found[name]
    ProtectUpdates(protected).on_optimizer_step()
    for name in NAMES:
        assert furthest(found[name].flatten()[::8], expected[name]["gradient"]) <= FLOAT32
        assert furthest(weights[name].detach().flatten()[::8], expected[name]["stepped"]) <= FLOAT32
