"""`mneme audit`: the ten steps in order, each a stage that survives a kill, composed into one report."""

import json
import math
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from mneme.activations.harvest import harvest, rounding_share
from mneme.activations.moments import layer_moments
from mneme.audit.artifacts import dictionary_stage
from mneme.audit.asking import answers
from mneme.audit.choosing import text_to_read
from mneme.audit.compose import LayersSeen, compose, nothing_changed, record_latents
from mneme.audit.continuing import continue_texts
from mneme.audit.cost import nominal_cost
from mneme.audit.dictionary import fit_layer, layer_codes
from mneme.audit.evidence import AuditEvidence
from mneme.audit.findings import Findings, LayerFindings, find
from mneme.audit.forecast import Forecast, Hardware, Shape, forecast
from mneme.audit.gathering import evidence_of
from mneme.audit.halves import Stream
from mneme.audit.inputs import (
    check_chosen_layers,
    check_intended,
    chosen_kind,
    precision_for,
    trained_kinds,
    with_quick,
)
from mneme.audit.job import Job
from mneme.audit.lacking import Request, may_write, wanted_text, write_and_read, written_note
from mneme.audit.null import NULL_TOKENS, QUICK_NULL_TOKENS, purposeless_changes
from mneme.audit.options import AuditOptions
from mneme.audit.ordinary import read_ordinary
from mneme.audit.surveying import Survey, batch_rows_for, read_behaviours, survey_corpus, top_gaining_tokens
from mneme.audit.vouching import EVIDENCE, checkable
from mneme.audit.words import WordReading, read_words
from mneme.audit.work import LaidOut, count_work, find_layout
from mneme.audit.writing import areas_to_write, texts_each, write_text, written_file
from mneme.describe.endpoint import check_endpoint
from mneme.diff.patching import Shares, choose_layers, coarse_to_fine, patched_kl_share
from mneme.errors import BadOption, EmptyMask
from mneme.models.checkpoints import model_fingerprint
from mneme.models.client import endpoint_of
from mneme.models.pair import ModelPair, load_pair
from mneme.models.ranks import Ranks, join_ranks, local_device
from mneme.models.sameness import output_difference
from mneme.models.threads import computing_threads
from mneme.models.weights import WeightChanges, weight_changes
from mneme.options import Progress, Track, deciding, stored, taking
from mneme.predict.areas import Area, default_areas, read_areas
from mneme.results import Cost, Report
from mneme.runs import Arrays, RunFolder, require_apart, require_room
from mneme.runs.manifest import MANIFEST
from mneme.text.documents import read_corpus
from mneme.text.reading import SKIPPED_ROWS, skipped_rows
from mneme.text.templates import template_key
from mneme.version import __version__
from mneme.worlds.catalogue import Organism, build_organism

BUILT_IN = "unlearn-biology"
_ROUNDING_ROWS = 4
"""Rows on which rounding is measured against float32: a thousand tokens. A round number that was never varied."""
_OUTPUTS = ("report.json", "report.html", "plan.json", EVIDENCE, MANIFEST, SKIPPED_ROWS)


