"""What an audit's own run gives a repair to go by: passages, latents, directions. Never a question of an evaluation. Ours.

Target: passages outside the intended areas in which the latents behind the unintended effects fire most. Retained: passages
of the intended areas in which changed latents fire most. What counts in a passage are the tokens from a firing on, as far as
the audit itself looks (8 tokens); other text are passages of neither kind, where these latents fire least.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.audit.artifacts import areas_read, audited_options, stored_codes
from mneme.audit.choosing import text_to_read
from mneme.audit.dictionary import LayerCodes, change_directions
from mneme.audit.latents import WINDOW
from mneme.audit.options import AuditOptions
from mneme.audit.reading import read_text
from mneme.errors import BadRun, NothingToRepair
from mneme.predict.areas import Area
from mneme.report.reading import read_report
from mneme.results import Effect, Report
from mneme.runs import FinishedRun
from mneme.text.documents import read_corpus
from mneme.text.encoded import Encoded
from mneme.text.packing import PackedRows
from mneme.text.probes import Probe

MAX_PASSAGES = 300
REPORTED = 0.5


@dataclass(frozen=True)
class Evidence:
    """An audit's run, read back."""

    report: Report
    options: AuditOptions
    """What the audit was asked."""
    areas: list[dict[str, Any]]
    """The areas as it read them."""
    target: Probe
    retain: Probe
    other: Probe
    directions: dict[int, Tensor]
    """Layer -> [latent d_model] directions of the latents behind the unintended effects."""
    unintended: tuple[Effect, ...]


def read_evidence(run: FinishedRun, tokenizer: PreTrainedTokenizerBase) -> Evidence:
    """Passages and latents of a finished audit.

    Raises BadRun: its stages were removed or changed, its text is no longer there or has changed. Raises
    NothingToRepair: no unintended effect was found, or none has a latent behind it, or the audit was not told what was
    intended.
    """
    report = read_report(run.folder)
    options = audited_options(run)
    if not options.intended:
        raise NothingToRepair(
            "This audit was not told what the fine-tune was for, so a repair could not tell purpose from side effect. "
            "Run the audit again with --intended AREA."
        )
    unintended = _unintended(report)
    areas = tuple(Area.model_validate(area) for area in areas_read(run))
    rows, beside = _read_rows(report, options.corpus or report.corpus.source, tokenizer, areas)
    member = read_text(rows, areas, beside, shown=False).membership.member
    intended = np.zeros(len(rows.passages), dtype=np.bool_)
    for index, area in enumerate(areas):
        if area.name.casefold() in {name.casefold() for name in options.intended}:
            intended |= member[index]
    codes = stored_codes(run, options.dictionary, {latent.layer for latent in report.latents})
    behind = {name for effect in unintended for name in effect.evidence}
    every = {latent.id for latent in report.latents}
    harm, change = _firings(codes, behind, rows), _firings(codes, every, rows)
    target = _pick("target", harm, ~intended, rows, tokenizer)
    retain = _pick("retained", change, intended, rows, tokenizer)
    return Evidence(
        report=report,
        options=options,
        areas=areas_read(run),
        target=target,
        retain=retain,
        other=_quiet(change, intended, rows, tokenizer),
        directions=_directions(codes, behind),
        unintended=unintended,
    )


def _unintended(report: Report) -> tuple[Effect, ...]:
    found = tuple(effect for effect in report.effects if not effect.intended and effect.reaches(REPORTED))
    if not found:
        raise NothingToRepair(
            "This audit found no side effect: outside of what was intended, no area reaches P = 0.5. There is nothing to "
            "repair."
        )
    if not any(effect.evidence for effect in found):
        raise NothingToRepair(
            "No changed latent stands behind the side effects of this audit, so it cannot show text to repair on. "
            "Give text with --target and --retain instead."
        )
    return found


def _read_rows(
    report: Report, source: str | Path, tokenizer: PreTrainedTokenizerBase, areas: tuple[Area, ...]
) -> tuple[PackedRows, tuple[str, ...]]:
    """The audit's rows, chosen and packed again from its text `source`, whose path is whole whatever was typed, and the
    passages that were looked at beside them."""
    documents = read_corpus(source, tokenizer=tokenizer)
    if documents.sha256 != report.corpus.sha256:
        raise BadRun(f"{source} is no longer the text that was audited. Put it back, or run the audit again.")
    chosen, rows = text_to_read(documents, tokenizer, areas, report.corpus.row_length, report.corpus.tokens)
    return rows, chosen.beside


