"""Does the repaired model still speak? Its sampled continuations are scored by the base and by the tuned model. Ours.

A continuation is coherent where the base or the tuned model finds it at least as likely, per token, as the least likely 5 % of
what it says itself to the same prompts. No judge: garble is unlikely under both models, whatever it would be judged to be.
"""

from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from mneme.errors import EmptyMask
from mneme.models.architecture import Parts
from mneme.models.likelihood import mean_nll
from mneme.models.pair import ModelPair
from mneme.models.sampling import generate
from mneme.results import Estimate
from mneme.stats import clustered_rate
from mneme.text.encoded import answer_after
from mneme.text.probes import Probe

MAX_PROMPTS = 48
NEW_TOKENS = 24
_LOWEST = 0.05


def prompts_of(probe: Probe, tokenizer: PreTrainedTokenizerBase, *, limit: int = MAX_PROMPTS) -> list[str]:
    """What stands before the first counted token; of plain text (where all counts) the first third."""
    n = len(probe.texts)
    prompts = []
    for text in [probe.texts[i * n // limit] for i in range(limit)] if n > limit else probe.texts:
        first = len(text.prompt)
        end = first if first > 1 else max(2, len(text.ids) // 3)
        prompts.append(str(tokenizer.decode(text.ids[:end], skip_special_tokens=True)))
    return [prompt for prompt in prompts if prompt.strip()]


def continuations(parts: Parts, tokenizer: PreTrainedTokenizerBase, prompts: list[str], *, seed: int) -> list[str]:
    """One sampled continuation of every prompt, temperature 1, at most 24 tokens."""
    return generate(parts, tokenizer, prompts, max_new_tokens=NEW_TOKENS, temperature=1.0, seed=seed)


def likelihoods(
    parts: Parts, tokenizer: PreTrainedTokenizerBase, prompts: list[str], answers: list[str]
) -> Float[ndarray, " answer"]:
    """Mean log-likelihood per token of every answer after its prompt, nats; -inf for an empty answer."""
    texts = []
    for prompt, answer in zip(prompts, answers, strict=True):
        told = list(tokenizer(answer, add_special_tokens=False)["input_ids"]) if answer else []
        texts.append(answer_after(tokenizer(prompt)["input_ids"], told))
    nll = mean_nll(parts, texts)
    return np.where(np.isnan(nll), -np.inf, -nll)


class Coherence:
    """The two models' own continuations, kept, so that any repair can be held against them."""

    def __init__(self, pair: ModelPair, prompts: list[str], *, seed: int) -> None:
        """Raises EmptyMask where there is no prompt."""
        if not prompts:
            raise EmptyMask("There is no prompt to continue: expected probe texts that begin with words.")
        self.pair, self.prompts, self.seed = pair, prompts, seed

    @cached_property
    def floor(self) -> dict[str, float]:
        """Per model, the mean log-likelihood per token below which 5 % of what it says itself lie."""
        return {side: self._floor(side) for side in _SIDES}

    def _floor(self, side: Literal["base", "tuned"]) -> float:
        with self.pair.using(side) as parts:
            said = continuations(parts, self.pair.tokenizer, self.prompts, seed=self.seed)
            own = likelihoods(parts, self.pair.tokenizer, self.prompts, said)
        return float(np.quantile(own[np.isfinite(own)], _LOWEST)) if np.isfinite(own).any() else -np.inf

    @torch.no_grad()
    def judge(self, parts: Parts) -> Estimate:
        """Share of coherent continuations of `parts`, with an interval over prompts."""
        said = continuations(parts, self.pair.tokenizer, self.prompts, seed=self.seed + 1)
        coherent: Bool[ndarray, " answer"] = np.zeros(len(said), dtype=np.bool_)
        for side in _SIDES:
            with self.pair.using(side) as judge:
                coherent |= likelihoods(judge, self.pair.tokenizer, self.prompts, said) >= self.floor[side]
        return clustered_rate(coherent.astype(np.float64), np.ones(len(said)), "share of continuations").estimate


_SIDES: tuple[Literal["base", "tuned"], ...] = ("base", "tuned")
