"""Steps 3 to 5 of the audit: harvest one layer, train a dictionary of its change, score every latent on held-out rows."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from mneme.activations.ahead import made_ahead
from mneme.activations.harvest import ALONE, harvest, shuffled
from mneme.dictionaries.crosscoder import Dictionary, Kind, decoders, encode, input_statistics
from mneme.dictionaries.quality import choose_k, unexplained_change
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.diff.scoring import LatentSums, latent_scores, latent_sums
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks
from mneme.runs import Arrays

SWEEP = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Mean latents a token that the sweep tries; the elbow of unexplained change decides. From the lowest of
`benchmarks/planted.py`, in steps of about 2, to beyond the elbows found on unlearning pairs (0.05 to 1, docs/log.md)."""
RESIDENT_BYTES = 1 << 29
"""Activations that are kept in memory at most, 512 MB: the peak of an audit then stays at 1.5 GB from 0.5 to 4 M tokens
(docs/log.md, scale)."""
BYTES_A_DIMENSION = 8
"""Of a kept token: m and q in float32."""
CODED_TOKENS, CONTEXT_TOKENS = 1 << 19, 1 << 17
"""Held-out tokens on which codes are kept at most, of the dictionary and of its context: rows spread evenly over all. Scores
are of all held-out tokens. Set by memory (docs/log.md, scale): a crosscoder keeps 32 codes a token, so it gets fewer."""
_BATCH = 1024
"""Tokens of a training step. A round number that was never varied."""
_SHARES_A_BATCH = 8
"""A batch is at most this part of the training tokens, so that an epoch has 8 steps. A round number that was never varied."""
_LEAST_BATCH = 16
"""Tokens of the smallest batch, for texts of a few rows in tests. A round number that was never varied."""
_MIN_STEPS = 400
"""Steps of a final dictionary at least: several passes over a short text. A round number that was never varied."""
_SWEEP_STEPS = 200
"""Steps of a member of the sweep, half of the shortest final run. A round number that was never varied."""
_SWEEP_EPOCHS, _LEAST_SWEEP_STEPS = 4, 50
"""A short text is passed over at most four times in the sweep, in 50 steps at least. Round numbers that were never varied."""
HELD_OUT_TOKENS = 16_384
"""Held-out tokens on which unexplained change is judged: 64 rows of 256. A round number that was never varied."""
_LATENTS_A_DIMENSION = 4
"""Latents for one dimension of the residual stream. A round number that was never varied; the expansion factors that are
published for dictionaries of activations go up from there, and a change has fewer directions than an activation."""
_TOKENS_A_LATENT = 32
"""Training tokens for one latent at least. A round number that was never varied: more latents than text are learnt by
heart."""
_LEAST_LATENTS, _MOST_LATENTS = 16, 16_384
"""Bounds on the size of a dictionary: below lies nothing but toy models, above the time of a step. Never varied."""
_CROSSCODER_K = 32.0
"""k of crosscoders, which are published with a fixed one. 32 is a round number that was never varied here."""
_DENSEST = 8
"""k is at most this part of the latents: denser codes are no longer sparse. A round number that was never varied."""
_CROSSCODER_STEP = 3.3
"""Time of a crosscoder's step in steps of a change dictionary, measured (docs/log.md, scale)."""
_PIECE = 4096
"""Kept activations that are read at once: as many as a batch of rows makes. A round number that was never varied."""


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
    ranks: Ranks = ALONE


def held_out_rows(n_rows: int) -> Bool[ndarray, " row"]:
    """Every other row is held out (at least one where there are two), so that both halves hold every part of the text."""
    return np.asarray(np.arange(n_rows) % 2 == 1)


def coded_rows(n_rows: int, seq: int) -> Bool[ndarray, " row"]:
    """The held-out rows on which the codes of the dictionary are kept: all of them up to 524,288 tokens, else every n-th."""
    held = np.flatnonzero(held_out_rows(n_rows))
    coded = np.zeros(n_rows, dtype=bool)
    coded[held[:: _thinning(len(held), seq, CODED_TOKENS)]] = True
    return coded