def run_audit(options: AuditOptions) -> Report:
    """Predict which areas the change from `base` to `tuned` reached, from the two models and ordinary text alone.

    `base`, `tuned`: local folder, hub name, or (tuned) an adapter folder; neither given audits the built-in pair. `corpus`:
    txt, jsonl, parquet or a datasets name; None: both models write some about every area, of which no P is made. `areas`: YAML
    list of {name, description, keywords, kind, probes}; None takes the default list. `dictionary`: change, rotated, batchtopk,
    delta; or none, which gives the same probabilities in a fraction of the time, without latents behind them, words for them
    and effects outside the list.
    `quick`: own words in at most 8,192 tokens and eight paired answers a behaviour, no dictionary.
    `out` gets report.json and timings.json (`mneme.write_html` makes the page); the same call after a kill goes on where it
    stopped and writes the same bytes of report.json. `tokens`: how much text is read at most. `intended`:
    areas the fine-tune was for. `describe`: "offline", or the address of an OpenAI-compatible endpoint, which then gets
    passages of the text (docs/describe.md). `machine`: docs/scale.md; with bfloat16 how much of the change is rounding is in
    the report. `overwrite`: remove what another finished run left in `out` (only what mneme wrote), and work beside files of
    others.

    Under torchrun every process calls this and they share the work (`mneme.models.ranks`); the result is the same to the last
    bit. `out` must then be a folder that all of them see.

    Errors: a `MnemeError` that says what is wrong, what was expected and what to do; nothing is written before the inputs are
    checked.
    """
    device = local_device(options.machine.device)
    ranks = join_ranks(device)
    endpoint = endpoint_of(options.describe)
    if device == "auto" and ranks.world > 1:
        raise BadOption("--device auto gives one process all GPUs. Start a single process, or use --device cuda for one each.")
    if ranks.rank:
        options = replace(options, progress=Progress(Console(quiet=True)))
    options = resolved(options, ranks)
    kind = chosen_kind(options.dictionary)
    areas = read_areas(Path(options.areas)) if options.areas else default_areas()
    check_intended(options.intended, areas)
    with computing_threads(options.machine.threads):
        pair = _load(options, device)
        documents = read_corpus(options.corpus or _written(options, pair, areas, ranks), tokenizer=pair.tokenizer)
        options.progress.say_all((pair.template, *documents.notes) if documents.notes else ())
        skipped = skipped_rows(documents)
        documents, rows = text_to_read(documents, pair.tokenizer, areas, pair.max_positions, options.tokens)
        check_chosen_layers(options.layers, pair.n_layers)
        plan = nominal_cost(pair, rows.ids.numel(), rows.ids.shape[1], len(options.layers or [0]), kind)
        require_room(Path(options.out), plan.disk_bytes)
        endpoint = check_endpoint(endpoint) if endpoint else None
        command: dict[str, Any] = {
            "command": "audit",
            "version": __version__,
            "base": model_fingerprint(pair.base_folder),
            "tuned": model_fingerprint(pair.tuned_folder),
            "text": documents.sha256,
            "self_written": options.corpus is None,
            "areas": [area.model_dump() for area in areas],
            "read_tokens": int(rows.ids.numel()),
            "row_length": int(rows.ids.shape[1]),
            "describe": endpoint.name if endpoint else "offline",
            "precision": pair.precision,
            **deciding(options),
            **template_key(options.chat_template),
        }
        out, kept = Path(options.out), stored(options)
        with RunFolder(out, command, ranks, options=kept, outputs=_OUTPUTS, overwrite=options.overwrite) as run:
            job = Job(
                options=options,
                pair=pair,
                documents=documents,
                rows=rows,
                areas=areas,
                kind=kind,
                endpoint=endpoint,
                run=run,
                ranks=ranks,
            )
            changes = weight_changes(pair)
            if changes.nothing:
                report, planned, evidence = nothing_changed(job, changes, plan.cost), None, None
            else:
                changes = replace(changes, outputs=output_difference(pair))
                laid, request = _laid_out(job)
                planned = _planned(job, laid, request)
                report, evidence = _run(job, changes, plan.cost, laid, request)
            results = {"report.json": report.to_json().encode(), **skipped, **_beside(planned, run, pair.device)}
            run.finish({**results, **checkable(job, results, evidence)} if ranks.rank == 0 else results)
    return report


audit = taking(AuditOptions, run_audit)


def resolved(options: AuditOptions, ranks: Ranks) -> AuditOptions:
    """The same with the built-in pair where no model was named, and with what `quick` leaves out. Raises BadOption where one
    model was named, or where an input lies in `out`."""
    if (options.base is None) != (options.tuned is None):
        raise BadOption("One model was named: give both BASE and TUNED, or neither to audit the built-in pair.")
    if options.base is None:
        options.progress.say("No models named: auditing the built-in pair (biology unlearned). Building it on first use.")
        organism = _built_in_pair(ranks)
        options = replace(options, base=organism.base, tuned=organism.tuned)
        options = replace(options, corpus=options.corpus or organism.corpus, areas=options.areas or organism.areas)
    given = {"BASE": options.base, "TUNED": options.tuned, "--corpus": options.corpus, "--areas": options.areas}
    require_apart(options.out, given)
    return with_quick(options)


def _load(options: AuditOptions, device: str) -> ModelPair:
    machine = options.machine
    assert options.base is not None
    assert options.tuned is not None
    return load_pair(
        options.base,
        options.tuned,
        device=device,
        precision=precision_for(device, machine.precision),
        attention=machine.attention,
        trust_remote_code=machine.trust_remote_code,
        adapter_base=options.adapter_base,
        chat_template=options.chat_template,
    )


