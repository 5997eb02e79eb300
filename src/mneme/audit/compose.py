"""Step 10 of the audit: everything found, composed into one report."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from jaxtyping import Int
from numpy import ndarray

from mneme.audit.describing import describer
from mneme.audit.dictionary import held_out_rows
from mneme.audit.effects import claims_of, findings_of, null_checks, purposeless, ranked
from mneme.audit.evidence import AuditEvidence
from mneme.audit.findings import Findings, JudgedLayer
from mneme.audit.job import Job
from mneme.audit.latents import Firings
from mneme.audit.options import AuditOptions
from mneme.audit.records import Chosen, Context, Text, background_contexts, latent_id, record_latent
from mneme.audit.surveying import Survey
from mneme.audit.taken import examples_of
from mneme.audit.verdict import headline_verdict
from mneme.models.weights import WeightChanges
from mneme.options import Track, command_line
from mneme.predict.areas import count_words
from mneme.predict.behaviour import BEHAVIOUR_UNIT
from mneme.predict.calibration import shipped_calibration
from mneme.predict.knowledge import KNOWLEDGE_UNIT
from mneme.predict.matching import match_areas
from mneme.predict.paired import probes_of
from mneme.predict.verdicts import shortest
from mneme.results import (
    AbsentArea,
    Baselines,
    Corpus,
    Cost,
    Effect,
    Environment,
    Estimate,
    Latent,
    Layer,
    Pair,
    ProbeOutputs,
    Report,
)
from mneme.runs import Arrays
from mneme.version import __version__

_WORDS_A_LATENT = 4
"""Key words taken from each latent, and in all, to name an unlisted effect: they fit one line of the page. Never varied."""
_TINY = 1e-30
"""Far below the energy of any latent that fires: keeps 0 / 0 from being computed."""


class LayersSeen(NamedTuple):
    """What a dictionary needed to be chosen and trained; nothing of it is there where none was asked for."""

    survey: Survey
    shapes: Arrays


def compose(
    job: Job,
    changes: WeightChanges,
    evidence: AuditEvidence,
    findings: Findings,
    latents: list[Latent],
    seen: LayersSeen | None,
    cost: Cost,
    top_tokens: list[str],
) -> Report:
    """The report of two models that differ. Touches neither model: the null has overwritten one of them by now."""
    by_id = {latent.id: latent for latent in latents}
    null = purposeless(evidence)
    areas = findings_of(findings.effects, null, purposeless(evidence.written))
    written = findings.written.examples if findings.written is not None else {}
    taken = {area.name: examples_of(job.rows.passages, findings.membership, i) for i, area in enumerate(job.areas)}
    named = [_named(effect, by_id) for effect in ranked([*areas, *findings.unlisted])]
    effects = [
        one
        if one.source == "answers"
        else one.model_copy(update={"passages": (written if one.self_written else taken).get(one.area, [])})
        for one in named
    ]
    both = (findings.effects.known.broad, findings.effects.every.broad)
    broad = both[shortest(both)]
    ordinary = evidence.ordinary_loss()
    overall = evidence.overall()
    verdict, reason = headline_verdict(
        effects,
        findings.effects.absent,
        broad,
        named=job.options.areas is not None,
        loss=None if job.options.corpus is None else overall.get("nll_change"),
        ordinary=ordinary,
    )
    return Report(
        pair=_pair(job, changes),
        corpus=_corpus(job),
        verdict=verdict,
        reason=reason,
        effects=effects,
        absent=findings.effects.absent,
        latents=latents,
        layers=_layers(job, seen, findings) if seen else [],
        null=null_checks(null),
        cost=cost,
        environment=_environment(job),
        overall=overall,
        top_tokens=top_tokens,
        broad=None if broad is None else broad.estimate,
        claims=claims_of(findings.effects),
        command=_again(job),
        notes=_notes(job, findings.note),
    )


def nothing_changed(job: Job, changes: WeightChanges, cost: Cost) -> Report:
    """The report of two models with equal weights: every effect is exactly 0, and no forward pass was needed to say so."""
    words = count_words([passage.text for passage in job.rows.passages])
    membership = match_areas(words, job.areas)
    effects, absent = [], []
    for index, area in enumerate(job.areas):
        count = int(membership.member[index].sum()) + len(probes_of(area))
        if count == 0:
            absent.append(AbsentArea(area=area.name, kind=area.kind, reason="no passage of the text matches it", passages=0))
            continue
        unit = KNOWLEDGE_UNIT if area.kind == "capability" else BEHAVIOUR_UNIT
        effects.append(
            Effect(
                area=area.name,
                kind=area.kind,
                probability=0.0,
                direction="changed",
                magnitude=Estimate(value=0.0, low=0.0, high=0.0, unit=unit, n=count),
                evidence=[],
                baselines=Baselines(kl=0.0, nll=0.0, activation=0.0),
                signal="none",
                finding="unaffected",
                intended=area.name.casefold() in {name.casefold() for name in job.options.intended},
            )
        )
    return Report(
        pair=_pair(job, changes),
        corpus=_corpus(job),
        verdict="no detectable change",
        reason=f"All {changes.total} weight tensors of the two models, their buffers, settings and the logits of a probe "
        "are equal, so nothing can have changed.",
        effects=ranked(effects),
        absent=absent,
        latents=[],
        layers=[],
        null=[],
        cost=cost,
        environment=_environment(job),
        overall={},
        top_tokens=[],
        command=_again(job),
        notes=_notes(job),
    )


def _notes(job: Job, written: str = "") -> list[str]:
    """How models and text were read, and what was `written` beside it."""
    told = (*job.pair.notes, job.pair.template, *job.documents.notes, written)
    return [note for note in dict.fromkeys(told) if note]


def _again(job: Job) -> str:
    """The command without what does not decide the report, so that its bytes are the same wherever it is made."""
    machine = replace(job.options.machine, threads=None)
    return command_line("audit", replace(job.options, out=AuditOptions().out, overwrite=False, machine=machine))


def _named(effect: Effect, latents: dict[str, Latent]) -> Effect:
    """Words for an effect, from its latents; an unlisted one is named by them."""
    behind = [latents[name] for name in effect.evidence if name in latents]
    if not behind:
        return effect
    words = list(dict.fromkeys(word for latent in behind for word in latent.key_phrases[:_WORDS_A_LATENT]))
    update: dict[str, Any] = {"description": "; ".join(latent.description for latent in behind[:2])}
    if effect.kind == "unlisted" and words:
        update["area"] = "unlisted: " + ", ".join(words[:_WORDS_A_LATENT])
    return effect.model_copy(update=update)


def record_latents(job: Job, survey: Survey, findings: Findings, track: Track) -> list[Latent]:
    """Every chosen latent in words and numbers, each a stage of its own, so that a resumed run asks no endpoint twice.
    Reads the tuned model's head, so it comes before the null."""
    ids, passage = job.rows.ids.numpy(), job.rows.passage.numpy()
    text = Text(ids, passage, job.pair.tokenizer, survey.columns)
    background = background_contexts(text, np.flatnonzero(held_out_rows(len(ids))), job.options.seed)
    records = []
    for layer in findings.layers:
        advance = track(f"descriptions L{layer.codes.layer} (latents)", len(layer.chosen))
        names = [f"latent-{latent_id(layer.codes.layer, latent)}" for latent in layer.chosen]
        stored = job.run.pieces(names, partial(_recorded, job, findings, layer, text, background, advance))
        records += [Latent.model_validate_json(arrays["json"].tobytes()) for arrays in stored]
        job.run.seconds["descriptions"] = sum(map(job.run.seconds.pop, names), job.run.seconds.get("descriptions", 0.0))
    return records


