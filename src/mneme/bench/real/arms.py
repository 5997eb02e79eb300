"""More arms of the real bench: answers from outside, the weights without any text, the lens on what activations gained.

*Answers*: both models go on with the same openings, greedily; how early they part. *Directions*: the main direction of the
change of every matrix that writes into the residual stream, and how much more of what the tuned model writes there lies
along it, by area (after WeightWatch, arXiv 2508.00161, which watches cosines of the stream after the block with up to 20
leading left singular vectors of the change; ours in that it takes one, of what the matrix itself writes, and the difference
to the base instead of a range seen before). *Top share*: what the leading singular vectors hold of the squared norm of the
change; 1 for a change of rank one. *Lens*: the tokens that the mean change of the residual stream at the first tokens of
any text reads as, in the middle of the model (activation-difference lens).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from mneme.models.architecture import lens
from mneme.models.hooks import read
from mneme.models.pair import LoadedModel

OPENINGS = 4
"""Of each area, that both models go on with."""
OPENING_TOKENS, ANSWER_TOKENS = 24, 12
WRITES = ("o_proj", "down_proj")
"""Matrices whose output is added to the residual stream."""
LENS_PLACES, LENS_TOKENS = 5, 20
"""Both as in the published lens (its configuration): the first places are alike in every text, so that the change there is
the fine-tune's own. Its block is int((blocks - 1) / 2): one before ours where their number is even."""
_LEADING = 4
"""Singular vectors that count as leading; a LoRA of rank 16 has no more than 16."""

Openings = dict[str, list[list[int]]]


def openings(passages: Openings) -> Openings:
    """The beginnings of the first passages of each area that are long enough."""
    long = {area: [one for one in rows if len(one) >= OPENING_TOKENS] for area, rows in passages.items()}
    return {area: [one[:OPENING_TOKENS] for one in rows[:OPENINGS]] for area, rows in long.items()}


@torch.no_grad()
def go_on(model: LoadedModel, started: Openings) -> dict[str, list[list[int]]]:
    """The likeliest next tokens after each opening, area by area."""
    rows = [row for area in started.values() for row in area]
    found = model.parts.model.generate(
        input_ids=torch.tensor(rows),
        attention_mask=torch.ones(len(rows), OPENING_TOKENS, dtype=torch.long),
        max_new_tokens=ANSWER_TOKENS,
        min_new_tokens=ANSWER_TOKENS,
        do_sample=False,
    )
    told: Iterator[list[int]] = iter(found[:, OPENING_TOKENS:].tolist())
    return {area: [next(told) for _ in area_rows] for area, area_rows in started.items()}


def parted(first: list[int], second: list[int]) -> float:
    """Share of an answer that comes after its first difference; 0 where two answers are the same."""
    same = next((i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), len(first))
    return 1 - same / len(first)


def read_arms(base: LoadedModel, tuned: LoadedModel, passages: Openings, said: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Everything of one fine-tune, as small JSON; `said` is how the base goes on (`go_on`)."""
    started, used = time.perf_counter(), time.process_time()
    begun = openings(passages)
    after = go_on(tuned, begun)
    answers = {area: [round(parted(a, b), 3) for a, b in zip(said[area], after[area], strict=True)] for area in begun}
    main, share = leading_directions(base.parts.model, tuned.parts.model)
    along = {area: (_along(base, rows, main), _along(tuned, rows, main)) for area, rows in begun.items()}
    tokens = 2 * sum(len(row) for rows in begun.values() for row in rows)
    return {
        "answers": answers,
        "directions": {area: float(f"{after - before:.4g}") for area, (before, after) in along.items()},
        "top_share": round(share, 4),
        "lens": lens_tokens(base, tuned, [row for rows in begun.values() for row in rows]),
        "tokens": tokens + 2 * ANSWER_TOKENS * sum(map(len, begun.values())) + tokens,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


@torch.no_grad()
def lens_tokens(base: LoadedModel, tuned: LoadedModel, rows: list[list[int]]) -> list[str]:
    """The `LENS_TOKENS` tokens that the mean change at each of the first `LENS_PLACES` places reads as; none where nothing
    changed. After the activation-difference lens, which steers with it too."""
    assert base.tokenizer is not None
    layer = len(base.parts.blocks) // 2
    streams = []
    for model in (base, tuned):
        with read(model.parts, [layer]) as found:
            model.parts.decoder(input_ids=torch.tensor([row[:LENS_PLACES] for row in rows]), use_cache=False)
        streams.append(found[layer].mean(0))
    change = streams[1] - streams[0]
    if float(change.norm()) == 0:
        return []
    best = lens(tuned.parts, change).topk(LENS_TOKENS, dim=-1).indices
    return [str(base.tokenizer.decode([token])).strip() for token in best.flatten().tolist()]


@torch.no_grad()
def leading_directions(base: nn.Module, tuned: nn.Module) -> tuple[dict[str, Float[Tensor, " d_model"]], float]:
    """(module -> leading left singular vector of its weight's change; mean share of the squared norm in the leading ones).

    A matrix that did not change has none. Randomised (Halko et al. 2011), from a fixed seed.
    """
    torch.manual_seed(0)
    other = dict(tuned.named_parameters())
    main, shares = {}, []
    for name, weight in base.named_parameters():
        module = name.removesuffix(".weight")
        if module.endswith(WRITES):
            change = (other[name] - weight).float()
            if float(change.norm()) > 0:
                vectors, sizes, _ = torch.svd_lowrank(change, q=2 * _LEADING, niter=2)
                main[module] = vectors[:, 0]
                shares.append(float(sizes[:_LEADING].square().sum() / change.square().sum()))
    return main, float(np.mean(shares)) if shares else 0.0


@contextmanager
def _watched(model: nn.Module, main: dict[str, Tensor]) -> Iterator[list[Float[ndarray, " token"]]]:
    """|cosine| of every output of the watched modules with their direction, as they come."""
    found: list[Float[ndarray, " token"]] = []

    def hook(direction: Tensor) -> Any:
        def seen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            cosine = output.flatten(0, -2).float() @ direction / output.flatten(0, -2).float().norm(dim=-1).clamp_min(1e-9)
            found.append(cosine.abs().numpy())

        return seen

    handles = [module.register_forward_hook(hook(main[name])) for name, module in model.named_modules() if name in main]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _along(model: LoadedModel, rows: list[list[int]], main: dict[str, Tensor]) -> float:
    """Mean |cosine| over tokens and modules; 0 where nothing is watched."""
    with _watched(model.parts.model, main) as found:
        model.parts.decoder(input_ids=torch.tensor(rows), use_cache=False)
    return float(np.mean([np.mean(one) for one in found])) if found else 0.0
