"""Causal check: take away the change that one latent carries and see how much of the change in output goes with it.

The tuned model runs with its residual stream after the latent's layer replaced by h_tuned - f_j (d_tuned,j - d_base,j); what
is compared is KL(tuned || base) with and without, on the passages where the latent fires. A latent that fires on much
changed text would look causal by that alone, so each is paired, passage by passage, with controls that take away as much:
the same codes times random directions and times the change of other latents, both scaled to the same norm (matched random
ablation; high latent-scaling scores and stability over seeds are no evidence of causality, see docs/methods.md). p-values
are one-sided and hold for skewed differences (`stats.paired_test`), 1 below 8 passages, corrected for the false-discovery rate
by the caller."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.errors import EmptyMask
from mneme.models.heads import head_logits, rows_at_once
from mneme.models.hooks import can_go_on, going_on, read_residuals
from mneme.models.logits import token_kl_tuned_to_base
from mneme.models.pair import ModelPair, Side
from mneme.models.sides import on_both
from mneme.results import Estimate, TooFew
from mneme.stats import clustered_ratio, paired_test

N_CONTROLS = 4
"""Controls of an ablation, each a forward pass: two random directions and two changes of other latents, the fewest of which
either kind has a mean. Never varied."""
PASSES = 3 + N_CONTROLS
"""Forward passes of a check: the base, the tuned model, the ablation, and the controls."""
_TOKENS_AT_ONCE = 1 << 14
"""Tokens that go on together from the layer: 16,384, of which a model of width 8,192 keeps 512 MB. Never varied."""
_TRIED = 16
"""Tokens on which it is tried out whether a model can go on from its middle. A round number that was never varied."""
_TINY = 1e-12
"""Far below the norm of any direction: keeps 0 / 0 from being computed."""
UNIT = "share of KL(tuned||base)"


class CausalResult(NamedTuple):
    """What one ablation showed."""

    share: Estimate
    """Share of KL(tuned || base) that goes, on the passages where the latent fires."""
    p_value: float
    """One-sided: does anything go, and more than with magnitude-matched controls? The larger of the two p-values
    (intersection-union test, Berger 1982): a latent whose ablation does less harm than its controls' is not causal by that."""


def matched_directions(
    own: Float[Tensor, " d_model"], others: Float[Tensor, "latent d_model"], *, seed: int
) -> Float[Tensor, "control d_model"]:
    """Controls of the norm of `own`: half isotropic random directions, half changes of other latents (random where there
    are too few others)."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(N_CONTROLS, len(own), generator=generator)
    half = N_CONTROLS // 2
    if len(others) >= half:
        pick = torch.randperm(len(others), generator=generator)[:half]
        random[:half] = others[pick].float().cpu()
    norms = random.norm(dim=1, keepdim=True).clamp_min(_TINY)
    controls: Tensor = random / norms * own.float().cpu().norm()
    return controls.to(own.device)


class Before(NamedTuple):
    """What both models hold on some rows before anything is taken away."""

    ids: Int[Tensor, "row seq"]
    base: Float[Tensor, "row seq d_model"]
    """The base's residual stream after its last block."""
    tuned: Float[Tensor, "row seq d_model"]
    """The tuned model's after the layer at which it is taken away."""
    said: Float[Tensor, "row seq d_model"]
    """The tuned model's after its last block."""
    skip: bool
    """Whether the tuned model can go on from there (`mneme.models.hooks.can_go_on`)."""


def before_ablation(pair: ModelPair, ids: Int[Tensor, "row seq"], layer: int) -> Before:
    """One pass of each model over the rows."""
    last = pair.n_layers - 1

    def states(side: Side) -> dict[int, Tensor]:
        with pair.using(side) as parts:
            return read_residuals(parts, ids, [last] if side == "base" else [layer, last])

    base, tuned = on_both(pair, states)
    with pair.using("tuned") as parts:
        skip = can_go_on(parts, ids[:1, :_TRIED])
    return Before(ids=ids, base=base[last], tuned=tuned[layer], said=tuned[last], skip=skip)


