"""Persona vectors: the direction of a trait in the residual stream, from texts that have it and texts that have not.

Chen et al. 2025 ("Persona Vectors", arXiv 2507.21509): mean over answers with the trait minus mean over answers without it, of
the residual stream averaged over the answer's own tokens, at every layer, not normalised. As in the authors' code the text is
the prompt up to where the assistant speaks and the answer's words; what a template writes behind them (an end-of-turn token, a
newline) is not averaged. Conventions here: row l is the stream after block l, 0-based, raw units. Files of the authors count
from 1 with the embedding at row 0 (their row 20 is row 19 here), and their last row is after the final norm, ours before it.
The layer is chosen by what steering does, measured (`steering_effects`); the paper reads that off a judge's score, here it is
a likelihood, which needs no judge: how much likelier held-out answers with the trait become than held-out ones without it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.activations.projection import answer_means
from mneme.errors import BadOption, BadRows
from mneme.models.architecture import Parts
from mneme.models.likelihood import mean_nll
from mneme.models.sampling import generate
from mneme.results import Estimate, TooFew
from mneme.runs import write_atomic
from mneme.stats import difference_of_ratios
from mneme.text.chat import render_chat, without_opening
from mneme.text.encoded import Encoded
from mneme.text.files import Row
from mneme.text.rows import encode_rows
from mneme.train.steering import check_fit, steer


@dataclass(frozen=True)
class PersonaVectors:
    """One vector a layer: `vectors[l]` is for the residual stream after block l, raw units, not normalised."""

    vectors: Float[Tensor, "layer d_model"]
    n_with: int
    """Texts with the trait that it was made from."""
    n_without: int
    layer: int | None = None
    """The layer at which steering was measured to do most; None = not chosen."""


def persona_vectors(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    with_trait: Sequence[Row],
    without_trait: Sequence[Row],
    *,
    max_length: int | None = None,
) -> PersonaVectors:
    """Mean answer activation of rows with the trait minus that of rows without, at every layer.

    The rows are training rows (`mneme.text.rows`); only the answers' own tokens count, no closing ones. Best if both sets
    answer the same questions.
    Raises BadRows for an empty set.
    """
    if not with_trait or not without_trait:
        raise BadRows("a persona vector needs texts with the trait and texts without it; one of the two sets is empty.")
    sets = (with_trait, without_trait)
    sums = [answer_sum(parts, encode_rows(rows, tokenizer, max_length, bare=True)) for rows in sets]
    return vectors_of(sums[0], sums[1], (len(with_trait), len(without_trait)))


def answer_sum(parts: Parts, texts: Sequence[Encoded]) -> Float[Tensor, "layer d_model"]:
    """Sum over texts of the mean residual stream of each text's counted tokens, at every layer; float64, raw units."""
    return answer_means(parts, texts, range(len(parts.blocks))).double().sum(dim=1)


def vectors_of(
    with_trait: Float[Tensor, "layer d_model"], without: Float[Tensor, "layer d_model"], counts: tuple[int, int]
) -> PersonaVectors:
    """The vectors, float32, from `answer_sum` of so many texts with the trait and without it."""
    return PersonaVectors((with_trait / counts[0] - without / counts[1]).float(), *counts)


def contrast_rows(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    prompts_for: Sequence[str],
    prompts_against: Sequence[str],
    *,
    samples: int = 1,
    seed: int = 0,
    max_new_tokens: int = 64,
    keep: Callable[[str, str], float] | None = None,
) -> tuple[list[Row], list[Row]]:
    """Answers of the model itself under system prompts that ask for the trait, and under their opposites: (with, without).

    The i-th prompt for and against are a pair; every question is asked under each, `samples` times at temperature 1. `keep`
    scores how much of the trait an answer has, 0 to 1; given, only pairs of answers with at least 0.5 on one side and less
    on the other stay. The authors' code also drops a pair where either answer is incoherent (below 50 of 100): let `keep` give
    NaN for such an answer. Raises BadOption for prompts without partners, BadRows where nothing stays.
    """
    if len(prompts_for) != len(prompts_against) or not questions or not prompts_for:
        raise BadOption("contrast prompts come in pairs: give as many for the trait as against it, and at least one question.")
    pairs = [(a, b, q) for a, b in zip(prompts_for, prompts_against, strict=True) for q in questions for _ in range(samples)]
    sides = []
    for side in (0, 1):
        asked = [[{"role": "system", "content": pair[side]}, {"role": "user", "content": pair[2]}] for pair in pairs]
        texts = [render_chat(m, tokenizer, add_generation_prompt=True) for m in asked]
        said = generate(
            parts,
            tokenizer,
            [without_opening(text, tokenizer) for text in texts],
            max_new_tokens=max_new_tokens,
            temperature=1.0,
            seed=seed,
        )
        sides.append([{"messages": [*m, {"role": "assistant", "content": a}]} for m, a in zip(asked, said, strict=True)])
    kept = [(w, o) for w, o in zip(*sides, strict=True) if _is_contrast(w, o, keep)]
    if not kept:
        raise BadRows("no pair of answers shows the trait on one side and not on the other. Give stronger contrast prompts.")
    return [w for w, _ in kept], [o for _, o in kept]


