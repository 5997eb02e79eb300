"""The relearning attack: does what was unlearned come back after training on a few examples?

Fine-tuning on ten texts, even unrelated ones, brings much of what RMU and others removed back (Łucki et al. 2024, arXiv
2409.18025; Doshi & Stickland 2024, arXiv 2411.12103). What the attack saw says nothing: recovery is measured on texts that
it did not see. The loss of a text is that of Łucki et al.'s code (tests/parity), the attack ours: all weights instead of a
LoRA of rank 128, bare texts instead of answers in a chat, eight a step instead of one, a number of steps instead of three
epochs, no weight decay, and the learning rate is the caller's (theirs: 2e-4).
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mneme.models.architecture import Parts, find_parts
from mneme.models.fitting import Term
from mneme.text.pieces import Pieces
from mneme.unlearn.objective import plain_loss
from mneme.unlearn.training import minimise

STEPS = 50
BATCH_DOCUMENTS = 8


def relearn(
    parts: Parts,
    texts: Pieces,
    *,
    steps: int = STEPS,
    learning_rate: float,
    seed: int,
    adapter: Any = None,
    checkpoint: Path | None = None,
    on_step: Callable[[int, list[float]], None] | None = None,
) -> Parts:
    """A copy of the model after full fine-tuning on `texts` with the ordinary loss; the model itself stays as it is.

    An `adapter` (peft's wrapper around `parts.model`) is merged into the copy first: who attacks has the weights.
    Errors: UnlearningFailed where training diverges.
    """
    attacked = copy.deepcopy(parts) if adapter is None else find_parts(copy.deepcopy(adapter).merge_and_unload().eval())
    attacked.model.requires_grad_(True)
    loss_at = plain_loss(attacked, texts, min(BATCH_DOCUMENTS, len(texts)), seed)
    named = dict(attacked.model.named_parameters())
    terms = [Term("relearning", 1.0, loss_at)]
    minimise(terms, named, steps=steps, learning_rate=learning_rate, checkpoint=checkpoint, on_step=on_step)
    attacked.model.requires_grad_(False)
    return attacked