def ablation_kl(
    pair: ModelPair,
    before: Before,
    layer: int,
    removed: Sequence[Float[Tensor, "row seq d_model"]],
    counted: Bool[ndarray, "row prediction"],
) -> Float[ndarray, "state place"]:
    """KL(tuned || base), nats, as it is (the first), and with each of `removed` taken from the tuned model's residual stream
    after `layer`, at the predictions that are `counted`, in order. Only blocks behind the layer run, for several of `removed`
    in one batch, and the head where something is counted."""
    last = pair.n_layers - 1
    where = torch.from_numpy(np.argwhere(counted))

    def there(stream: Float[Tensor, "row seq d_model"]) -> Float[Tensor, "place d_model"]:
        return stream[where[:, 0].to(stream.device), where[:, 1].to(stream.device)]

    base, said = there(before.base), [there(before.said)]
    together = max(1, _TOKENS_AT_ONCE // before.ids.numel())
    for start in range(0, len(removed), together):
        some = removed[start : start + together]
        state = torch.cat([before.tuned - change.to(before.tuned) for change in some])
        with pair.using("tuned") as parts, going_on(parts, layer, state, skip=before.skip):
            stream = read_residuals(parts, before.ids.repeat(len(some), 1), [last])[last]
        said += [there(one) for one in stream.chunk(len(some))]
    found = np.zeros((len(said), len(where)))
    chunk = rows_at_once(pair)
    for start in range(0, len(where), chunk):
        here = slice(start, start + chunk)
        base_logits = head_logits(pair, "base", base[here])
        for index, own in enumerate(said):
            logits = head_logits(pair, "tuned", own[here]).to(base_logits.device)
            kl = token_kl_tuned_to_base(tuned_logits=logits, base_logits=base_logits)
            found[index, here] = kl.double().cpu().numpy()
    return found


def check_latent(
    pair: ModelPair,
    ids: Int[Tensor, "row seq"],
    passage: Int[ndarray, "row seq"],
    layer: int,
    code: Float[Tensor, "row seq"],
    direction: Float[Tensor, " d_model"],
    others: Float[Tensor, "latent d_model"],
    *,
    seed: int,
) -> CausalResult:
    """Ablate one latent on `ids` (rows where it fires; `code` is its code there, 0 elsewhere) and its matched controls.

    Counted are the predictions of the passages in which it fires, from the first firing on: nothing before can change.
    Cost: a forward pass of each model over the rows, and `PASSES` - 2 behind the layer.

    Errors: EmptyMask where the latent fires nowhere in `ids`, or the two models say the same wherever it does.
    """
    counted = after_first_firing(code.cpu().numpy() > 0, passage)[:, :-1]
    if not counted.any():
        raise EmptyMask("The latent fires nowhere in these rows: expected rows in which its code is above 0.")
    spread = code.unsqueeze(-1).to(direction.device)
    directions = [direction, *matched_directions(direction, others, seed=seed)]
    before = before_ablation(pair, ids.long(), layer)
    plain, own, *controls = ablation_kl(pair, before, layer, [spread * one for one in directions], counted)
    clusters = passage[:, :-1][counted]
    names, index = np.unique(clusters, return_inverse=True)

    def per_passage(values: Float[ndarray, " place"]) -> Float[ndarray, " cluster"]:
        return np.bincount(index, weights=values, minlength=len(names))

    whole, rest = per_passage(plain), per_passage(own)
    advantage = np.mean([per_passage(control) for control in controls], axis=0) - rest
    share = clustered_ratio(whole - rest, whole, UNIT, seed=seed)
    tests = [paired_test(differences, side="greater", seed=seed) for differences in (advantage, whole - rest)]
    p_values = [p_value for p_value in tests if not isinstance(p_value, TooFew)]
    if isinstance(share, TooFew) or len(p_values) < len(tests):
        # Nothing is known of it: the whole range, and no claim.
        value = float((whole - rest).sum() / max(float(whole.sum()), np.finfo(np.float64).tiny))
        return CausalResult(Estimate(value=value, low=min(-1.0, value), high=max(1.0, value), unit=UNIT, n=len(names)), 1.0)
    return CausalResult(share, max(p_values))


def after_first_firing(fires: Bool[ndarray, "row seq"], passage: Int[ndarray, "row seq"]) -> Bool[ndarray, "row seq"]:
    """True from the first firing of each row's passage to the end of that passage in that row."""
    result = np.zeros_like(fires)
    for row in range(len(fires)):
        for name in np.unique(passage[row][fires[row]]):
            inside = passage[row] == name
            first = int(np.flatnonzero(inside & fires[row])[0])
            result[row] |= inside & (np.arange(fires.shape[1]) >= first)
    return result