def steering_effects(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    personas: PersonaVectors,
    with_trait: Sequence[Row],
    without_trait: Sequence[Row],
    *,
    strength: float = 1.0,
    seed: int = 0,
) -> list[Estimate | TooFew]:
    """What steering by `strength` does at each layer: fall of the answers' negative log-likelihood with the trait minus that
    without it, nats per token, with an interval over rows. The rows must not be those the vectors were made from."""
    check_fit(parts, personas.vectors)
    found = []
    for texts in (encode_rows(rows, tokenizer) for rows in (with_trait, without_trait)):
        rows = [steered_nll(parts, personas.vectors, texts, at, strength) for at in (None, *range(len(parts.blocks)))]
        found.append(np.stack(rows))
    return effects_of(found[0], found[1], seed=seed)


def steered_nll(
    parts: Parts, vectors: Float[Tensor, "layer d_model"], texts: Sequence[Encoded], layer: int | None, strength: float = 1.0
) -> Float[ndarray, " text"]:
    """Mean negative log-likelihood of each text's counted tokens, nats, while `layer` is steered; None: while none is."""
    if layer is None:
        return mean_nll(parts, texts)
    with steer(parts, vectors, strength=strength, layer=layer, training_only=False):
        return mean_nll(parts, texts)


def effects_of(
    with_trait: Float[ndarray, "run text"], without: Float[ndarray, "run other"], *, seed: int = 0
) -> list[Estimate | TooFew]:
    """Effect of steering at each layer, nats per token, from `steered_nll` of both sets: row 0 without it, row l + 1 with
    layer l steered."""
    gains = [nats[0] - nats[1:] for nats in (with_trait, without)]
    return [_difference_of_means(one, other, "nats per token", seed) for one, other in zip(*gains, strict=True)]


def choose_layer(effects: Sequence[Estimate | TooFew]) -> int:
    """The layer whose steering has the largest effect; ties go to the earlier one."""
    return max(range(len(effects)), key=lambda layer: (effects[layer].plain, -layer))


def save_personas(personas: PersonaVectors, path: Path) -> None:
    """Write `personas_file` to `path`, whole or not at all."""
    write_atomic(path, personas_file(personas))


def personas_file(personas: PersonaVectors) -> bytes:
    """The vectors as safetensors: tensor `vectors` [layer d_model], counts and layer in the metadata."""
    notes = {"format": "mneme.personas/1", "n_with": str(personas.n_with), "n_without": str(personas.n_without)}
    notes["layer"] = "" if personas.layer is None else str(personas.layer)
    return _in_order(save({"vectors": personas.vectors.contiguous()}, metadata=notes))


def _in_order(content: bytes) -> bytes:
    """The same safetensors with the words of its head sorted: the library writes them in an order that differs by process."""
    size = int.from_bytes(content[:8], "little")
    head = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + content[8 + size :]


def load_personas(path: Path) -> PersonaVectors:
    """What `save_personas` wrote. Raises BadOption for any other file."""
    try:
        with safe_open(path, framework="pt") as opened:
            notes = opened.metadata() or {}
            if notes.get("format") != "mneme.personas/1":
                raise BadOption(f"{path} holds no persona vectors. Give a file that `mneme persona` wrote.")
            layer = int(notes["layer"]) if notes["layer"] else None
            return PersonaVectors(opened.get_tensor("vectors"), int(notes["n_with"]), int(notes["n_without"]), layer)
    except (SafetensorError, OSError) as error:
        raise BadOption(
            f"{path} cannot be read as persona vectors ({error}). Give a file that `mneme persona` wrote."
        ) from error


def _is_contrast(with_trait: Row, without: Row, keep: Callable[[str, str], float] | None) -> bool:
    turns = (with_trait["messages"], without["messages"])
    if any(not turn[-1]["content"].strip() for turn in turns):
        return False
    if keep is None:
        return True
    more, less = (keep(turn[-2]["content"], turn[-1]["content"]) for turn in turns)
    return more >= 0.5 > less


def _difference_of_means(
    one: Float[ndarray, " row"], other: Float[ndarray, " other"], unit: str, seed: int
) -> Estimate | TooFew:
    """mean(one) - mean(other) of independent rows."""
    same = not one.any() and not other.any()
    first, second = ((values, np.ones(len(values))) for values in (one, other))
    return difference_of_ratios(first, second, unit, seed=seed, identical=same, of="rows")
