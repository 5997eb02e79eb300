"""Steps 3 to 5 of the audit: harvest one layer, train a dictionary of its change, score every latent on held-out rows."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.activations.harvest import harvest, shuffled
from mneme.dictionaries.crosscoder import Dictionary, Kind, decoders, encode, input_statistics
from mneme.dictionaries.quality import choose_k, unexplained_change
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.diff.scoring import LatentSums, latent_scores, latent_sums
from mneme.models.pair import ModelPair
from mneme.runs import Arrays

SWEEP = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Mean latents a token that the sweep tries; the elbow of unexplained change decides."""
_RESIDENT_BYTES = 1 << 30
_BATCH = 1024
_MIN_STEPS = 400
_SWEEP_STEPS = 200
_HELD_OUT_TOKENS = 16_384


class LayerCodes(NamedTuple):
    """A trained dictionary at one layer, and what every latent did on held-out rows."""

    layer: int
    dictionary: Dictionary
    sweep: list[tuple[float, float]]
    """(k, share of held-out centred q left unexplained) of every k tried."""
    unexplained: float
    token: Int[ndarray, " code"]
    """Flat position row * seq + place of every non-zero code, ascending; held-out rows only."""
    latent: Int[ndarray, " code"]
    value: Float[ndarray, " code"]
    scores: dict[str, Float[ndarray, " latent"]]
    """change_energy, firing_rate, relative_norm, cosine and, where the kind defines them, nu_error, nu_reconstruction."""


class Stream(NamedTuple):
    """Where the activations of one layer come from."""

    pair: ModelPair
    ids: Int[Tensor, "row seq"]
    layer: int
    sink: Bool[Tensor, "row seq"]
    batch_rows: int
    seed: int


def held_out_rows(n_rows: int) -> Bool[ndarray, " row"]:
    """Every other row is held out (at least one where there are two), so that both halves hold every part of the text."""
    return np.asarray(np.arange(n_rows) % 2 == 1)


