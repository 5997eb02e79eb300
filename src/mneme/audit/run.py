"""`mneme audit`: the ten steps in order, each a stage that survives a kill, composed into one report."""

import json
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mneme.activations.harvest import harvest, rounding_share
from mneme.activations.moments import layer_moments
from mneme.audit.asking import answers, questions
from mneme.audit.compose import LayersSeen, compose, nothing_changed, record_latents
from mneme.audit.cost import nominal_cost
from mneme.audit.dictionary import Stream, fit_layer, layer_codes
from mneme.audit.effects import Sources
from mneme.audit.findings import LayerFindings, find
from mneme.audit.forecast import Forecast, Machine, Shape, forecast
from mneme.audit.inputs import (
    LAYERS_TOKENS,
    QUICK_PROMPTS,
    QUICK_TOKENS,
    check_chosen_layers,
    check_intended,
    chosen_kind,
    precision_for,
    required_corpus,
    rows_of,
    trained_kinds,
)
from mneme.audit.job import Job, Track
from mneme.audit.null import purposeless_changes
from mneme.audit.reading import read_text
from mneme.audit.surveying import Survey, batch_rows_for, read_behaviours, survey_corpus
from mneme.audit.words import lay_out_words, read_words
from mneme.describe.endpoint import check_endpoint
from mneme.diff.survey import choose_layers, patched_kl_share
from mneme.errors import BadOption, EmptyMask
from mneme.models.checkpoints import model_fingerprint
from mneme.models.client import endpoint_of
from mneme.models.pair import load_pair
from mneme.models.ranks import Ranks, join_ranks, local_device
from mneme.models.weights import WeightChanges, weight_changes
from mneme.predict.areas import default_areas, read_areas
from mneme.results import Cost, Report
from mneme.runs import Arrays, RunFolder, require_apart, require_room
from mneme.terminal import Terminal
from mneme.text.documents import read_corpus
from mneme.version import __version__
from mneme.worlds.catalogue import Organism, build_organism

BUILT_IN = "unlearn-biology"
_ROUNDING_ROWS = 4
"""Rows on which rounding is measured, each pass twice: a share of energy over 1,024 tokens. A round number that was never
varied."""
_OUTPUTS = ("report.json", "report.html", "plan.json")


