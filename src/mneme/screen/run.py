"""`screen`: ranks training rows or preference pairs before training, keeps the rest, and measures what that buys.

Stages (scores, trial) lie in the run folder, so that the same call after a kill goes on where it stopped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy import ndarray

from mneme.errors import BadOption, BadRows
from mneme.models.adapter_files import whole_fingerprint
from mneme.models.kept_readings import scored_in_run
from mneme.models.pair import LoadedModel, load_model
from mneme.models.threads import computing_threads
from mneme.models.tokenizers import require_tokenizer
from mneme.options import Track, deciding, loading, stored, taking
from mneme.results.screen import FilterValue, RankedRow, RowScreening, ScoreSummary
from mneme.runs import Arrays, RunFolder, require_apart
from mneme.screen.options import ScreenOptions
from mneme.screen.plan import screen_plan, tokens_of
from mneme.screen.scoring import PAIR_SCORES, ROW_SCORES, RowNeeds, RowScorer, pair_scores_in_run
from mneme.screen.trial import Trial, pair_trial, row_trial
from mneme.text.encoded import Encoded
from mneme.text.files import Row
from mneme.text.pairs import EncodedPair, encode_pairs, fitting_pairs, prompt_of, read_pairs
from mneme.text.reading import SKIPPED_ROWS, TakenRows, skipped_rows
from mneme.text.rows import answer_of, encode_rows, fitting_rows, question_of, read_rows, rows_hash
from mneme.text.shapes import part_words
from mneme.text.templates import template_key
from mneme.version import __version__

TOP = 10
OUTPUTS = ("screening.json", "screening.html", "ranked.jsonl", "kept.jsonl", SKIPPED_ROWS)
MIN_EXAMPLES = 8
"""Fewer examples of a behaviour cannot be split into those that score and those that the trial is measured on."""


@dataclass(frozen=True)
class Ranking:
    """Scores of every row, the order by the first of them, and which rows stay."""

    scores: dict[str, ndarray]
    order: list[int]
    """Most suspect first; ties in the order of the data."""
    kept: frozenset[int]


def run_screen(options: ScreenOptions) -> RowScreening:
    """Rank `data` for training `model`, most suspect first, by the first of `scores` (see `ROW_SCORES`, `PAIR_SCORES`).

    `unwanted` and `wanted`: rows that show the behaviour and its absence; half of them make the scores, the other half
    measures the trial. `other`: a model that has the behaviour, for the score "gap". `trial_steps` 0 leaves the trial out.
    `out` gets `screening.json`, `ranked.jsonl`, `kept.jsonl` and `timings.json`.

    Raises a MnemeError before anything is computed for data, options or vectors that do not fit.
    """
    named = {"MODEL": options.model, "DATA": options.data, "--unwanted": options.unwanted, "--wanted": options.wanted}
    require_apart(options.out, {**named, "--vector": options.vector, "--other": options.other})
    with computing_threads(options.machine.threads):
        return _screened(options)


screen = taking(ScreenOptions, run_screen)


def _screened(options: ScreenOptions) -> RowScreening:
    names = _checked_names(options.scores, options.pairs)
    share = options.keep if options.keep is not None else 0.15 if options.pairs else 0.8
    read = (read_pairs if options.pairs else read_rows)(options.data)
    probes = {name: _probe_rows(getattr(options, name), name) for name in ("unwanted", "wanted")}
    loaded = load_model(options.model, **loading(options))
    window = getattr(loaded.parts.model.config.get_text_config(), "max_position_embeddings", None)
    tokenizer = require_tokenizer(loaded.tokenizer, options.model)
    encoded: Sequence[Any]
    read, encoded, facts = (fitting_pairs if options.pairs else fitting_rows)(read, tokenizer, window)
    rows = read.rows
    told = (loaded.template, read.told(), *facts)
    options.progress.say_all(told)
    command: dict[str, Any] = {
        "command": "screen",
        "version": __version__,
        "model": whole_fingerprint(loaded.folder, options.adapter_base),
        "data": rows_hash(rows),
        "probes": {name: rows_hash(part) for name, part in probes.items()},
        "vector_time": _changed_at(options.vector),
        **deciding(options),
        **template_key(options.chat_template),
    }
    bare = (encode_pairs if options.pairs else encode_rows)(rows, tokenizer, window, read.source, bare=True)
    halves, words = (_probe_halves(probes, tokenizer, window, options.seed, closed) for closed in (True, False))
    needs = _needs(options, halves, words, bare)
    if not options.pairs:
        needs.check(names, loaded.parts)
    options.progress.say(screen_plan(loaded.parts, encoded, names, options.trial_steps))
    folder, kept = Path(options.out), stored(options)
    opened = RunFolder(folder, command, options=kept, outputs=OUTPUTS, overwrite=options.overwrite)
    with opened as run, options.progress.bars() as track:
        found, direction = _scores(run, loaded, bare if options.pairs else encoded, names, needs, track)
        ranking = rank(found, names[0], share)
        held_out = None if options.pairs else (halves["unwanted"][1], halves["wanted"][1])
        value, reason = _value(run, loaded, encoded, ranking, held_out, options)
        known = PAIR_SCORES if options.pairs else ROW_SCORES
        screening = RowScreening(
            model=str(options.model),
            model_sha256=command["model"],
            data=read.source,
            data_sha256=command["data"],
            kind="pairs" if options.pairs else "rows",
            rows=len(rows),
            tokens=tokens_of(encoded),
            kept=len(ranking.kept),
            ranked_by=names[0],
            direction=direction or None,
            scores=[_summary(name, found, ranking, known) for name in names],
            top=[ranked_row(rows, ranking, rank, options.pairs) for rank in range(min(TOP, len(rows)))],
            value=value,
            no_value=reason,
            seed=options.seed,
            versions=_versions(),
            notes=[*loaded.notes, *told],
        )
        run.finish(_files(screening, read, ranking, options.pairs))
    return screening


def _needs(
    options: ScreenOptions,
    halves: Mapping[str, tuple[list[Encoded], list[Encoded]]],
    words: Mapping[str, tuple[list[Encoded], list[Encoded]]],
    bare: Any,
) -> RowNeeds:
    return RowNeeds(
        unwanted=halves["unwanted"][0],
        wanted=halves["wanted"][0],
        bare_unwanted=words["unwanted"][0],
        bare_wanted=words["wanted"][0],
        bare=bare,
        vector=options.vector,
        layer=options.layer,
        other=options.other,
        options=loading(options),
    )


def _changed_at(vector: str | Path | None) -> int:
    """When the file was written, in nanoseconds; 0 where there is none."""
    return Path(vector).stat().st_mtime_ns if vector is not None and Path(vector).is_file() else 0


def _versions() -> dict[str, str]:
    return {"mneme": __version__, "torch": torch.__version__, "transformers": transformers.__version__}


def rank(scores: Mapping[str, ndarray], by: str, keep: float) -> Ranking:
    """Order rows by the score `by`, most suspect first, and keep the least suspect `keep` of them, at least one."""
    n = len(scores[by])
    order = np.argsort(-scores[by], kind="stable").tolist()
    n_kept = max(1, round(keep * n))
    return Ranking(dict(scores), order, frozenset(order[n - n_kept :]))


def ranked_row(rows: Sequence[Row], ranking: Ranking, rank: int, pairs: bool) -> RankedRow:
    """What is said of the row at place `rank` (from 0)."""
    i = ranking.order[rank]
    asked = prompt_of(rows[i]) if pairs else question_of(rows[i])
    told = part_words(rows[i]["chosen"]) if pairs else answer_of(rows[i])
    return RankedRow(
        rank=rank + 1,
        row=i + 1,
        kept=i in ranking.kept,
        scores={name: float(values[i]) for name, values in ranking.scores.items()},
        question=asked[:200],
        answer=told[:200],
    )


def _checked_names(scores: Sequence[str], pairs: bool) -> tuple[str, ...]:
    known = PAIR_SCORES if pairs else ROW_SCORES
    names = tuple(dict.fromkeys(scores)) or (next(iter(known)),)
    for name in names:
        if name not in known:
            kind = "pairs" if pairs else "rows"
            raise BadOption(f"--score {name} is no score of {kind}. Expected one of: {', '.join(known)}.")
    return names


def _probe_rows(part: str | Path | Sequence[Mapping[str, Any]] | None, name: str) -> list[Row]:
    if part is None:
        return []
    rows = read_rows(part, f"the {name} rows").rows
    if len(rows) < MIN_EXAMPLES:
        raise BadRows(
            f"--{name} has {len(rows)} rows; at least {MIN_EXAMPLES} are needed, because half of them make the scores and the "
            "other half measures what filtering buys."
        )
    return rows


def _probe_halves(
    probes: Mapping[str, list[Row]], tokenizer: Any, window: int | None, seed: int, closed: bool
) -> dict[str, tuple[list[Encoded], list[Encoded]]]:
    """Name -> the rows that make the scores, and those that the trial is measured on; `closed`: with closing tokens."""
    return {name: _halves(encode_rows(rows, tokenizer, window, name, bare=not closed), seed) for name, rows in probes.items()}


def _halves(rows: list[Encoded], seed: int) -> tuple[list[Encoded], list[Encoded]]:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    half = len(rows) // 2
    return [rows[i] for i in order[:half]], [rows[i] for i in order[half:]]


def _scores(
    run: RunFolder, loaded: LoadedModel, encoded: Any, names: Sequence[str], needs: RowNeeds, track: Track
) -> tuple[dict[str, ndarray], str]:
    """(score -> values, where the direction comes from)."""
    if isinstance(encoded[0], EncodedPair):
        return pair_scores_in_run(run, loaded.parts, encoded, names, track), ""
    found, told = {}, ""
    for name in names:
        advance = track(f"score {name} (rows)", len(encoded))
        ready: list[RowScorer] = []

        def score(rows: list[int], name: str = name, advance: Any = advance, ready: list[RowScorer] = ready) -> Arrays:
            if not ready:
                ready.append(RowScorer(name, loaded, encoded, needs))
            values = ready[0].of(rows)
            advance(len(rows))
            return {"value": values, "told": np.array([ready[0].told] * len(rows))}

        made = scored_in_run(run, f"scores-{name}", loaded.parts, [len(row.ids) for row in encoded], score)
        found[name], told = made["value"], str(made["told"][0]) or told
    return found, told


def _value(
    run: RunFolder,
    loaded: LoadedModel,
    encoded: Any,
    ranking: Ranking,
    held_out: tuple[list[Encoded], list[Encoded]] | None,
    options: ScreenOptions,
) -> tuple[FilterValue | None, str]:
    trial = Trial(options.trial_steps, options.trial_rate, options.seed)
    if trial.steps == 0:
        return None, "the trial was turned off (--trial-steps 0)"
    if len(ranking.kept) == len(encoded):
        return None, "nothing was dropped"
    if held_out is None and len(encoded) < 2 * MIN_EXAMPLES:
        return None, f"fewer than {2 * MIN_EXAMPLES} pairs cannot be split into those trained on and those measured"
    if held_out is not None and not held_out[0]:
        return None, "no examples of the unwanted behaviour were given (--unwanted) to measure it on"

    def compute() -> Arrays:
        options.progress.say("Trial: all rows, the kept ones, as many at random.")
        if held_out is None:
            return pair_trial(loaded.parts, encoded, ranking.kept, trial, run)
        return row_trial(loaded.parts, encoded, ranking.kept, held_out, trial, run)

    return trial.value(run.stage("trial", compute), pairs=held_out is None), ""


def _summary(name: str, found: Mapping[str, ndarray], ranking: Ranking, known: Mapping[str, str]) -> ScoreSummary:
    values, first = found[name], next(iter(found))
    dropped = np.setdiff1d(np.arange(len(values)), sorted(ranking.kept))
    return ScoreSummary(
        name=name,
        unit=known[name],
        median=float(np.median(values)),
        highest=float(values.max()),
        threshold=float(values[dropped].min()) if name == first and len(dropped) else None,
        agreement=None if name == first else rank_correlation(values, found[first]),
    )


def rank_correlation(one: ndarray, other: ndarray) -> float | None:
    """Spearman's: the correlation of ranks, ties at their mean rank; None where either side is constant."""
    first, second = (_mean_ranks(values) for values in (one, other))
    if not first.std() or not second.std():
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _mean_ranks(values: ndarray) -> ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _files(screening: RowScreening, read: TakenRows, ranking: Ranking, pairs: bool) -> dict[str, bytes]:
    rows = read.rows
    ranked = (ranked_row(rows, ranking, rank, pairs).model_dump_json() for rank in range(len(rows)))
    kept = (json.dumps(read.originals[i], ensure_ascii=False, default=str) for i in sorted(ranking.kept))
    return {
        "ranked.jsonl": "".join(f"{line}\n" for line in ranked).encode(),
        "kept.jsonl": "".join(f"{line}\n" for line in kept).encode(),
        "screening.json": screening.to_json().encode(),
        **skipped_rows(read),
    }