def dictionary_size(width: int, tokens: int) -> int:
    """Latents of a dictionary: 4 d_model, a power of two, at most one for 32 training tokens, 16 to 16,384."""
    wanted = max(16, min(4 * width, tokens // 32, 16_384))
    return int(1 << (wanted.bit_length() - 1))


def fit_layer(stream: Stream, kind: Kind, *, advance: Callable[[int], None]) -> Arrays:
    """Sweep k, train the dictionary, encode the held-out rows; everything as arrays for a stage.

    The sweep trains one dictionary for every k on the same batches, as short runs; the k at the elbow of unexplained held-out
    change is then trained for the full length. Crosscoders of the other kinds keep the published way of choosing: k = 32
    (capped at an eighth of the latents), no sweep. `advance` is told the tokens of every batch that was learnt from.
    """
    held = torch.from_numpy(held_out_rows(len(stream.ids)))
    train = stream._replace(ids=stream.ids[~held], sink=stream.sink[~held])
    test = stream._replace(ids=stream.ids[held], sink=stream.sink[held])
    tokens = int((~train.sink).sum())
    batch = min(_BATCH, max(16, tokens // 8))
    m, q = _sample(train, 32_768)
    mean, scale = input_statistics(kind, m, q)
    test_m, test_q = _sample(test, _HELD_OUT_TOKENS)
    n_latents = dictionary_size(stream.pair.width, tokens)
    sweep: list[tuple[float, float]] = []
    k = min(32.0, n_latents / 8)
    if kind == "change":
        ks = tuple(k for k in SWEEP if k <= n_latents / 8 and k * batch >= 1)
        steps = min(_SWEEP_STEPS, max(50, 4 * tokens // batch))
        for member in _train(train, kind, ks, n_latents, steps, batch, mean, scale, advance, (test_m, test_q)):
            sweep.append((member.k, unexplained_change(member, test_m, test_q)))
        k = choose_k(sweep)
    steps = max(_MIN_STEPS, tokens // batch)
    chosen = _train(train, kind, (k,), n_latents, steps, batch, mean, scale, advance, (test_m, test_q))[0]
    left = unexplained_change(chosen, test_m, test_q)
    return {
        **_dictionary_arrays(chosen),
        "sweep": np.array(sweep).reshape(-1, 2),
        "unexplained": np.array(left),
        **_encode(test, chosen),
    }


def _train(
    stream: Stream,
    kind: Kind,
    ks: tuple[float, ...],
    n_latents: int,
    steps: int,
    batch: int,
    mean: Tensor,
    scale: Tensor,
    advance: Callable[[int], None],
    held_out: tuple[Tensor, Tensor],
) -> list[Dictionary]:
    settings = Settings(kind, stream.pair.width, n_latents, ks, (stream.seed,), steps, batch)
    trainer = Trainer(settings, mean, scale)
    for m, q in _batches(stream, batch, steps):
        trainer.step(m, q)
        advance(len(q))
    return trainer.finish(*held_out)


def _batches(stream: Stream, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Exactly `steps` shuffled batches: out of memory where all activations fit in 1 GB, else a new pass of the models for
    every epoch through a fixed buffer."""
    tokens = int((~stream.sink).sum())
    if tokens * stream.pair.width * 8 <= _RESIDENT_BYTES:
        m, q = _sample(stream, tokens)
        generator = torch.Generator().manual_seed(stream.seed)
        done = 0
        while done < steps:
            order = torch.randperm(len(q), generator=generator)
            for start in range(0, len(q) - batch + 1, batch):
                part = order[start : start + batch]
                yield m[part], q[part]
                done += 1
                if done == steps:
                    return
    done, epoch = 0, 0
    buffer = max(batch, _RESIDENT_BYTES // (stream.pair.width * 8) // 2)
    while done < steps:
        rows = harvest(stream.pair, stream.ids, [stream.layer], batch_rows=stream.batch_rows)
        mixed = shuffled(rows, buffer_tokens=buffer, batch_tokens=batch, seed=stream.seed + epoch, drop=stream.sink)
        for found in mixed:
            m, q = found[stream.layer]
            if len(q) < batch:
                continue
            yield m, q
            done += 1
            if done == steps:
                return
        epoch += 1


def _sample(stream: Stream, limit: int) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]:
    """m and q of at most `limit` tokens that are no sinks, from rows spread evenly over the text."""
    per_row = max(1, int((~stream.sink).sum()) // len(stream.ids))
    n_rows = min(len(stream.ids), -(-limit // per_row))
    pick = torch.linspace(0, len(stream.ids) - 1, n_rows).long()
    ms, qs = [], []
    for found in harvest(stream.pair, stream.ids[pick], [stream.layer], batch_rows=stream.batch_rows):
        keep = ~stream.sink[pick][found.rows]
        ms.append(found.m[stream.layer][keep])
        qs.append(found.q[stream.layer][keep])
    return torch.cat(ms)[:limit], torch.cat(qs)[:limit]


def _encode(stream: Stream, dictionary: Dictionary) -> Arrays:
    """One sparse pass over the held-out rows: codes and scores."""
    sums: LatentSums | None = None
    tokens, latents, values = [], [], []
    seq = stream.ids.shape[1]
    for found in harvest(stream.pair, stream.ids, [stream.layer], batch_rows=stream.batch_rows):
        keep = ~stream.sink[found.rows].flatten()
        m, q = found.m[stream.layer].flatten(0, 1)[keep], found.q[stream.layer].flatten(0, 1)[keep]
        codes = encode(dictionary, m, q)
        own = latent_sums(dictionary, codes, m, q)
        sums = own if sums is None else sums + own
        place = keep.nonzero().squeeze(1) + found.rows.start * seq
        tokens.append(place[codes.token_index].numpy())
        latents.append(codes.latent_index.numpy())
        values.append(codes.value.numpy())
    if sums is None:
        raise AssertionError("held-out rows are never empty: fit_layer needs two rows")
    scores = latent_scores(dictionary, sums)
    held = np.flatnonzero(held_out_rows(2 * len(stream.ids) + 1))[: len(stream.ids)]
    flat = np.concatenate(tokens)
    arrays: Arrays = {
        "token": held[flat // seq] * seq + flat % seq,
        "latent": np.concatenate(latents),
        "value": np.concatenate(values),
    }
    for name in ("change_energy", "firing_rate", "relative_norm", "cosine", "nu_error", "nu_reconstruction"):
        column = getattr(scores, name)
        if column is not None:
            arrays[f"score_{name}"] = np.nan_to_num(column.double().numpy(), nan=0.0, posinf=0.0, neginf=0.0)
    return arrays


def _dictionary_arrays(dictionary: Dictionary) -> Arrays:
    tensors = {name: getattr(dictionary, name).numpy() for name in ("w_enc", "w_dec", "b_enc", "b_dec", "mean", "scale")}
    numbers = np.array([dictionary.threshold, dictionary.k, dictionary.d_model, dictionary.seed], dtype=np.float64)
    return {**tensors, "numbers": numbers}


def layer_codes(layer: int, kind: Kind, arrays: Arrays) -> LayerCodes:
    """Back from the stage's arrays."""
    threshold, k, width, seed = arrays["numbers"]
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("w_enc", "w_dec", "b_enc", "b_dec", "mean", "scale")}
    dictionary = Dictionary(kind=kind, threshold=float(threshold), k=float(k), d_model=int(width), seed=int(seed), **tensors)
    scores = {name[6:]: column for name, column in arrays.items() if name.startswith("score_")}
    sweep = [(float(a), float(b)) for a, b in arrays["sweep"]]
    return LayerCodes(
        layer, dictionary, sweep, float(arrays["unexplained"]), arrays["token"], arrays["latent"], arrays["value"], scores
    )


def change_directions(dictionary: Dictionary) -> Float[Tensor, "latent d_model"]:
    """d_tuned - d_base of every latent: what one unit of its code adds to the residual stream, raw units."""
    both = decoders(dictionary)
    return both[:, 1] - both[:, 0]
