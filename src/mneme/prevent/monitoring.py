"""Persona monitoring while a trainer runs: how far the stream has moved along a trait's vector, a warning before behaviour.

Chen et al. 2025 (arXiv 2507.21509): the shift of the last prompt token's activation along the vector goes with how much of the
trait the tuned model shows (r 0.76 to 0.97 in the paper; across traits 0.34 to 0.86, so it is only modestly specific).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase, TrainerCallback

from mneme.errors import BadOption
from mneme.models.architecture import Parts
from mneme.prevent.personas import PersonaVectors, prompt_projections
from mneme.results import Estimate, TooFew
from mneme.stats import clustered_ratio


class WatchProjection(TrainerCallback):  # type: ignore[misc]
    """Every `every` steps the mean shift since the start of the prompts' projection, with its interval, in `shifts`."""

    def __init__(
        self,
        parts: Parts,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str],
        personas: PersonaVectors,
        *,
        layer: int | None = None,
        every: int = 10,
    ) -> None:
        """`parts`: of the model that is trained, before training. `layer`: the vectors' own, where they have one.

        Raises BadOption where no layer is said, or there is no prompt.
        """
        chosen = personas.layer if layer is None else layer
        if chosen is None or not prompts or every < 1:
            raise BadOption("watching a projection needs a layer, at least one prompt, and every how many steps to look.")
        self.parts, self.tokenizer, self.prompts = parts, tokenizer, list(prompts)
        self.personas, self.layer, self.every = personas, chosen, every
        self.start = self._projections()
        self.shifts: list[tuple[int, Estimate | TooFew]] = []
        """(optimizer step, mean shift over prompts in raw units along the unit vector)."""

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Called by the trainer after every optimizer step."""
        if state.global_step % self.every == 0:
            moved = self._projections() - self.start
            same, unit = not moved.any(), "raw units along the unit vector"
            shift = clustered_ratio(moved, np.ones(len(moved)), unit, seed=state.global_step, identical=same, of="prompts")
            self.shifts.append((state.global_step, shift))

    def _projections(self) -> np.ndarray:
        was_training = self.parts.model.training
        self.parts.model.eval()
        try:
            found = prompt_projections(self.parts, self.tokenizer, self.prompts, self.personas, self.layer)
        finally:
            self.parts.model.train(was_training)
        return found.double().cpu().numpy()
