"""The two plain safeguards that every other one has to beat: training less (early stopping) and training more slowly.

Early stopping avoids emergent misalignment in many cases at little cost to the task (arXiv 2605.12199): the task is learned
before the side effect. On narrow data the loss on held-out rows never rises, so the usual rule (stop when it does) never
stops; here training ends once an evaluation brought less than a share of all the fall so far.
"""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from mneme.errors import BadOption


def should_stop(losses: Sequence[float], tolerance: float) -> bool:
    """True where the last evaluation took less than `tolerance` of the whole fall from the first loss to the last.

    A loss that rose at the last evaluation stops too; a loss that has not fallen at all does not.
    """
    if len(losses) < 3:
        return False
    fallen, last = losses[0] - losses[-1], losses[-2] - losses[-1]
    return fallen > 0 and last < tolerance * fallen


class StopEarly(TrainerCallback):  # type: ignore[misc]
    """Ends training by `should_stop` on the logged evaluation losses, which a resumed run has too."""

    def __init__(self, tolerance: float = 0.05) -> None:
        """`tolerance` in (0, 1): larger stops earlier."""
        if not 0 < tolerance < 1:
            raise BadOption(f"early stopping by a share of {tolerance:g} makes no sense. Give a number between 0 and 1.")
        self.tolerance = tolerance

    def on_evaluate(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> Any:
        """Called by the trainer after every evaluation."""
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        if should_stop(losses, self.tolerance):
            control.should_training_stop = True
        return control