def _written(options: AuditOptions, pair: ModelPair, areas: tuple[Area, ...], ranks: Ranks) -> Path:
    """The text that both models write where none was given, written by one process while the others wait."""
    file = written_file(pair, areas, options.tokens, options.seed)
    if ranks.rank == 0 and not file.is_file():
        count = 2 * len(areas_to_write(areas)) * texts_each(areas, options.tokens)
        options.progress.say(
            f"No --corpus: both models write {count} short texts about the areas, and those are read. They are no sample of "
            "what people write: P is not calibrated for them."
        )
        with options.progress.bars() as track:
            write_text(pair, areas, options.tokens, options.seed, track("writing text (texts)", count))
    ranks.wait()
    return file


def _built_in_pair(ranks: Ranks) -> Organism:
    """The built-in pair, built by one process while the others wait."""
    if ranks.rank == 0:
        build_organism(BUILT_IN)
    ranks.wait()
    return build_organism(BUILT_IN)


def _laid_out(job: Job) -> tuple[LaidOut, Request]:
    """What is read of the given text, and what is to be written beside it."""
    longest, seed, quick = job.pair.max_positions, job.options.seed, job.options.quick
    laid = find_layout(job.documents, job.rows, job.areas, job.pair.tokenizer, longest=longest, seed=seed, quick=quick)
    return laid, wanted_text(laid, job.areas, job.options.tokens, writing=may_write(job.options))


def _planned(job: Job, laid: LaidOut, request: Request) -> Forecast:
    """What the run will take, said before it starts."""
    pair, ids = job.pair, job.rows.ids
    config = pair.base_parts.model.config
    shape = Shape(
        config=config,
        parameters=pair.n_parameters,
        width=pair.width,
        layers=pair.n_layers,
        vocab_size=pair.vocab_size,
        adapter=pair.adapter,
    )
    machine = Hardware(str(pair.device), pair.precision, job.ranks.world)
    planned = forecast(
        shape,
        ids.numel(),
        ids.shape[1],
        job.kind,
        machine=machine,
        layers=list(job.options.layers or []) or None,
        work=count_work(laid, longest=pair.max_positions, quick=job.options.quick, texts=request.texts()),
        ranks=job.ranks,
    )
    job.options.progress.say(
        f"Plan: {planned.tokens:,} tokens, {planned.flops / 1e9:,.0f} GFLOP, about {planned.seconds:.0f} s, peak memory about "
        f"{planned.peak_bytes / 1e9:.1f} GB, disk about {planned.disk_bytes / 1e6:.0f} MB."
    )
    return planned