def audit(
    base: str | Path | None = None,
    tuned: str | Path | None = None,
    *,
    corpus: str | Path | None = None,
    areas: str | Path | None = None,
    out: str | Path = "runs/audit",
    dictionary: str = "change",
    layers: Sequence[int] | None = None,
    tokens: int | None = None,
    seed: int = 0,
    describe: str = "offline",
    intended: Sequence[str] = (),
    threads: int | None = None,
    device: str = "cpu",
    precision: str = "auto",
    attention: str | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    quick: bool = False,
    console: Console | None = None,
) -> Report:
    """Predict which areas the change from `base` to `tuned` reached, from the two models and ordinary text alone.

    `base`, `tuned`: local folder, hub name, or (tuned) an adapter folder; neither given audits the built-in pair. `corpus`:
    txt, jsonl, parquet or a datasets name. `areas`: YAML list of {name, description, keywords, kind}; None takes the
    default list. `dictionary`: change, rotated, batchtopk, delta; or none, which gives the same probabilities in a fraction
    of the time, without latents behind them, words for them and effects outside the list.
    `quick`: own words in at most 8,192 tokens and eight paired answers a behaviour, no dictionary.
    `out` gets report.json and timings.json (`mneme.write_html` makes the page); the same call after a kill goes on where it
    stopped and writes the same bytes of report.json. `tokens`: how much text is read at most. `intended`:
    areas the fine-tune was for. `describe`: "offline", or the address of an OpenAI-compatible endpoint, which then gets
    passages of the text (docs/describe.md). `device`, `precision` (auto: bfloat16 on GPUs, else float32) and `attention`:
    docs/scale.md; how much of the change is then rounding is in the report.

    `overwrite`: remove what another finished run left in `out` (only what mneme wrote), and work beside files of others.

    Under torchrun every process calls this and they share the work (`mneme.models.ranks`); the result is the same to the last
    bit. `out` must then be a folder that all of them see.

    Errors: a `MnemeError` that says what is wrong, what was expected and what to do; nothing is written before the inputs are
    checked.
    """
    device = local_device(device)
    ranks = join_ranks(device)
    console = Console(quiet=True) if ranks.rank else console or Terminal(stderr=True)
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    endpoint = endpoint_of(describe)
    if device == "auto" and ranks.world > 1:
        raise BadOption("--device auto gives one process all GPUs. Start a single process, or use --device cuda for one each.")
    if (base is None) != (tuned is None):
        raise BadOption("One model was named: give both BASE and TUNED, or neither to audit the built-in pair.")
    if base is None or tuned is None:
        console.print("No models named: auditing the built-in pair (biology unlearned). Building it on first use.")
        organism = _built_in_pair(ranks)
        base, tuned = organism.base, organism.tuned
        corpus, areas = corpus or organism.corpus, areas or organism.areas
    require_apart(out, {"BASE": base, "TUNED": tuned, "--corpus": corpus, "--areas": areas})
    if quick:
        dictionary, tokens = "none", min(tokens or QUICK_TOKENS, QUICK_TOKENS)
    kind = chosen_kind(dictionary)
    corpus = required_corpus(corpus)
    chosen_areas = read_areas(Path(areas)) if areas else default_areas()
    check_intended(intended, chosen_areas)
    chosen_precision = precision_for(device, precision)
    placed: dict[str, Any] = {"device": device, "precision": chosen_precision, "attention": attention}
    pair = load_pair(base, tuned, trust_remote_code=trust_remote_code, **placed)
    documents = read_corpus(corpus, tokenizer=pair.tokenizer)
    rows = rows_of(documents, pair.tokenizer, pair.max_positions, tokens)
    check_chosen_layers(layers, pair.n_layers)
    plan = nominal_cost(pair, rows.ids.numel(), rows.ids.shape[1], len(layers or [0]), kind)
    require_room(Path(out), plan.disk_bytes)
    endpoint = check_endpoint(endpoint) if endpoint else None
    command: dict[str, Any] = {
        "command": "audit",
        "version": __version__,
        "base": model_fingerprint(pair.base_folder),
        "tuned": model_fingerprint(pair.tuned_folder),
        "text": documents.sha256,
        "areas": [area.model_dump() for area in chosen_areas],
        "dictionary": dictionary,
        "layers": list(layers) if layers is not None else None,
        "tokens": int(rows.ids.numel()),
        "row_length": int(rows.ids.shape[1]),
        "seed": seed,
        "describe": endpoint.name if endpoint else "offline",
        "intended": list(intended),
        "quick": quick,
        "precision": chosen_precision,
    }
    chosen = tuple(layers) if layers is not None else None
    aim, named = tuple(intended), bool(areas)
    with RunFolder(Path(out), command, ranks, outputs=_OUTPUTS, overwrite=overwrite) as run:
        job = Job(pair, documents, rows, chosen_areas, kind, chosen, seed, endpoint, aim, run, console, ranks, quick, named)
        changes = weight_changes(pair)
        if changes.nothing:
            report, planned = nothing_changed(job, changes, plan.cost), None
        else:
            planned = _planned(job, layers)
            report = _run(job, changes, plan.cost)
        run.finish({"report.json": report.to_json().encode(), **_beside(planned, run, pair.device)})
    return report


def _built_in_pair(ranks: Ranks) -> Organism:
    """The built-in pair, built by one process while the others wait."""
    if ranks.rank == 0:
        build_organism(BUILT_IN)
    ranks.wait()
    return build_organism(BUILT_IN)


def _planned(job: Job, layers: Sequence[int] | None) -> Forecast:
    """What the run will take, said before it starts."""
    pair, ids = job.pair, job.rows.ids
    config = pair.base_parts.model.config
    shape = Shape(config, pair.n_parameters, pair.width, pair.n_layers, pair.vocab_size, pair.adapter)
    machine = Machine(str(pair.device), pair.precision)
    planned = forecast(
        shape,
        ids.numel(),
        ids.shape[1],
        job.kind,
        machine=machine,
        layers=list(layers or []) or None,
        processes=job.ranks.world,
        ranks=job.ranks,
    )
    job.console.print(
        f"Plan: {planned.tokens:,} tokens, {planned.flops / 1e9:,.0f} GFLOP, about {planned.seconds:.0f} s, peak memory about "
        f"{planned.peak_bytes / 1e9:.1f} GB, disk about {planned.disk_bytes / 1e6:.0f} MB."
    )
    return planned


