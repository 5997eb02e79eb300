"""In eval mode, or with no weight to train, for a while: the one rule by which a model is as it was afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module, *, frozen: bool = False) -> Iterator[None]:
    """In eval mode meanwhile: no dropout, no checkpointing. `frozen`: and no weight requires a gradient.

    Afterwards every module and every weight of the model is in the mode it was in, one by one: a trainer may hold some of
    them in eval mode, and an adapter trains few weights of many.
    """
    training = {module: module.training for module in model.modules()}
    trained = [weight for weight in model.parameters() if frozen and weight.requires_grad]
    model.eval()
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
        for weight in trained:
            weight.requires_grad_(True)