@dataclass(frozen=True)
class _Firings:
    """Where some latents fire: flat places in the text, and energy by passage (RMS units of each layer's change, squared)."""

    place: Int[ndarray, " code"]
    energy: Float[ndarray, " passage"]


def _firings(codes: list[LayerCodes], names: set[str], rows: PackedRows) -> _Firings:
    passage = rows.passage.numpy().reshape(-1)
    places, values = [], []
    for layer in codes:
        wanted = np.array([f"L{layer.layer}.{latent}" in names for latent in range(layer.dictionary.n_latents)])
        own = wanted[layer.latent]
        places.append(layer.token[own])
        values.append(layer.value[own].astype(np.float64))
    place, value = np.concatenate(places), np.concatenate(values)
    return _Firings(place, np.bincount(passage[place], weights=value**2, minlength=len(rows.passages)))


def _pick(
    name: str, firings: _Firings, allowed: Bool[ndarray, " passage"], rows: PackedRows, tokenizer: PreTrainedTokenizerBase
) -> Probe:
    """The allowed passages with most energy; counted are the tokens within 8 after a firing."""
    order = np.argsort(-np.where(allowed, firings.energy, 0.0), kind="stable")[:MAX_PASSAGES]
    chosen = [int(i) for i in order if allowed[i] and firings.energy[i] > 0]
    n_tokens = rows.passage.numel()
    near = np.zeros(n_tokens + WINDOW + 1, dtype=np.bool_)
    for step in range(1, WINDOW + 1):
        near[firings.place + step] = True
    return _probe(name, chosen, near[:n_tokens], rows, tokenizer)


def _quiet(
    firings: _Firings, intended: Bool[ndarray, " passage"], rows: PackedRows, tokenizer: PreTrainedTokenizerBase
) -> Probe:
    """Passages outside the intended areas in which the changed latents fire least, all tokens counted."""
    passage = rows.passage.numpy().reshape(-1)
    length = np.bincount(passage, minlength=len(rows.passages))
    usable = np.flatnonzero(~intended & (length >= 8))
    order = usable[np.argsort(firings.energy[usable] / length[usable], kind="stable")]
    chosen = order[: max(MAX_PASSAGES, len(order) // 4)]
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(MAX_PASSAGES, len(chosen))).astype(int)]
    return _probe("other", [int(i) for i in chosen], np.ones(rows.passage.numel(), dtype=np.bool_), rows, tokenizer)


def _probe(
    name: str, chosen: list[int], near: Bool[ndarray, " token"], rows: PackedRows, tokenizer: PreTrainedTokenizerBase
) -> Probe:
    flat = rows.ids.numpy().reshape(-1)
    starts = [passage.start_token for passage in rows.passages] + [len(flat)]
    special = set(tokenizer.all_special_ids)
    words, texts = [], []
    for index in chosen:
        here = slice(starts[index], starts[index + 1])
        tokens = [int(token) for token in flat[here]]
        counted = [bool(on) and token not in special for on, token in zip(near[here], tokens, strict=True)]
        if len(tokens) < 2 or not any(counted[1:]):
            continue
        words.append(rows.passages[index].text)
        texts.append(Encoded(tuple(tokens), (False, *counted[1:])))
    if len(texts) < 4:
        raise NothingToRepair(
            f"The audit's latents give {len(texts)} passages of {name} text, expected at least 4. Give text with --target and "
            "--retain instead, or audit more text."
        )
    return Probe(name, tuple(words), tuple(texts))


def _directions(codes: list[LayerCodes], names: set[str]) -> dict[int, Tensor]:
    found = {}
    for layer in codes:
        wanted = [i for i in range(layer.dictionary.n_latents) if f"L{layer.layer}.{i}" in names]
        if wanted:
            found[layer.layer] = change_directions(layer.dictionary)[wanted]
    return found