def _beside(planned: Forecast | None, run: RunFolder, device: torch.device) -> dict[str, bytes]:
    """plan.json: what was planned and what it took. Nothing where the models do not differ."""
    if planned is None:
        return {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident
    measured = {"seconds": round(run.wall_seconds(), 3), "peak_bytes": peak}
    both = {"planned": planned._asdict(), "measured": measured}
    return {"plan.json": (json.dumps(both, indent=2) + "\n").encode()}


def _run(job: Job, changes: WeightChanges, cost: Cost) -> Report:
    with _progress(job.console) as track:
        sources = _sources(job, track)
        survey, shapes = None, None
        found: list[LayerFindings] = []
        if job.kind:
            advance = track("survey (tokens)", job.rows.ids.numel())
            survey = survey_corpus(job.pair, job.rows, job.run, advance)
            shapes = _layer_shapes(job)
            shares = dict(enumerate(shapes["shares"].tolist()))
            layers = list(job.layers) if job.layers is not None else choose_layers(shares)
            found = _look(job, survey, layers, track)
        findings = find(job, sources, survey, found, track)
        latents = record_latents(job, survey, findings, track) if survey else []
        null = purposeless_changes(job.pair, sources.words.layout, job.run, seed=job.seed)
    layers_seen = LayersSeen(survey, shapes) if survey and shapes else None
    return compose(job, changes, sources, findings, latents, null, layers_seen, cost)


def _sources(job: Job, track: Track) -> Sources:
    """What effects are read from: own words, paired answers, text of behaviours."""
    asked = questions(job.areas, job.pair.tokenizer, QUICK_PROMPTS if job.quick else None)
    reading = read_text(job.rows, job.areas, asked)
    layout = lay_out_words(
        job.documents.texts,
        job.rows,
        reading.membership.member,
        job.areas,
        job.pair.tokenizer,
        longest=job.pair.max_positions,
        seed=job.seed,
    )
    words = read_words(job.pair, layout, job.run, track("own words (tokens)", layout.plan.all_tokens()))
    answered = answers(job.pair, asked, job.run, track("paired answers (behaviours)", len(asked))) if asked else {}
    return Sources(words, reading, read_behaviours(job.pair, job.rows, reading, job.run), answered)


def _layer_shapes(job: Job) -> Arrays:
    """On rows spread over the text, for every layer: the share of the change in output that has happened by it (`shares`), of
    |q|^2 that is its mean (`mean`), and of centred |q|^2 that is one direction (`first`)."""
    every = list(range(job.pair.n_layers))
    n_rows = min(len(job.rows.ids), max(2, LAYERS_TOKENS // job.rows.ids.shape[1]))
    pick = torch.linspace(0, len(job.rows.ids) - 1, n_rows).long()

    def compute() -> Arrays:
        shares = patched_kl_share(job.pair, job.rows.ids[pick], every, ranks=job.ranks)
        stream = harvest(job.pair, job.rows.ids[pick], every, batch_rows=-(-n_rows // 4), ranks=job.ranks)
        first_tokens = torch.zeros_like(job.rows.ids[pick], dtype=torch.bool)
        first_tokens[:, 0] = True
        moments = layer_moments(stream, seed=job.seed, drop=first_tokens)
        rounding = rounding_share(job.pair, job.rows.ids[pick[:_ROUNDING_ROWS]], every)
        return {
            "shares": np.array([shares[layer] for layer in every]),
            "mean": np.array([moments[layer].mean_share for layer in every]),
            "first": np.array([moments[layer].first_component_share for layer in every]),
            "rounding": np.array([rounding[layer] for layer in every]),
        }

    return job.run.stage("layers", compute, together=True)


def _look(job: Job, survey: Survey, layers: list[int], track: Track) -> list[LayerFindings]:
    """Steps 3 to 5 at every chosen layer."""
    found: list[LayerFindings] = []
    seq = job.rows.ids.shape[1]
    batch = batch_rows_for(seq, job.pair.vocab_size)
    special = torch.isin(job.rows.ids, torch.tensor(job.pair.tokenizer.all_special_ids, dtype=torch.long))
    for layer in layers:
        sink = torch.from_numpy(survey.columns.sink[:, :, layer]) | special
        stream = Stream(job.pair, job.rows.ids, layer, sink, batch, job.seed, job.ranks)
        try:
            found.append(_fitted(job, stream, track))
        except EmptyMask:
            # A change of the head alone, or of one constant vector: the effects are read without latents.
            job.console.print(f"Layer {layer}: the same change at every token, nothing there for a dictionary to learn.")
    return found


def _fitted(job: Job, stream: Stream, track: Track) -> LayerFindings:
    """The dictionaries of one layer, each from its stage: the kind asked for, beside the change a crosscoder for context."""
    kinds = trained_kinds(job.kind)
    advance = track(f"dictionaries {', '.join(kinds)} L{stream.layer} (tokens)", None)
    stages = job.run.pieces(
        [f"dictionary-{kind}-{stream.layer}" for kind in kinds],
        lambda mine: fit_layer(stream, kinds, mine, advance=advance),
        together=True,
    )
    codes = [layer_codes(stream.layer, kind, arrays) for kind, arrays in zip(kinds, stages, strict=True)]
    return LayerFindings(codes[0], codes[1] if len(codes) > 1 else None)


@contextmanager
def _progress(console: Console) -> Iterator[Track]:
    """A bar for every piece of work; quiet where nobody looks on."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:

        def track(name: str, total: int | None) -> Callable[[int], None]:
            task = progress.add_task(name, total=total)
            if not console.is_terminal:
                console.print(name)
            return lambda amount: progress.update(task, advance=amount)

        yield track
