"""Step 10 of the audit: everything found, composed into one report."""

import platform
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Int
from numpy import ndarray

import mneme
from mneme.audit.describing import describer
from mneme.audit.dictionary import held_out_rows
from mneme.audit.effects import MATERIAL, ranked
from mneme.audit.findings import Findings, JudgedLayer
from mneme.audit.job import Job, Track
from mneme.audit.latents import Firings
from mneme.audit.null import random_areas
from mneme.audit.records import Chosen, Context, Text, background_contexts, latent_id, record_latent
from mneme.audit.screening import Screening, overall_figures, top_gaining_tokens
from mneme.models.weights import WeightChanges
from mneme.predict.areas import count_words, match_areas
from mneme.predict.calibration import shipped_calibration
from mneme.predict.effects import KNOWLEDGE_UNIT
from mneme.predict.manner import MANNER_UNIT
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
    NullCheck,
    Pair,
    Report,
    Verdict,
)
from mneme.runs import Arrays

_UNSURE = 0.2


def compose(
    job: Job,
    changes: WeightChanges,
    screening: Screening,
    findings: Findings,
    latents: list[Latent],
    null: Arrays,
    shapes: Arrays,
    cost: Cost,
) -> Report:
    """The report of two models that differ. Touches neither model: the null has overwritten one of them by now."""
    by_id = {latent.id: latent for latent in latents}
    effects = [_named(effect, by_id) for effect in ranked([*findings.effects.effects, *findings.unlisted])]
    verdict, reason = judge(effects, findings.effects.absent)
    return Report(
        pair=_pair(job, changes),
        corpus=_corpus(job),
        verdict=verdict,
        reason=reason,
        effects=effects,
        absent=findings.effects.absent,
        latents=latents,
        layers=_layers(job, screening, findings, shapes),
        null=_null(job, screening, findings, null),
        cost=cost,
        environment=_environment(job),
        overall=overall_figures(screening, job.seed),
        top_tokens=top_gaining_tokens(screening.screened, lambda index: str(job.pair.tokenizer.decode([index]))),
    )


def nothing_changed(job: Job, changes: WeightChanges, cost: Cost) -> Report:
    """The report of two models with equal weights: every effect is exactly 0, and no forward pass was needed to say so."""
    words = count_words([passage.text for passage in job.rows.passages])
    membership = match_areas(words, job.areas)
    effects, absent = [], []
    for index, area in enumerate(job.areas):
        count = int(membership.member[index].sum())
        if count == 0:
            absent.append(AbsentArea(area=area.name, kind=area.kind, reason="no passage of the text matches it", passages=0))
            continue
        unit = KNOWLEDGE_UNIT if area.kind == "capability" else MANNER_UNIT
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
                intended=area.name.casefold() in {name.casefold() for name in job.intended},
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
    )


def judge(effects: list[Effect], absent: list[AbsentArea]) -> tuple[Verdict, str]:
    """change: some area at P >= 0.5. inconclusive: the most probable one lies between 0.2 and 0.5, or no area had text."""
    if not effects:
        return "inconclusive", f"None of the {len(absent)} areas had enough matching text: give more or other text."
    top = effects[0]
    found = [effect for effect in effects if effect.probability >= MATERIAL]
    if found:
        names = ", ".join(effect.area for effect in found[:5]) + ("" if len(found) <= 5 else f" and {len(found) - 5} more")
        return "change", f"{len(found)} of {len(effects)} areas are reached at P >= {MATERIAL}: {names}."
    if top.probability >= _UNSURE:
        return "inconclusive", f"No area reaches P = {MATERIAL}, but {top.area} is at {top.probability:.2f}: read more text."
    return "no detectable change", f"The models differ, but no area is reached: the most probable, {top.area}, is at " + (
        f"P = {top.probability:.2f}."
    )


def _named(effect: Effect, latents: dict[str, Latent]) -> Effect:
    """Words for an effect, from its latents; an unlisted one is named by them."""
    behind = [latents[name] for name in effect.evidence if name in latents]
    if not behind:
        return effect
    words = list(dict.fromkeys(word for latent in behind for word in latent.key_phrases[:4]))[:6]
    update: dict[str, Any] = {"description": "; ".join(latent.description for latent in behind[:2])}
    if effect.kind == "unlisted" and words:
        update["area"] = "unlisted: " + ", ".join(words[:4])
    return effect.model_copy(update=update)


def record_latents(job: Job, screening: Screening, findings: Findings, track: Track) -> list[Latent]:
    """Every chosen latent in words and numbers, each a stage of its own, so that a resumed run asks no endpoint twice.
    Reads the tuned model's head, so it comes before the null."""
    ids, passage = job.rows.ids.numpy(), job.rows.passage.numpy()
    text = Text(ids, passage, job.pair.tokenizer, screening.screened)
    background = background_contexts(text, np.flatnonzero(held_out_rows(len(ids))), job.seed)
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
            describer(job.endpoint, job.seed),
            seed=job.seed,
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
    norm = np.sqrt(np.bincount(context.latent, weights=context.value.astype(np.float64) ** 2)) + 1e-30
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


def _layers(job: Job, screening: Screening, findings: Findings, shapes: Arrays) -> list[Layer]:
    chosen = {layer.codes.layer: layer.codes for layer in findings.layers}
    relative = screening.screened.relative_change[:, 1:].mean(axis=(0, 1), dtype=np.float64)
    return [
        Layer(
            layer=layer,
            relative_change=float(relative[layer]),
            mean_share=float(shapes["mean"][layer]),
            first_component_share=float(shapes["first"][layer]),
            output_share=float(shapes["shares"][layer]),
            chosen=layer in chosen,
            unexplained=chosen[layer].unexplained if layer in chosen else None,
            k=chosen[layer].dictionary.k if layer in chosen else None,
            rounding=float(shapes["rounding"][layer]),
        )
        for layer in range(job.pair.n_layers)
    ]


def _null(job: Job, screening: Screening, findings: Findings, null: Arrays) -> list[NullCheck]:
    if null["shuffled"][1] == 0:
        return []
    value = float(null["shuffled"][0])
    threshold = findings.calibration.knowledge.midpoint
    dealt = random_areas(screening.table, findings.membership.member, ~findings.effects.found, seed=job.seed)
    return [
        NullCheck(
            name="same size, no purpose",
            description="the change of every weight tensor with its rows and columns shuffled: same norm, rank and spectrum",
            statistic="change in accuracy on known tokens, whole text",
            value=value,
            threshold=threshold,
        ),
        NullCheck(
            name="areas at random",
            description="passages outside the areas found, dealt out at random to areas of the same sizes, 200 times",
            statistic="95th percentile of the most extreme area's distance from the whole text, accuracy on known tokens",
            value=dealt,
            threshold=threshold,
        ),
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
    )


def _corpus(job: Job) -> Corpus:
    return Corpus(
        source=job.documents.source,
        documents=len({passage.document for passage in job.rows.passages}),
        passages=len(job.rows.passages),
        tokens=int(job.rows.ids.numel()),
        row_length=int(job.rows.ids.shape[1]),
        sha256=job.documents.sha256,
    )


def _environment(job: Job) -> Environment:
    return Environment(
        mneme=mneme.__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        seed=job.seed,
        dictionary=job.kind or "none",
        threads=torch.get_num_threads(),
        calibration=shipped_calibration().fitted_on,
    )