def _recorded(
    job: Job,
    findings: Findings,
    layer: JudgedLayer,
    text: Text,
    background: list[str],
    advance: Callable[[int], None],
    mine: list[int],
) -> Iterator[Arrays]:
    """The records of the chosen latents number `mine`, as JSON."""
    context = _context(layer)
    for index in mine:
        latent = layer.chosen[index]
        record = record_latent(
            job.pair,
            layer.codes,
            layer.firings,
            text,
            Chosen(latent, *layer.causal.get(latent, (None, None))),
            job.areas,
            findings.membership,
            background,
            context,
            describer(job.endpoint, job.options.seed),
            seed=job.options.seed,
        )
        yield {"json": np.frombuffer(record.model_dump_json().encode(), dtype=np.uint8)}
        advance(1)


def _context(layer: JudgedLayer) -> Context | None:
    """For every latent of the change dictionary, the scores of the context latent that fires most with it (cosine)."""
    if layer.context is None:
        return None
    nearest = nearest_context(layer.firings, layer.context, layer.codes.token, layer.codes.dictionary.n_latents)
    scores = layer.context.scores
    return Context(scores["nu_error"][nearest], scores["nu_reconstruction"][nearest], scores["relative_norm"][nearest])


def nearest_context(firings: Firings, context: Any, token: Any, n_latents: int) -> Int[ndarray, " latent"]:
    """Index of the context latent with the highest cosine of codes with each latent (0 where none fires with it)."""
    norm = np.sqrt(np.bincount(context.latent, weights=context.value.astype(np.float64) ** 2)) + _TINY
    start = np.searchsorted(context.token, token, side="left")
    stop = np.searchsorted(context.token, token, side="right")
    nearest = np.zeros(n_latents, dtype=np.int64)
    for latent in np.unique(firings.latent):
        own = np.flatnonzero(firings.latent == latent)
        where = np.concatenate([np.arange(start[i], stop[i]) for i in own])
        repeat = np.repeat(firings.value[own], stop[own] - start[own])
        if len(where):
            both = np.bincount(context.latent[where], weights=context.value[where] * repeat, minlength=len(norm))
            nearest[latent] = int(np.argmax(both / norm))
    return nearest


