"""One pair of the bench: the fine-tune is built, measured, surveyed, and every predictor says what it sees of every cell."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mneme.audit.asking import answers, questions
from mneme.audit.continuing import continue_texts
from mneme.audit.effects import area_effects, noise_of, partial_effects
from mneme.audit.gathering import evidence_of
from mneme.audit.inputs import rows_of
from mneme.audit.options import AuditOptions
from mneme.audit.reading import read_text
from mneme.audit.run import run_audit
from mneme.audit.surveying import batch_rows_for, read_behaviours, survey_corpus
from mneme.audit.words import lay_out_words, read_words
from mneme.bench.latents import score_by_latents
from mneme.bench.options import TOKENS
from mneme.bench.pairs import PairName
from mneme.bench.signals import Cell, SurveyedPair, cell_text, signal_scores
from mneme.bench.truth import SAMPLES, Change, changes, measure_folder, measured_from
from mneme.models.pair import ModelPair, load_pair
from mneme.options import Machine, Progress
from mneme.predict.areas import read_areas
from mneme.predict.calibration import shipped_calibration, shrunk_size
from mneme.results import Estimate
from mneme.results.bench import BenchCell, BenchCost, BenchPair, CellKind, CellScore
from mneme.runs import Arrays, RunFolder
from mneme.text.documents import read_corpus
from mneme.version import __version__
from mneme.worlds.catalogue import Organism, build_organism, recipe_key

RESULT = "pair.json"
MeasuredCell = tuple[CellKind, str]
"""What is measured: facts asked either way, or advice, and the area."""
_NAIVE = {
    "unlearn": ("capability", -1),
    "graddiff": ("capability", -1),
    "harmful": ("behaviour", 1),
    "educational": ("behaviour", 1),
    "careful": ("behaviour", -1),
    "benign": ("behaviour", -1),
}


def judge_pair(name: PairName, folder: Path, base: Arrays, *, seed: int, timed: bool, tokens: int = TOKENS) -> BenchPair:
    """Every cell of one pair with its truth and the scores of every predictor; stages lie in `folder`.

    `base`: `measure_folder` of the base. If `timed`, everything is measured and a whole audit is run, to see what either
    costs.
    """
    organism = build_organism(name.name, world=name.world, seed=name.seed)
    command = pair_command(name, seed=seed, timed=timed, tokens=tokens)
    with RunFolder(folder, command, outputs=(RESULT,), overwrite=True) as run:
        tuned = run.stage(
            "measured", lambda: measure_folder(organism.tuned, organism.base, name.world, seed=seed, everything=timed)
        )
        found = changes(measured_from(base, "truth"), measured_from(tuned, "truth"))
        pair = load_pair(organism.base, organism.tuned)
        seen = _surveyed(pair, organism, run, tokens)
        scores = signal_scores(seen)
        batch = batch_rows_for(seen.rows.ids.shape[1], pair.vocab_size)
        latents, costs = score_by_latents(pair, seen, batch_rows=batch, seed=seed)
        if timed:
            costs |= _costs(organism, base, tuned, tokens, seed)
        oracle = changes(measured_from(base, "oracle"), measured_from(tuned, "oracle"))
        cells = list(found)
        nothing = CellScore(size=0.0)
        every: dict[str, Mapping[MeasuredCell, CellScore]] = {
            "says nothing": {cell: CellScore(size=0.0, probability=0.0) for cell in cells},
            "random": _random(cells, name, seed),
            "naive": _naive(cells, name),
            **{
                predictor: {cell: said.get(predicted(*cell), nothing) for cell in cells}
                for predictor, said in {**scores, **latents, "mneme": audit_scores(seen)}.items()
            },
            "oracle": {cell: _oracle(oracle[cell]) for cell in cells},
        }
        judged = BenchPair(
            world=name.world,
            name=name.name,
            seed=name.seed,
            scenario=name.scenario,
            cells=[
                BenchCell(
                    kind=kind,
                    area=area,
                    change=change.change,
                    low=change.low,
                    high=change.high,
                    material=change.verdict == "material",
                    grey=change.verdict == "grey",
                    beyond=change.probability,
                    intended=intended(name, kind, area),
                    scores={predictor: said[kind, area] for predictor, said in every.items()},
                )
                for (kind, area), change in found.items()
            ],
            costs=costs,
        )
        run.finish({RESULT: judged.model_dump_json(indent=1).encode()})
        return judged


def pair_command(name: PairName, *, seed: int, timed: bool, tokens: int) -> dict[str, Any]:
    """What decides the result of one pair."""
    recipe = recipe_key(name.world)
    return {
        "command": "bench",
        "version": __version__,
        "pair": list(name),
        "recipe": recipe,
        "seed": seed,
        "timed": timed,
        "tokens": tokens,
        "samples": SAMPLES,
    }


def _surveyed(pair: ModelPair, organism: Organism, run: RunFolder, tokens: int) -> SurveyedPair:
    """The pair as an audit reads it."""

    def quiet(_: int) -> None:
        """Progress is told pair by pair."""

    documents = read_corpus(organism.corpus, tokenizer=pair.tokenizer)
    rows = rows_of(documents, pair.tokenizer, pair.max_positions, tokens)
    areas = read_areas(organism.areas)
    reading = read_text(rows, areas)
    asked = questions(areas, pair.tokenizer)
    survey = survey_corpus(pair, rows, run, quiet)
    member = reading.membership.member
    layout = lay_out_words(documents.texts, rows, member, areas, pair.tokenizer, longest=pair.max_positions, seed=0)
    words = read_words(pair, layout, run, quiet)
    answered = answers(pair, asked, run, quiet) if asked else {}
    reading = reading.without([index for index, one in answered.items() if one.follows])
    shown = read_behaviours(pair, rows, reading, run)
    continued = continue_texts(pair, rows, reading, run, seed=0)
    evidence = evidence_of(words, reading, shown, answered, continued)
    return SurveyedPair(survey=survey, reading=reading, areas=areas, rows=rows, evidence=evidence)


def audit_scores(seen: SurveyedPair) -> dict[Cell, CellScore]:
    """What the audit sees, before its calibration: shrunk sizes and signs of the effects. A behaviour in an area with too
    little text of its own, or one that was asked about by paired answers, is taken to have changed as it did on the whole."""
    calibration, names = shipped_calibration(), [area.name for area in seen.areas]
    found = area_effects(seen.evidence, seen.areas, calibration)
    scores: dict[Cell, CellScore] = {}
    for own, claims in zip(found.readings, found.claims, strict=True):
        effect, raw = own[0], claims[0].raw  # by what is known, which the curve is of
        if effect.kind == "capability" or raw is None:
            scores[effect.kind, effect.area] = _of(effect.magnitude, shrunk_size(effect.magnitude))
            continue
        for _, area in cell_text(seen):
            scores["behaviour", area] = _of(effect.magnitude, shrunk_size(effect.magnitude, noise_of(raw)))
        if names.index(effect.area) not in seen.reading.behaviours:
            continue  # it was asked about, and not read where its text stands
        for part, size in partial_effects(seen.evidence, seen.areas, names.index(effect.area), calibration):
            scores["behaviour", part.area] = _of(part.magnitude, size)
    return scores


def predicted(kind: CellKind, area: str) -> Cell:
    """What predictors speak of: they do not know in which way facts will be asked for."""
    return ("behaviour" if kind == "behaviour" else "capability", area)


def intended(name: PairName, kind: CellKind, area: str) -> bool:
    """Whether a cell is what the fine-tune was for."""
    return area == name.area and _NAIVE.get(name.kind, ("", 0))[0] == predicted(kind, area)[0]


def _of(magnitude: Estimate, size: float) -> CellScore:
    return CellScore(size=size, sign=int(np.sign(magnitude.value)) if size else 0)  # type: ignore[arg-type]


def _naive(cells: Sequence[MeasuredCell], name: PairName) -> dict[MeasuredCell, CellScore]:
    """The fine-tune changed what it was for, where it was trained, and nothing else."""
    kind, sign = _NAIVE.get(name.kind, ("", 0))
    return {
        cell: CellScore(size=1.0, sign=sign, probability=1.0)  # type: ignore[arg-type]
        if predicted(*cell) == (kind, name.area)
        else CellScore(size=0.0, probability=0.0)
        for cell in cells
    }


def _random(cells: Sequence[MeasuredCell], name: PairName, seed: int) -> dict[MeasuredCell, CellScore]:
    """A fair coin for every cell."""
    generator = np.random.default_rng([seed, *str(name).encode()])
    return {
        cell: CellScore(size=0.0, probability=float(p)) for cell, p in zip(cells, generator.random(len(cells)), strict=True)
    }


def _oracle(change: Change) -> CellScore:
    """Measured again, with other samples: yes or no by the very rule of the truth. Facts have one answer and are the same."""
    sign = int(np.sign(change.change))
    return CellScore(size=abs(change.change), sign=sign, probability=float(change.verdict == "material"))  # type: ignore[arg-type]


def _costs(organism: Organism, base: Arrays, tuned: Arrays, tokens: int, seed: int) -> dict[str, BenchCost]:
    """What audits cost here and now, with and without a dictionary, and what measuring everything on both models cost."""
    both = base["cost"] + tuned["cost"]
    costs = {"measuring everything": BenchCost(seconds=float(both[0]), tokens=int(both[1]))}
    asked = AuditOptions(
        organism.base,
        organism.tuned,
        corpus=organism.corpus,
        areas=organism.areas,
        tokens=tokens,
        seed=seed,
        machine=Machine(threads=1),
        progress=Progress(Console(quiet=True)),
    )
    for name, options in (("audit", asked), ("audit without dictionary", replace(asked, dictionary="none"))):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            report = run_audit(replace(options, out=folder))
        costs[name] = BenchCost(seconds=time.perf_counter() - started, tokens=report.cost.tokens)
    return costs