def _thinning(rows: int, seq: int, limit: int) -> int:
    """Every how many rows are at most `limit` tokens."""
    return max(1, -(-rows * seq // limit))


def dictionary_size(width: int, tokens: int) -> int:
    """Latents of a dictionary: 4 d_model, a power of two, at most one for 32 training tokens, 16 to 16,384."""
    wanted = max(_LEAST_LATENTS, min(_LATENTS_A_DIMENSION * width, tokens // _TOKENS_A_LATENT, _MOST_LATENTS))
    return int(1 << (wanted.bit_length() - 1))


def batch_size(tokens: int) -> int:
    """Tokens of a batch: 1,024, fewer where that is more than an eighth of all training tokens."""
    return min(_BATCH, max(_LEAST_BATCH, tokens // _SHARES_A_BATCH))


def run_lengths(tokens: int, batch: int) -> tuple[int, int]:
    """Steps of the sweep's short runs, and of the final dictionaries: one pass over the training tokens, 400 at least."""
    short = min(_SWEEP_STEPS, max(_LEAST_SWEEP_STEPS, _SWEEP_EPOCHS * tokens // batch))
    return short, max(_MIN_STEPS, tokens // batch)


def sweep_ks(n_latents: int, batch: int) -> tuple[float, ...]:
    """The k of `SWEEP` that fit: at most an eighth of the latents, at least one code a batch."""
    return tuple(k for k in SWEEP if k <= n_latents / _DENSEST and k * batch >= 1)


def crosscoder_k(n_latents: int) -> float:
    """Mean latents a token of the kinds that are not swept: 32, at most an eighth of the latents."""
    return min(_CROSSCODER_K, n_latents / _DENSEST)


def fit_layer(
    stream: Stream, kinds: Sequence[Kind], mine: Sequence[int], *, advance: Callable[[int], None]
) -> Iterator[Arrays]:
    """Sweep k, train the dictionaries, encode the held-out rows: the arrays of `kinds[i]` for each i in `mine`, in order.

    The sweep of the change dictionary trains one for every k on the same batches, as short runs; the k at the elbow of
    unexplained held-out change is then trained for the full length. Crosscoders of the other kinds have no sweep: k = 32
    (capped at an eighth of the latents). All dictionaries learn from one stream of batches. The
    members of the sweep are shared out among `stream.ranks` (`sweep_owners`), which must all call this; only the process that
    trains the change dictionary waits for all of them. `advance` is told the tokens of every batch that was learnt from.
    """
    held = torch.from_numpy(held_out_rows(len(stream.ids)))
    resident = int((~stream.sink).sum()) * stream.pair.width * BYTES_A_DIMENSION <= RESIDENT_BYTES
    train, test = (Half(stream._replace(ids=stream.ids[rows], sink=stream.sink[rows]), resident) for rows in (~held, held))
    batch = batch_size(train.tokens)
    statistics = _statistics(train, kinds)
    judged_on = test.sample(HELD_OUT_TOKENS)
    n_latents = dictionary_size(stream.pair.width, train.tokens)
    short, steps = run_lengths(train.tokens, batch)
    k_of = dict.fromkeys(kinds, crosscoder_k(n_latents))
    sweep: Callable[[], list[tuple[float, float]]] = list
    if "change" in kinds:
        ks = sweep_ks(n_latents, batch)
        owners = sweep_owners(len(ks), kinds, steps / short, stream.ranks.world)
        own = tuple(k for k, owner in zip(ks, owners, strict=True) if owner == stream.ranks.rank)
        settings = (
            [
                Settings(
                    kind="change",
                    d_model=stream.pair.width,
                    n_latents=n_latents,
                    ks=own,
                    seeds=(stream.seed,),
                    n_steps=short,
                    batch_size=batch,
                )
            ]
            if own
            else []
        )
        left = torch.zeros(len(ks), dtype=torch.float64)
        for member in _train(train, settings, statistics, short, batch, advance, judged_on):
            left[ks.index(member.k)] = unexplained_change(member, *judged_on)
        total = stream.ranks.total_later(left)
        sweep = partial(_tried, ks, total)
    if any(kinds[i] == "change" for i in mine):
        k_of["change"] = choose_k(sweep())
    settings = [
        Settings(
            kind=kinds[i],
            d_model=stream.pair.width,
            n_latents=n_latents,
            ks=(k_of[kinds[i]],),
            seeds=(stream.seed,),
            n_steps=steps,
            batch_size=batch,
        )
        for i in mine
    ]
    chosen = _train(train, settings, statistics, steps, batch, advance, judged_on)
    tried = sweep()
    for dictionary, encoded in zip(chosen, _encode(test, chosen, [i > 0 for i in mine]), strict=True):
        yield {
            **_dictionary_arrays(dictionary),
            "sweep": np.array(tried if dictionary.kind == "change" else []).reshape(-1, 2),
            "unexplained": np.array(unexplained_change(dictionary, *judged_on)),
            **encoded,
        }


def _statistics(train: "Half", kinds: Sequence[Kind]) -> dict[Kind, tuple[Tensor, Tensor]]:
    """Mean and scale of every kind's input, from a sample that is not kept."""
    m, q = train.sample(2 * HELD_OUT_TOKENS)
    return {kind: input_statistics(kind, m, q) for kind in kinds}


def sweep_owners(n_members: int, kinds: Sequence[Kind], length: float, world: int) -> list[int]:
    """Which process trains each member of the sweep: the one with the least to do, where dictionary i of `kinds`, `length`
    times as long, is trained by process i mod `world`. A member with a large k, of which there are more at the end, takes
    longer than others."""
    load = [0.0] * world
    for index, kind in enumerate(kinds):
        load[index % world] += length * (1.0 if kind == "change" else _CROSSCODER_STEP)
    owners: list[int] = []
    for _ in range(n_members):
        owners.append(min(range(world), key=lambda rank: (load[rank], -rank)))
        load[owners[-1]] += 1.0
    return owners[::-1]


def _tried(ks: Sequence[float], total: Callable[[], Tensor]) -> list[tuple[float, float]]:
    return list(zip(ks, total().tolist(), strict=True))


def _train(
    half: "Half",
    settings: Sequence[Settings],
    statistics: dict[Kind, tuple[Tensor, Tensor]],
    steps: int,
    batch: int,
    advance: Callable[[int], None],
    held_out: tuple[Tensor, Tensor],
) -> list[Dictionary]:
    """All dictionaries of `settings`, each on the same batches."""
    trainers = [Trainer(one, *statistics[one.kind]) for one in settings]
    if trainers or not half.resident:
        for m, q in half.batches(batch, steps):
            for trainer in trainers:
                trainer.step(m, q)
            advance(len(q))
    return [dictionary for trainer in trainers for dictionary in trainer.finish(*held_out)]


class Half:
    """The activations of one layer over half of the rows, attention sinks left out: in memory where both halves fit in 512 MB,
    else from a new pass of the models whenever they are asked for."""

    def __init__(self, stream: Stream, resident: bool) -> None:
        """One pass of the models where the half is to be `resident`."""
        self.stream, self.resident = stream, resident
        self.tokens = int((~stream.sink).sum())
        self._kept: tuple[Tensor, Tensor, Tensor] | None = None
        if resident:
            self._kept = self._gathered()

    def _gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """(flat position, m, q) of all tokens, written where they stay: joining the pieces would take the memory twice."""
        shape, device = (self.tokens, self.stream.pair.width), self.stream.pair.device
        place = torch.empty(self.tokens, dtype=torch.long, device=device)
        kept = place, torch.empty(shape, device=device), torch.empty(shape, device=device)
        start = 0
        for found in self._passes(self.stream.ids, self.stream.sink):
            for column, part in zip(kept, found, strict=True):
                column[start : start + len(part)] = part
            start += len(found[0])
        return kept

    def _passes(self, ids: Tensor, sink: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(flat position in `ids`, m, q) of the tokens that are no sinks, a batch of rows at a time, by the models."""
        stream = self.stream
        for found in harvest(stream.pair, ids, [stream.layer], batch_rows=stream.batch_rows, ranks=stream.ranks):
            keep = ~sink[found.rows].flatten()
            place = (keep.nonzero().squeeze(1) + found.rows.start * ids.shape[1]).to(stream.pair.device)
            yield place, found.m[stream.layer].flatten(0, 1)[keep], found.q[stream.layer].flatten(0, 1)[keep]

    def pieces(self) -> Iterator[tuple[Int[Tensor, " token"], Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]]:
        """(flat position row * seq + place, m, q) of all tokens in order, a few thousand at a time."""
        if self._kept is None:
            yield from self._passes(self.stream.ids, self.stream.sink)
            return
        for start in range(0, self.tokens, _PIECE):
            place, m, q = (column[start : start + _PIECE] for column in self._kept)
            yield place, m, q

    def sample(self, limit: int) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, "token d_model"]]:
        """m and q of at most `limit` tokens, from rows spread evenly over the half."""
        stream = self.stream
        per_row = max(1, self.tokens // len(stream.ids))
        n_rows = min(len(stream.ids), -(-limit // per_row))
        pick = torch.linspace(0, len(stream.ids) - 1, n_rows).long()
        if self._kept is None:
            _, m, q = zip(*self._passes(stream.ids[pick], stream.sink[pick]), strict=True)
            return torch.cat(m)[:limit], torch.cat(q)[:limit]
        place, whole_m, whole_q = self._kept
        chosen = torch.isin(place // stream.ids.shape[1], pick.to(place.device)).nonzero().squeeze(1)[:limit]
        return whole_m[chosen], whole_q[chosen]

    def batches(self, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Exactly `steps` shuffled batches: out of memory, or every epoch anew from the models through a fixed buffer."""
        done, epoch = 0, 0
        generator = torch.Generator().manual_seed(self.stream.seed)
        while done < steps:
            made: Iterator[tuple[Tensor, Tensor]]
            if self._kept is not None:
                order = torch.randperm(self.tokens, generator=generator).to(self.stream.pair.device)
                made = (
                    (self._kept[1].index_select(0, part), self._kept[2].index_select(0, part))
                    for part in torch.split(order, batch)
                )
            else:
                made = made_ahead(self._mixed(batch, epoch), self.stream.pair.device)
            for m, q in made:
                if len(q) < batch:
                    continue
                yield m, q
                done += 1
                if done == steps:
                    return
            epoch += 1

    def _mixed(self, batch: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        stream = self.stream
        rows = harvest(stream.pair, stream.ids, [stream.layer], batch_rows=stream.batch_rows, ranks=stream.ranks)
        buffer = max(batch, RESIDENT_BYTES // (stream.pair.width * BYTES_A_DIMENSION) // 2)
        for found in shuffled(rows, buffer_tokens=buffer, batch_tokens=batch, seed=stream.seed + epoch, drop=stream.sink):
            yield found[stream.layer]


def _encode(half: Half, dictionaries: Sequence[Dictionary], context: Sequence[bool]) -> list[Arrays]:
    """One sparse pass over the held-out rows: codes and scores of every dictionary; codes of at most so many tokens as
    `CODED_TOKENS` and, of a `context` one, `CONTEXT_TOKENS`."""
    seq = half.stream.ids.shape[1]
    every = [_thinning(len(half.stream.ids), seq, CONTEXT_TOKENS if is_context else CODED_TOKENS) for is_context in context]
    sums: list[LatentSums | None] = [None] * len(dictionaries)
    codes: list[list[tuple[ndarray, ...]]] = [[] for _ in dictionaries]
    for place, m, q in half.pieces() if dictionaries or not half.resident else ():
        for i, dictionary in enumerate(dictionaries):
            found = encode(dictionary, m, q)
            own, before = latent_sums(dictionary, found, m, q), sums[i]
            sums[i] = own if before is None else before + own
            at = place[found.token_index]
            kept = (at // seq) % every[i] == 0
            columns = (at[kept], found.latent_index[kept], found.value[kept])
            codes[i].append(tuple(column.cpu().numpy() for column in columns))
    held = np.flatnonzero(held_out_rows(2 * len(half.stream.ids) + 1))[: len(half.stream.ids)]
    out = []
    for dictionary, total, parts in zip(dictionaries, sums, codes, strict=True):
        if total is None:
            raise AssertionError("held-out rows are never empty: fit_layer needs two rows")
        flat, latent, value = (np.concatenate(column) for column in zip(*parts, strict=True))
        arrays: Arrays = {"token": held[flat // seq] * seq + flat % seq, "latent": latent, "value": value}
        scores = latent_scores(dictionary, total)
        for name in ("change_energy", "firing_rate", "relative_norm", "cosine", "nu_error", "nu_reconstruction"):
            column = getattr(scores, name)
            if column is not None:
                arrays[f"score_{name}"] = np.nan_to_num(column.double().cpu().numpy(), nan=0.0, posinf=0.0, neginf=0.0)
        out.append(arrays)
    return out


def _dictionary_arrays(dictionary: Dictionary) -> Arrays:
    tensors = {name: getattr(dictionary, name).cpu().numpy() for name in ("w_enc", "w_dec", "b_enc", "b_dec", "mean", "scale")}
    numbers = np.array([dictionary.threshold, dictionary.k, dictionary.d_model, dictionary.seed], dtype=np.float64)
    return {**tensors, "numbers": numbers}


def layer_codes(layer: int, kind: Kind, arrays: Arrays) -> LayerCodes:
    """Back from the stage's arrays."""
    threshold, k, width, seed = arrays["numbers"]
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("w_enc", "w_dec", "b_enc", "b_dec", "mean", "scale")}
    dictionary = Dictionary(kind=kind, threshold=float(threshold), k=float(k), d_model=int(width), seed=int(seed), **tensors)
    scores = {name.removeprefix("score_"): column for name, column in arrays.items() if name.startswith("score_")}
    sweep = [(float(a), float(b)) for a, b in arrays["sweep"]]
    return LayerCodes(
        layer=layer,
        dictionary=dictionary,
        sweep=sweep,
        unexplained=float(arrays["unexplained"]),
        token=arrays["token"],
        latent=arrays["latent"],
        value=arrays["value"],
        scores=scores,
    )


def change_directions(dictionary: Dictionary) -> Float[Tensor, "latent d_model"]:
    """d_tuned - d_base of every latent: what one unit of its code adds to the residual stream, raw units."""
    both = decoders(dictionary)
    return both[:, 1] - both[:, 0]
