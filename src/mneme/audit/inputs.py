"""What an audit is given, checked before anything costs time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from mneme.audit.options import AuditOptions
from mneme.dictionaries.crosscoder import KINDS, Kind
from mneme.errors import BadAreas, BadCorpus, BadOption
from mneme.models.checkpoints import resolve_folder
from mneme.models.pair import PRECISIONS, Precision
from mneme.models.tokenizers import load_tokenizer, require_tokenizer, with_template
from mneme.predict.areas import Area
from mneme.text.documents import Documents
from mneme.text.packing import PackedRows, pack_rows

DEFAULT_TOKENS = 131_072
"""Tokens of text that an audit reads: 512 rows. A round number; the figures of docs/benchmarks.md are of it, and areas that
need more say how many passages they need."""
ROW_LENGTH = 256
"""Tokens of a packed row: two passages of 128, the longest. A round number that was never varied."""
LAYERS_TOKENS = 4096
"""Tokens on which layers are chosen and measured: one batch, because every layer costs a pass. A round number that was never
varied."""
QUICK_TOKENS = 8192
"""Tokens that a quick audit reads. At 248 s of CPU for 22,251 tokens of a 135 M model (docs/log.md, the audit reads own
words) that is 91 s of CPU before any paired answer; a round number that was never varied."""
QUICK_PROMPTS = 8
"""Paired answers that it asks of each behaviour: the fewest that give an interval (`mneme.predict.verdicts.FEWEST`)."""


def chosen_kind(dictionary: str) -> Kind | None:
    """The kind of dictionary of that name; None for `none`. Raises BadOption, which lists them."""
    kind = next((kind for kind in KINDS if kind == dictionary), None)
    if kind is None and dictionary != "none":
        raise BadOption(f"No dictionary kind {dictionary!r}: expected one of {', '.join(KINDS)}, or none.")
    return kind


def with_quick(options: AuditOptions) -> AuditOptions:
    """The same with what `quick` leaves out."""
    if not options.quick:
        return options
    return replace(options, dictionary="none", tokens=min(options.tokens or QUICK_TOKENS, QUICK_TOKENS))


def required_corpus(corpus: str | Path | None) -> str | Path:
    """The text that was named. Raises BadCorpus where none was."""
    if corpus is None:
        raise BadCorpus(
            "No text to plan for: give ordinary text with --corpus (a .txt, .jsonl or .parquet file, or a datasets name)."
        )
    return corpus


def first_device(device: str) -> str:
    """Where a model begins: `auto` is the first GPU, or the CPU where there is none; every other device is itself."""
    return device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def precision_for(device: str, precision: str) -> Precision:
    """The precision of that name; auto: bfloat16 on GPUs, float32 elsewhere. Raises BadOption, which lists them."""
    if precision == "auto":
        return "bfloat16" if first_device(device).startswith("cuda") else "float32"
    known = next((one for one in PRECISIONS if one == precision), None)
    if known is None:
        raise BadOption(f"No precision {precision!r}: expected auto, {' or '.join(PRECISIONS)}.")
    return known


def trained_kinds(kind: Kind | None) -> tuple[Kind, ...]:
    """The dictionaries that an audit trains: the kind asked for, beside that of the change a crosscoder for context."""
    if kind is None:
        return ()
    return ("change", "rotated") if kind == "change" else (kind,)


def rows_of(documents: Documents, tokenizer: PreTrainedTokenizerBase, longest: int | None, tokens: int | None) -> PackedRows:
    """The text in rows of 256 tokens (`longest` where that is fewer), at most `tokens` in all. Raises BadCorpus below two."""
    length = min(ROW_LENGTH, longest or ROW_LENGTH)
    rows = pack_rows(documents, tokenizer, length, max_tokens=tokens or DEFAULT_TOKENS)
    if len(rows.ids) < 2:
        raise BadCorpus(
            f"{documents.source} gives one row of {length} tokens, expected at least two: one half of the rows trains, the "
            "other judges. Give more text, or more --tokens."
        )
    return rows


def planned_tokenizer(options: AuditOptions, below: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer and the chat template that the audit will read text with: BASE's, else that of `below` (the base that BASE
    is put on, where it is an adapter), else TUNED's; `chat_template` takes the place of all templates."""
    trust = options.machine.trust_remote_code
    sources = [source for source in (options.base, below, options.tuned) if source is not None]
    folders = dict.fromkeys(resolve_folder(source, trust_remote_code=trust) for source in sources)
    found = [one for folder in folders if (one := load_tokenizer(folder, trust)) is not None]
    tokenizer = require_tokenizer(found[0] if found else None, sources[0])
    tokenizer.chat_template = next((one.chat_template for one in found if one.chat_template), None)
    with_template(tokenizer, options.chat_template, str(sources[0]))
    return tokenizer


def check_intended(intended: Sequence[str], areas: tuple[Area, ...]) -> None:
    """Raises BadAreas for a purpose that is no area."""
    names = {area.name.casefold() for area in areas}
    for name in intended:
        if name.casefold() not in names:
            raise BadAreas(
                f"--intended names {name!r}, which is no area here. Known areas: {', '.join(a.name for a in areas)}."
            )


def check_chosen_layers(layers: Sequence[int] | None, n_layers: int) -> None:
    """Raises BadOption for a layer that the model does not have."""
    for layer in layers or ():
        if not 0 <= layer < n_layers:
            raise BadOption(f"No layer {layer}: this model has {n_layers} blocks, so layers go from 0 to {n_layers - 1}.")
