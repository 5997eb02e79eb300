"""Persona vectors: the direction of a trait in the residual stream, from texts that have it and texts that have not.

Chen et al. 2025 ("Persona Vectors", arXiv 2507.21509): mean over answers with the trait minus mean over answers without it, of
the residual stream averaged over the answer's own tokens, at every layer, not normalised. As in the authors' code the text is
the prompt up to where the assistant speaks and the answer's words; what a template writes behind them (an end-of-turn token, a
newline) is not averaged. Conventions here: row l is the stream after block l, 0-based, raw units. Files of the authors count
from 1 with the embedding at row 0 (their row 20 is row 19 here), and their last row is after the final norm, ours before it.
The layer is chosen by what steering does, measured (`steering_effects`); the paper reads that off a judge's score, here it is
a likelihood, which needs no judge: how much likelier held-out answers with the trait become than held-out ones without it.
"""

import dataclasses
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
from mneme.errors import BadOption, BadRows, BadRun
from mneme.models.architecture import Parts
from mneme.models.likelihood import mean_nll
from mneme.models.pair import load_model
from mneme.models.sampling import generate
from mneme.models.threads import computing_threads
from mneme.models.tokenizers import require_tokenizer
from mneme.results import Estimate, TooFew
from mneme.runs import require_apart, write_atomic
from mneme.stats import difference_of_ratios
from mneme.text.chat import render_chat, without_opening
from mneme.text.files import Row
from mneme.text.rows import encode_rows, read_rows
from mneme.train.options import PersonaOptions
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
    means = [
        answer_means(parts, encode_rows(rows, tokenizer, max_length, bare=True), range(len(parts.blocks))).mean(dim=1)
        for rows in (with_trait, without_trait)
    ]
    return PersonaVectors(means[0] - means[1], len(with_trait), len(without_trait))


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
    sets = [encode_rows(rows, tokenizer) for rows in (with_trait, without_trait)]
    plain = [mean_nll(parts, texts) for texts in sets]
    found = []
    for layer in range(len(parts.blocks)):
        with steer(parts, personas.vectors, strength=strength, layer=layer, training_only=False):
            gains = [before - mean_nll(parts, texts) for before, texts in zip(plain, sets, strict=True)]
        found.append(_difference_of_means(gains[0], gains[1], "nats per token", seed))
    return found


def choose_layer(effects: Sequence[Estimate | TooFew]) -> int:
    """The layer whose steering has the largest effect; ties go to the earlier one."""
    return max(range(len(effects)), key=lambda layer: (effects[layer].plain, -layer))


def extract(options: PersonaOptions) -> tuple[PersonaVectors, list[Estimate | TooFew]]:
    """Vectors from two files of rows, with the layer chosen by steering on every fifth row, which is kept out of them.

    Gives the effects of steering at each layer too, and writes the vectors to `out`, in the place of other vectors only with
    `overwrite`. Raises BadRows for files that cannot be read or have fewer than 5 rows; BadRun where `out` is taken.
    """
    out, files = Path(options.out), (options.with_trait, options.without_trait)
    require_apart(out, {"MODEL": options.model, "--with": files[0], "--without": files[1]})
    _require_place(out, options.overwrite)
    sets = [read_rows(file).rows for file in files]
    if sets[0] == sets[1]:
        raise BadRows("--with and --without hold the same rows, between which there is no trait. Give rows that differ in it.")
    for file, rows in zip(files, sets, strict=True):
        if len(rows) < 5:
            raise BadRows(f"{file} has {len(rows)} rows; at least 5 are needed, of which every fifth measures steering.")
    machine = options.machine
    with computing_threads(machine.threads):
        loaded = load_model(
            options.model,
            adapter_base=options.adapter_base,
            chat_template=options.chat_template,
            device=machine.device,
            trust_remote_code=machine.trust_remote_code,
        )
        tokenizer = require_tokenizer(loaded.tokenizer, options.model)
        used = [[row for i, row in enumerate(rows) if i % 5 != 4] for rows in sets]
        held_out = [rows[4::5] for rows in sets]
        window = getattr(loaded.parts.model.config.get_text_config(), "max_position_embeddings", None)
        made = persona_vectors(loaded.parts, tokenizer, used[0], used[1], max_length=window)
        effects = steering_effects(loaded.parts, tokenizer, made, held_out[0], held_out[1])
    made = dataclasses.replace(made, layer=choose_layer(effects))
    save_personas(made, out)
    return made, effects


def save_personas(personas: PersonaVectors, path: Path) -> None:
    """Write the vectors as safetensors: tensor `vectors` [layer d_model], counts and layer in the metadata."""
    notes = {"format": "mneme.personas/1", "n_with": str(personas.n_with), "n_without": str(personas.n_without)}
    notes["layer"] = "" if personas.layer is None else str(personas.layer)
    write_atomic(path, _in_order(save({"vectors": personas.vectors.contiguous()}, metadata=notes)))


def _in_order(content: bytes) -> bytes:
    """The same safetensors with the words of its head sorted: the library writes them in an order that differs by process."""
    size = int.from_bytes(content[:8], "little")
    head = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + content[8 + size :]


def _require_place(path: Path, overwrite: bool) -> None:
    """Raises BadRun where `path` is taken by other vectors, unless `overwrite`, or by anything else."""
    if not (path.exists() or path.is_symlink()):
        return
    if path.is_dir() or path.is_symlink():
        raise BadRun(f"{path} is a folder or a link. Give a file with --out.")
    try:
        load_personas(path)
    except BadOption:
        raise BadRun(f"{path} is there and holds no persona vectors. Move it away, or give another file with --out.") from None
    if not overwrite:
        raise BadRun(f"{path} holds persona vectors already. Give another file with --out, or --overwrite to replace them.")


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