def _beside(planned: Forecast | None, run: RunFolder, device: torch.device) -> dict[str, bytes]:
    """plan.json: what was planned and what it took. Nothing where the models do not differ."""
    if planned is None:
        return {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident
    measured = {"seconds": round(run.wall_seconds(), 3), "peak_bytes": peak}
    both = {"planned": planned._asdict(), "measured": measured}
    return {"plan.json": (json.dumps(both, indent=2) + "\n").encode()}


def _run(job: Job, changes: WeightChanges, cost: Cost, laid: LaidOut, request: Request) -> tuple[Report, AuditEvidence]:
    with job.options.progress.bars() as track:
        words, evidence = _gathered(job, laid, track)
        written = None
        if request.areas:
            written = write_and_read(job.pair, job.areas, request, job.run, seed=job.options.seed, track=track)
            evidence = evidence._replace(written=None if written is None else written.evidence)
        survey, shapes = None, None
        found: list[LayerFindings] = []
        if job.kind:
            shapes = _layer_shapes(job)
            shares = {layer: share for layer, share in enumerate(shapes["shares"].tolist()) if not math.isnan(share)}
            layers = list(job.options.layers) if job.options.layers is not None else choose_layers(shares)
            advance = track("survey (tokens)", job.rows.ids.numel())
            survey = survey_corpus(job.pair, job.rows, job.run, advance, layers=layers)
            found = _look(job, survey, layers, track)
        findings = find(job, evidence, laid.reading.membership, survey, found, track)
        latents = record_latents(job, survey, findings, track) if survey else []
        findings = findings._replace(written=written, note=written_note(request, read=written is not None))
        evidence = _with_purposeless(job, words, findings, evidence)
    layers_seen = LayersSeen(survey, shapes) if survey and shapes else None
    tokens = top_gaining_tokens(words.read["gain"], lambda index: str(job.pair.tokenizer.decode([index])))
    return compose(job, changes, evidence, findings, latents, layers_seen, cost, tokens), evidence


def _with_purposeless(job: Job, words: WordReading, findings: Findings, evidence: AuditEvidence) -> AuditEvidence:
    """They judge what is beyond the other areas; where nothing is compared there is nothing to judge."""
    layouts = {"": words.layout} if any(area.excess is not None for area in findings.effects.every.areas) else {}
    if findings.written is not None:
        layouts["-written"] = findings.written.layout
    if not layouts:
        return evidence
    tokens = QUICK_NULL_TOKENS if job.options.quick else NULL_TOKENS
    found = purposeless_changes(job.pair, layouts, job.run, seed=job.options.seed, tokens=tokens)
    own = None if evidence.written is None else evidence.written._replace(null=found.get("-written", ()))
    return evidence._replace(null=found.get("", ()), written=own)


def _gathered(job: Job, laid: LaidOut, track: Track) -> tuple[WordReading, AuditEvidence]:
    """What effects are read from: own words, paired answers, text of behaviours."""
    asked, reading, layout = laid
    words = read_words(job.pair, layout, job.run, track("own words (tokens)", layout.plan.all_tokens()))
    answered = answers(job.pair, asked, job.run, track("paired answers (areas)", len(asked))) if asked else {}
    reading = reading.without([index for index, one in answered.items() if one.follows])
    shown = read_behaviours(job.pair, job.rows, reading, job.run)
    continued = continue_texts(job.pair, job.rows, reading, job.run, seed=job.options.seed)
    ordinary = read_ordinary(job.pair, job.run) if job.options.corpus is None else None
    return words, evidence_of(words, reading, shown, answered, continued)._replace(ordinary=ordinary)


def _layer_shapes(job: Job) -> Arrays:
    """On rows spread over the text, for every layer: the share of the change in output that has happened by it (`shares`; NaN
    where nobody asked), of |q|^2 that is its mean (`mean`), and of centred |q|^2 that is one direction (`first`)."""
    every = list(range(job.pair.n_layers))
    n_rows = min(len(job.rows.ids), max(2, 4096 // job.rows.ids.shape[1]))
    pick = torch.linspace(0, len(job.rows.ids) - 1, n_rows).long()

    def compute() -> Arrays:
        rows = max(1, min(-(-n_rows // 4), batch_rows_for(job.rows.ids.shape[1], job.pair.vocab_size)))

        def patched(layers: list[int]) -> Shares:
            return patched_kl_share(job.pair, job.rows.ids[pick], layers, batch_rows=rows, ranks=job.ranks)

        chosen = job.options.layers
        shares = patched(list(chosen)) if chosen is not None else coarse_to_fine(patched, job.pair.n_layers)
        stream = harvest(job.pair, job.rows.ids[pick], every, batch_rows=rows, ranks=job.ranks)
        first_tokens = torch.zeros_like(job.rows.ids[pick], dtype=torch.bool)
        first_tokens[:, 0] = True
        moments = layer_moments(stream, seed=job.options.seed, drop=first_tokens)
        rounding = rounding_share(job.pair, job.rows.ids[pick[:_ROUNDING_ROWS]], every)
        return {
            "shares": np.array([shares.get(layer, math.nan) for layer in every]),
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
        stream = Stream(
            pair=job.pair, ids=job.rows.ids, layer=layer, sink=sink, batch_rows=batch, seed=job.options.seed, ranks=job.ranks
        )
        try:
            found.append(_fitted(job, stream, track))
        except EmptyMask:
            # A change of the head alone, or of one constant vector: the effects are read without latents.
            job.options.progress.say(
                f"Layer {layer}: the same change at every token, nothing there for a dictionary to learn."
            )
    return found


def _fitted(job: Job, stream: Stream, track: Track) -> LayerFindings:
    """The dictionaries of one layer, each from its stage: the kind asked for, beside the change a crosscoder for context."""
    kinds = trained_kinds(job.kind)
    advance = track(f"dictionaries {', '.join(kinds)} L{stream.layer} (tokens)", None)
    names = [dictionary_stage(kind, stream.layer) for kind in kinds]
    kept = f"dictionaries-{stream.layer}" if job.ranks.world == 1 else None
    stages = job.run.pieces(
        names,
        lambda mine: fit_layer(
            stream, kinds, mine, advance=advance, checkpoints=None if kept is None else job.run.workspace(kept)
        ),
        together=True,
    )
    if kept is not None:
        job.run.clear_workspace(kept)
    codes = [layer_codes(stream.layer, kind, arrays) for kind, arrays in zip(kinds, stages, strict=True)]
    return LayerFindings(codes[0], codes[1] if len(codes) > 1 else None)
