"""`mneme persona`: vectors from two files of rows, in pieces that outlive a kill.

The result is one file and not a run folder; what is finished lies beside it in `<out>.parts` until the file is written.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from mneme.errors import BadOption, BadRows, BadRun
from mneme.models.adapter_files import whole_fingerprint
from mneme.models.architecture import Parts
from mneme.models.batching import BATCH_TOKENS
from mneme.models.footprint import peak_bytes
from mneme.models.kept_readings import pieces_for
from mneme.models.likelihood import mean_nll
from mneme.models.pair import load_model
from mneme.models.threads import computing_threads
from mneme.models.tokenizers import require_tokenizer
from mneme.options import Track, counted, deciding, loading, stored
from mneme.results import Estimate, TooFew
from mneme.runs import Arrays, RunFolder, clear_halves, require_apart, write_atomic
from mneme.text.encoded import Encoded
from mneme.text.files import Row
from mneme.text.rows import encode_rows, read_rows, rows_hash
from mneme.text.templates import template_key
from mneme.train.options import PersonaOptions
from mneme.train.personas import (
    PersonaVectors,
    answer_sum,
    choose_layer,
    effects_of,
    load_personas,
    personas_file,
    steered_nll,
    vectors_of,
)
from mneme.version import __version__

HELD_OUT = 5
"""Every so manyth row measures steering and is in no vector."""
_SETS = ("with", "without")
_LAST = "steered"
"""The stage after which only the file is missing."""
_PROBE_TOKENS = 256
"""Tokens of the piece that is timed for the plan, if one text is no longer."""
_LONGEST_NAME = 100
"""So much of the name of `--out` stands in that of the parts: file systems allow 255 bytes in all."""


def parts_folder(out: str | Path) -> Path:
    """Where finished pieces of the vectors for `out` lie until these are written."""
    return Path(out).with_name(f"{Path(out).name[:_LONGEST_NAME]}.parts")


def extract(options: PersonaOptions) -> tuple[PersonaVectors, list[Estimate | TooFew]]:
    """Vectors from two files of rows, with the layer chosen by steering on every fifth row, which is kept out of them.

    Gives the effects of steering at each layer too, and writes the vectors to `out`, in the place of other vectors only with
    `overwrite`. The same call after a kill goes on where it stopped and writes the same bytes. Raises BadRows for files that
    cannot be read or have fewer than 5 rows; BadRun where `out` is taken.
    """
    out, files = Path(options.out), (options.with_trait, options.without_trait)
    inputs = {"MODEL": options.model, "--with": files[0], "--without": files[1]}
    require_apart(out, inputs)
    require_apart(parts_folder(out), inputs)
    if not parts_folder(out).exists():  # else a kill may have come after the vectors were written
        _require_place(out, options.overwrite)
    sets = [read_rows(file).rows for file in files]
    if sets[0] == sets[1]:
        raise BadRows("--with and --without hold the same rows, between which there is no trait. Give rows that differ in it.")
    for file, rows in zip(files, sets, strict=True):
        if len(rows) < HELD_OUT:
            raise BadRows(f"{file} has {len(rows)} rows; at least 5 are needed, of which every fifth measures steering.")
    with computing_threads(options.machine.threads):
        return _extracted(options, sets)


def _extracted(options: PersonaOptions, sets: list[list[Row]]) -> tuple[PersonaVectors, list[Estimate | TooFew]]:
    out = Path(options.out)
    loaded = load_model(options.model, **loading(options))
    parts, tokenizer = loaded.parts, require_tokenizer(loaded.tokenizer, options.model)
    window = getattr(parts.model.config.get_text_config(), "max_position_embeddings", None)
    last = HELD_OUT - 1
    used = [[row for i, row in enumerate(rows) if i % HELD_OUT != last] for rows in sets]
    read = [encode_rows(rows, tokenizer, window, bare=True) for rows in used]
    held_out = [encode_rows(rows[last::HELD_OUT], tokenizer) for rows in sets]
    options.progress.say(_plan(parts, read, held_out))
    command: dict[str, Any] = {
        "command": "persona",
        "version": __version__,
        "model": whole_fingerprint(loaded.folder, options.adapter_base),
        "rows": [rows_hash(rows) for rows in sets],
        **deciding(options),
        **template_key(options.chat_template),
    }
    with RunFolder(parts_folder(out), command, options=stored(options)) as run, options.progress.bars() as track:
        if not run.is_finished(_LAST):
            _require_place_for(run, out, options.overwrite)
        made = _vectors(run, parts, read, track)
        nats = _steered(run, parts, made, held_out, track)
        effects = effects_of(nats["with"], nats["without"])
        made = dataclasses.replace(made, layer=choose_layer(effects))
        content = personas_file(made)
        if not (out.is_file() and not out.is_symlink() and out.read_bytes() == content):
            _require_place_for(run, out, options.overwrite)
            clear_halves(out, content)
            write_atomic(out, content)
        run.discard()
    return made, effects


def _vectors(run: RunFolder, parts: Parts, read: Sequence[Sequence[Encoded]], track: Track) -> PersonaVectors:
    """The vectors from both sets of texts, kept by the run as they come."""

    def compute() -> Arrays:
        return {name: _kept_sum(run, name, parts, texts, track) for name, texts in zip(_SETS, read, strict=True)}

    sums = run.stage("answers", compute)
    with_trait, without = (torch.from_numpy(sums[name]) for name in _SETS)
    return vectors_of(with_trait, without, (len(read[0]), len(read[1])))


def _kept_sum(
    run: RunFolder, name: str, parts: Parts, texts: Sequence[Encoded], track: Track
) -> Float[ndarray, "layer d_model"]:
    pieces = pieces_for(parts, [len(text.ids) for text in texts])
    advance = track(f"answers {name} the trait", len(texts))

    def work(piece: int) -> Arrays:
        found = answer_sum(parts, [texts[i] for i in pieces[piece]])
        advance(len(pieces[piece]))
        return {"sum": found.numpy()}

    total: Float[ndarray, "layer d_model"] = np.sum(
        [one["sum"] for one in run.each(f"answers-{name}", len(pieces), work)], axis=0
    )
    return total


def _steered(
    run: RunFolder, parts: Parts, made: PersonaVectors, held_out: Sequence[Sequence[Encoded]], track: Track
) -> Arrays:
    """`steered_nll` of both sets of texts, no layer and each layer steered, [run text], kept by the run as they come."""

    def compute() -> Arrays:
        sets = zip(_SETS, held_out, strict=True)
        return {name: _kept_nats(run, name, parts, made, texts, track) for name, texts in sets}

    return run.stage(_LAST, compute)


def _kept_nats(
    run: RunFolder, name: str, parts: Parts, made: PersonaVectors, texts: Sequence[Encoded], track: Track
) -> Float[ndarray, "run text"]:
    pieces = pieces_for(parts, [len(text.ids) for text in texts])
    runs = [(layer, piece) for layer in (None, *range(len(parts.blocks))) for piece in pieces]
    advance = track(f"steering, texts {name} the trait", len(texts) * (1 + len(parts.blocks)))

    def work(number: int) -> Arrays:
        layer, piece = runs[number]
        found = steered_nll(parts, made.vectors, [texts[i] for i in piece], layer)
        advance(len(piece))
        return {"nats": found}

    nats = np.concatenate([one["nats"] for one in run.each(f"steered-{name}", len(runs), work)])
    back = np.argsort([number for piece in pieces for number in piece])
    return nats.reshape(-1, len(texts))[:, back]


def _plan(parts: Parts, read: Sequence[Sequence[Encoded]], held_out: Sequence[Sequence[Encoded]]) -> str:
    """One sentence: rows, tokens, seconds and memory, from the first few texts, here and now."""
    used, steered = ([text for texts in sets for text in texts] for sets in (read, held_out))
    reading = _token_seconds(used, lambda texts: answer_sum(parts, texts))
    steering = _token_seconds(steered, lambda texts: mean_nll(parts, texts))
    passes = 1 + len(parts.blocks)
    seconds = reading * _tokens(used) + passes * steering * _tokens(steered)
    together = max(sum(len(used[i].ids) for i in piece) for piece in pieces_for(parts, [len(text.ids) for text in used]))
    streams = 4 * min(together, BATCH_TOKENS) * parts.width * len(parts.blocks)
    return (
        f"Plan: {counted(len(used) + len(steered), 'row')}, {_tokens(used) + passes * _tokens(steered):,} tokens, about "
        f"{seconds:,.0f} s here, peak memory about {(peak_bytes() + streams) / 1e9:.1f} GB."
    )


def _token_seconds(texts: Sequence[Encoded], reading: Callable[[list[Encoded]], object]) -> float:
    """What a token takes, by the first of `texts`: read once to warm up, and once timed."""
    chosen = [texts[0]]
    while len(chosen) < len(texts) and _tokens(chosen) < _PROBE_TOKENS:
        chosen.append(texts[len(chosen)])
    reading(chosen)
    started = time.perf_counter()
    reading(chosen)
    return (time.perf_counter() - started) / _tokens(chosen)


def _tokens(texts: Sequence[Encoded]) -> int:
    return sum(len(text.ids) for text in texts)


def _require_place_for(run: RunFolder, out: Path, overwrite: bool) -> None:
    """`_require_place`; where it refuses, what this run keeps is of no use."""
    try:
        _require_place(out, overwrite)
    except BadRun:
        run.discard()
        raise


def _require_place(out: Path, overwrite: bool) -> None:
    """Raises BadRun where `out` is taken by other vectors, unless `overwrite`, or by anything else."""
    if not (out.exists() or out.is_symlink()):
        return
    if out.is_dir() or out.is_symlink():
        raise BadRun(f"{out} is a folder or a link. Give a file with --out.")
    try:
        load_personas(out)
    except BadOption:
        raise BadRun(f"{out} is there and holds no persona vectors. Move it away, or give another file with --out.") from None
    if not overwrite:
        raise BadRun(f"{out} holds persona vectors already. Give another file with --out, or --overwrite to replace them.")
