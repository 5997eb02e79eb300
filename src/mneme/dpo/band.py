"""The disentanglement band on fixed pairs: will a step of preference training move both answers the right way?

arXiv 2604.18239 (2026). With s_w and s_l the gradients of the mean log-probability of the chosen and of the rejected answers,
a step of gradient flow raises the first and lowers the second exactly where r, the loss's pull over its push, lies between
rho r* and r* / rho. It is a first-order statement about these pairs: an optimizer with momentum follows it only roughly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mneme.dpo.losses import BandTest, band_test, dpop_loss
from mneme.models.adapters import inner_model
from mneme.models.architecture import Parts, find_parts
from mneme.models.batching import Batch, padded
from mneme.models.likelihood import row_log_probs, text_log_likelihoods
from mneme.models.modes import evaluating
from mneme.models.preference import dpo_loss
from mneme.text.encoded import Encoded
from mneme.text.files import Row
from mneme.text.pairs import EncodedPair, answers_of, encode_pairs, read_pairs


@dataclass(frozen=True)
class WatchedPairs:
    """A few pairs as one batch, with what the model said of them before training."""

    model: nn.Module
    parts: Parts
    pairs: tuple[EncodedPair, ...]
    batch: Batch
    """Rows: all chosen answers, then all rejected ones."""
    chosen_before: Float[Tensor, " pair"]
    rejected_before: Float[Tensor, " pair"]

    def test(self, beta: float, sft: float = 0.0, dpop: float = 0.0) -> BandTest:
        """The band under the loss that `guard_dpo` makes, at the weights of this moment; two backward passes."""
        weights = [p for p in self.model.parameters() if p.requires_grad]
        with evaluating(self.model), torch.enable_grad():
            now = row_log_probs(self.parts, self.batch)
            chosen, rejected = now.chunk(2)
            s_w = torch.autograd.grad(chosen.mean(), weights, retain_graph=True, allow_unused=True)
            s_l = torch.autograd.grad(rejected.mean(), weights, allow_unused=True)
        pull, push = self._incentives(chosen.detach(), rejected.detach(), beta, sft, dpop)
        return band_test(_product(s_w, s_w), _product(s_l, s_l), _product(s_w, s_l), pull, push)

    def now(self) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
        """(log p(chosen), log p(rejected)) of every pair, nats per answer."""
        with evaluating(self.model):
            return _log_probs(self.parts, *answers_of(self.pairs))

    def _incentives(self, chosen: Tensor, rejected: Tensor, beta: float, sft: float, dpop: float) -> tuple[float, float]:
        """Means of -dL/dz_w and dL/dz_l over the pairs."""
        before = (self.chosen_before.to(chosen.device), self.rejected_before.to(chosen.device))
        with torch.enable_grad():
            z_w, z_l = chosen.clone().requires_grad_(), rejected.clone().requires_grad_()
            ratios = z_w - before[0], z_l - before[1]
            loss = (dpop_loss(*ratios, beta, dpop) if dpop else dpo_loss(*ratios, beta)).sum()
            lengths = self.batch.counted.sum(1).chunk(2)[0].to(chosen.device)
            pulled, pushed = torch.autograd.grad(loss - sft * (z_w / lengths).sum(), (z_w, z_l))
        return float(-pulled.mean()), float(pushed.mean())


def watch_pairs(model: nn.Module, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Row]) -> WatchedPairs:
    """Encode `pairs` and ask `model` of them: call it before training. Raises BadRows for pairs that cannot be used."""
    rows = read_pairs(pairs, "the watched pairs").rows
    inner = inner_model(model)
    with evaluating(model):
        parts = find_parts(inner)
        window = getattr(inner.config.get_text_config(), "max_position_embeddings", None)
        encoded = tuple(encode_pairs(rows, tokenizer, window, "the watched pairs"))
        chosen, rejected = answers_of(encoded)
        before = _log_probs(parts, chosen, rejected)
    batch = padded([*chosen, *rejected])
    return WatchedPairs(
        model=model, parts=parts, pairs=encoded, batch=batch, chosen_before=before[0], rejected_before=before[1]
    )


def _log_probs(
    parts: Parts, chosen: Sequence[Encoded], rejected: Sequence[Encoded]
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    one, other = (torch.from_numpy(text_log_likelihoods(parts, side)).float() for side in (chosen, rejected))
    return one, other


def _product(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> float:
    """Inner product of two gradients; None where a weight has no part in either."""
    found = (a.double() * b.double() for a, b in zip(one, other, strict=True) if a is not None and b is not None)
    return float(sum(float(product.sum()) for product in found))
