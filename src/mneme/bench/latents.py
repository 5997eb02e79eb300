"""Model diffing by latents as a forecast: a crosscoder's latents, the most exclusive ones described and matched to areas.

After MNEME (Kassem et al., EMNLP 2025; its abstract was at hand, no code) and Delta-Crosscoder (arXiv 2603.04426; no code):
latents are selected by relative decoder norm, described from the text they fire on, and matched to benchmarks. Here a
description is the key words of the latent's contexts (no language model), and a match the share of them that are words of the
area (`mneme.bench.signals.matched`). The text, the tokens, and the harvest are the same for all kinds; random latents of the
BatchTopK crosscoder are the control.
"""

import time
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.activations.harvest import harvest
from mneme.audit.dictionary import dictionary_size, held_out_rows
from mneme.audit.records import Text, background_contexts
from mneme.bench.signals import Cell, SurveyedPair, matched
from mneme.describe.description import sample_firings
from mneme.describe.phrases import key_words
from mneme.dictionaries.crosscoder import Dictionary, Kind, decoders, encode, input_statistics
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.errors import EmptyMask
from mneme.models.pair import ModelPair
from mneme.results.bench import BenchCost, CellScore

TOP = 20
"""Latents that are described."""
_K = 32.0
_STEPS, _BATCH = 400, 256
_CONTEXTS = 24
_METHODS: dict[str, Kind] = {"crosscoder by norm": "batchtopk", "Delta-Crosscoder": "delta"}


class Activations(NamedTuple):
    """m and q of the training rows and of the held-out rows at one layer, and where the held-out tokens stand."""

    train: tuple[Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]
    test: tuple[Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]
    row: Int[ndarray, " token"]
    place: Int[ndarray, " token"]


def score_by_latents(
    pair: ModelPair, seen: SurveyedPair, *, batch_rows: int, seed: int
) -> tuple[dict[str, dict[Cell, CellScore]], dict[str, BenchCost]]:
    """Predictor -> cell -> score, and what each cost. Equal models have no latents: every score is then 0."""
    started = time.perf_counter()
    layer = pair.n_layers // 2
    activations = _harvested(pair, seen, layer, batch_rows)
    harvested = time.perf_counter() - started
    tokens = 2 * seen.rows.ids.numel()
    columns = seen.survey.columns
    text = Text(seen.rows.ids.numpy(), seen.rows.passage.numpy(), pair.tokenizer, columns)
    background = background_contexts(text, np.unique(activations.row), seed)
    scores: dict[str, dict[Cell, CellScore]] = {}
    costs: dict[str, BenchCost] = {}
    for name, kind in _METHODS.items():
        started = time.perf_counter()
        try:
            dictionary = _trained(kind, activations, seed)
        except EmptyMask:
            silent = matched(seen.areas, [])
            scores |= {name: silent, **({"random latents": silent} if kind == "batchtopk" else {})}
            continue
        norms = torch.linalg.vector_norm(decoders(dictionary), dim=-1)
        relative = (norms[:, 1] / norms.sum(dim=1).clamp_min(1e-12)).numpy().astype(np.float64)
        exclusive = 2 * np.abs(relative - 0.5)
        firings = _firings(dictionary, activations)
        fired = np.flatnonzero(np.bincount(firings[0], minlength=len(exclusive)) >= 2)
        chosen = fired[np.argsort(-exclusive[fired], kind="stable")[:TOP]]
        scores[name] = _described(seen, text, background, firings, activations, chosen, exclusive[chosen], seed)
        costs[name] = BenchCost(seconds=harvested + time.perf_counter() - started, tokens=tokens)
        if kind == "batchtopk":
            drawn = np.random.default_rng(seed).choice(fired, size=min(TOP, len(fired)), replace=False)
            ones = np.ones(len(drawn))
            scores["random latents"] = _described(seen, text, background, firings, activations, drawn, ones, seed)
    return scores, costs


def _harvested(pair: ModelPair, seen: SurveyedPair, layer: int, batch_rows: int) -> Activations:
    """Half of the rows train, the other half is described from; first tokens, sinks and special tokens are left out."""
    ids = seen.rows.ids
    special = torch.isin(ids, torch.tensor(pair.tokenizer.all_special_ids, dtype=torch.long))
    keep = ~(torch.from_numpy(seen.survey.columns.sink[:, :, layer]) | special)
    m = torch.empty(*ids.shape, pair.width)
    q = torch.empty(*ids.shape, pair.width)
    for found in harvest(pair, ids, [layer], batch_rows=batch_rows):
        m[found.rows], q[found.rows] = found.m[layer], found.q[layer]
    held = torch.from_numpy(held_out_rows(len(ids)))[:, None]
    train, test = keep & ~held, keep & held
    row, place = test.nonzero(as_tuple=True)
    return Activations((m[train], q[train]), (m[test], q[test]), row.numpy(), place.numpy())


def _trained(kind: Kind, activations: Activations, seed: int) -> Dictionary:
    m, q = activations.train
    mean, scale = input_statistics(kind, m, q)
    n_latents = dictionary_size(m.shape[1], len(m))
    batch = min(_BATCH, len(m))
    settings = Settings(
        kind=kind,
        d_model=m.shape[1],
        n_latents=n_latents,
        ks=(min(_K, n_latents / 8),),
        seeds=(seed,),
        n_steps=_STEPS,
        batch_size=batch,
    )
    trainer = Trainer(settings, mean, scale)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_STEPS):
        pick = torch.randint(0, len(m), (batch,), generator=generator)
        trainer.step(m[pick], q[pick])
    return trainer.finish(activations.test[0][:16_384], activations.test[1][:16_384])[0]


def _firings(dictionary: Dictionary, activations: Activations) -> tuple[ndarray, ndarray, ndarray]:
    """(latent, value, held-out token) of every code."""
    codes = encode(dictionary, *activations.test)
    return codes.latent_index.numpy(), codes.value.double().numpy(), codes.token_index.numpy()


def _described(
    seen: SurveyedPair,
    text: Text,
    background: list[str],
    firings: tuple[ndarray, ndarray, ndarray],
    activations: Activations,
    latents: Int[ndarray, " chosen"],
    weights: Float[ndarray, " chosen"],
    seed: int,
) -> dict[Cell, CellScore]:
    latent, value, token = firings
    described = []
    for index, weight in zip(latents, weights, strict=True):
        own = np.flatnonzero(latent == index)
        row, place = activations.row[token[own]], activations.place[token[own]]
        shown, held_out = sample_firings(value[own], text.passage[row, place], limit=_CONTEXTS, seed=seed)
        contexts = [text.words(int(row[i]), int(place[i])) for i in np.concatenate([shown, held_out])]
        words = [word for word, _ in key_words(contexts, background)] if contexts else []
        described.append((float(weight), words))
    return matched(seen.areas, described)