def _layers(job: Job, seen: LayersSeen, findings: Findings) -> list[Layer]:
    survey, shapes = seen
    chosen = {layer.codes.layer: layer.codes for layer in findings.layers}
    relative = np.atleast_1d(np.nanmean(survey.columns.relative_change[:, 1:], axis=(0, 1), dtype=np.float64))
    return [
        Layer(
            layer=layer,
            relative_change=float(relative[layer]),
            mean_share=float(shapes["mean"][layer]),
            first_component_share=float(shapes["first"][layer]),
            output_share=None if np.isnan(shapes["shares"][layer]) else float(shapes["shares"][layer]),
            chosen=layer in chosen,
            unexplained=chosen[layer].unexplained if layer in chosen else None,
            k=chosen[layer].dictionary.k if layer in chosen else None,
            rounding=float(shapes["rounding"][layer]),
        )
        for layer in range(job.pair.n_layers)
    ]


def _pair(job: Job, changes: WeightChanges) -> Pair:
    pair = job.pair
    return Pair(
        base=pair.base_name,
        tuned=pair.tuned_name,
        architecture=pair.architecture,
        parameters=pair.n_parameters,
        layers=pair.n_layers,
        width=pair.width,
        adapter=pair.adapter,
        changed_tensors=changes.changed,
        total_tensors=changes.total,
        relative_weight_change=changes.relative_change,
        median_rank=changes.median_rank,
        outputs=None if changes.outputs is None else ProbeOutputs(**changes.outputs._asdict()),
    )


def _corpus(job: Job) -> Corpus:
    return Corpus(
        source=job.documents.source,
        documents=len({passage.document for passage in job.rows.passages}),
        passages=len(job.rows.passages),
        tokens=int(job.rows.ids.numel()),
        row_length=int(job.rows.ids.shape[1]),
        sha256=job.documents.sha256,
        self_written=job.options.corpus is None,
    )


def _environment(job: Job) -> Environment:
    return Environment(
        mneme=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        seed=job.options.seed,
        dictionary=job.kind or "none",
        threads=torch.get_num_threads(),
        calibration=shipped_calibration().fitted_on,
    )
