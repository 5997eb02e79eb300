"""Steps 3 to 5 of the audit: harvest one layer, train a dictionary of its change, score every latent on held-out rows."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor

from mneme.audit.halves import BYTES_A_DIMENSION, RESIDENT_BYTES, Half, Stream
from mneme.dictionaries.crosscoder import Dictionary, Kind, decoders, encode, input_statistics
from mneme.dictionaries.quality import choose_k, unexplained_change
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.diff.scoring import LatentSums, latent_scores, latent_sums
from mneme.models.keeping import Keeping, write_state
from mneme.models.threads import at_once
from mneme.runs import Arrays

SWEEP = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Mean latents a token that the sweep tries; the elbow of unexplained change decides. From the lowest of
`benchmarks/planted.py`, in steps of about 2, to beyond the elbows found on unlearning pairs (0.05 to 1, docs/log.md)."""
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
_LIKELY_K = 0.1
"""k that a plan takes for the one that the sweep will choose, the fourth of its ten. Never varied."""
_CROSSCODER_K = 32.0
"""k of crosscoders, which are published with a fixed one. 32 is a round number that was never varied here."""
_DENSEST = 8
"""k is at most this part of the latents: denser codes are no longer sparse. A round number that was never varied."""
_CROSSCODER_STEP = 3.3
"""Time of a crosscoder's step in steps of a change dictionary, measured (docs/log.md, scale)."""


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
    stream: Stream,
    kinds: Sequence[Kind],
    mine: Sequence[int],
    *,
    advance: Callable[[int], None],
    checkpoints: Path | None = None,
) -> Iterator[Arrays]:
    """Sweep k, train the dictionaries, encode the held-out rows: the arrays of `kinds[i]` for each i in `mine`, in order.

    The sweep of the change dictionary trains one for every k on the same batches, as short runs; the k at the elbow of
    unexplained held-out change is then trained for the full length. Crosscoders of the other kinds have no sweep: k = 32
    (capped at an eighth of the latents). All dictionaries learn from one stream of batches. The
    members of the sweep are shared out among `stream.ranks` (`sweep_owners`), which must all call this; only the process that
    trains the change dictionary waits for all of them. `advance` is told the tokens of every batch that was learnt from.
    `checkpoints`: a folder in which passes and trainings keep their state about once a minute, and from which they go on to
    the same bytes; for one process alone, as several would each go on from another batch.
    """
    held = torch.from_numpy(held_out_rows(len(stream.ids)))
    resident = int((~stream.sink).sum()) * stream.pair.width * BYTES_A_DIMENSION <= RESIDENT_BYTES
    train, test = (
        Half(stream._replace(ids=stream.ids[rows], sink=stream.sink[rows]), resident, _state_in(checkpoints, name))
        for name, rows in (("train", ~held), ("test", held))
    )
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
        settings = [
            _settings(stream.pair.width, "change", part, (n_latents, short, batch), stream.seed)
            for part in shared_out(own, stream.pair.device)
        ]
        left = torch.zeros(len(ks), dtype=torch.float64)
        swept = Course(settings, short, batch, _state_in(checkpoints, "sweep"))
        for member in _train(train, swept, statistics, advance, judged_on):
            left[ks.index(member.k)] = unexplained_change(member, *judged_on)
        total = stream.ranks.total_later(left)
        sweep = partial(_tried, ks, total)
    if any(kinds[i] == "change" for i in mine):
        k_of["change"] = choose_k(sweep())
    sizes = (n_latents, steps, batch)
    settings = [_settings(stream.pair.width, kinds[i], (k_of[kinds[i]],), sizes, stream.seed) for i in mine]
    chosen = _train(train, Course(settings, steps, batch, _state_in(checkpoints, "final")), statistics, advance, judged_on)
    tried = sweep()
    for dictionary, encoded in zip(chosen, _encode(test, chosen, [i > 0 for i in mine]), strict=True):
        yield {
            **_dictionary_arrays(dictionary),
            "sweep": np.array(tried if dictionary.kind == "change" else []).reshape(-1, 2),
            "unexplained": np.array(unexplained_change(dictionary, *judged_on)),
            **encoded,
        }


def planned_runs(width: int, tokens: int, kinds: Sequence[Kind]) -> list[Settings]:
    """The dictionaries that an audit trains on `tokens` training tokens: each kind for its full length, then the sweep; with a
    middling k where the sweep chooses it."""
    n_latents, batch = dictionary_size(width, tokens), batch_size(tokens)
    short, full = run_lengths(tokens, batch)
    runs = [
        _settings(width, kind, (_LIKELY_K if kind == "change" else crosscoder_k(n_latents),), (n_latents, full, batch))
        for kind in kinds
    ]
    if "change" in kinds:
        runs.append(_settings(width, "change", sweep_ks(n_latents, batch), (n_latents, short, batch)))
    return runs


def shared_out(ks: tuple[float, ...], device: torch.device) -> list[tuple[float, ...]]:
    """The members of a sweep by the trainer that trains them: two on a CPU, whatever its threads, so that a run goes on under
    any number of them; one elsewhere. Each member comes out the same."""
    parts = (ks[::2], ks[1::2]) if device.type == "cpu" else (ks,)
    return [part for part in parts if part]


def _settings(width: int, kind: Kind, ks: tuple[float, ...], sizes: tuple[int, int, int], seed: int = 0) -> Settings:
    """`sizes`: latents, steps, tokens of a batch."""
    n_latents, steps, batch = sizes
    return Settings(
        kind=kind,
        d_model=width,
        n_latents=n_latents,
        ks=ks,
        seeds=(seed,),
        n_steps=steps,
        batch_size=batch,
    )


def _statistics(train: Half, kinds: Sequence[Kind]) -> dict[Kind, tuple[Tensor, Tensor]]:
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


class Course(NamedTuple):
    """A training of several dictionaries on the same batches."""

    settings: Sequence[Settings]
    steps: int
    batch: int
    checkpoint: Path | None


def _state_in(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / f"{name}.safetensors"


def _train(
    half: Half,
    course: Course,
    statistics: dict[Kind, tuple[Tensor, Tensor]],
    advance: Callable[[int], None],
    held_out: tuple[Tensor, Tensor],
) -> list[Dictionary]:
    """All dictionaries of a course, each on the same batches; it goes on from its checkpoint where there is one."""
    file, keeping = course.checkpoint, Keeping()
    beside = half.stream.pair.device.type == "cpu"
    trainers = [Trainer(one, *statistics[one.kind]) for one in course.settings]
    if file is not None and file.is_file():
        trainers = _resumed(file, course.settings, half.stream.pair.device)
    done = trainers[0].n_steps_done if trainers else 0
    advance(done * course.batch)
    if trainers or not half.resident:
        for m, q in half.batches(course.batch, course.steps, done) if done < course.steps else ():
            at_once([partial(trainer.step, m, q) for trainer in trainers], beside=beside)
            advance(len(q))
            done += 1
            if file is not None and trainers and (keeping.is_due() or done == course.steps):
                states = ((i, trainer.state()) for i, trainer in enumerate(trainers))
                write_state(file, {f"{i}/{name}": value for i, state in states for name, value in state.items()})
                keeping.kept()
    finished = at_once([partial(trainer.finish, *held_out) for trainer in trainers], beside=beside)
    return [dictionary for own in finished for dictionary in own]


def _resumed(file: Path, settings: Sequence[Settings], device: torch.device) -> list[Trainer]:
    """The trainers whose states `_train` kept."""
    states: list[dict[str, Tensor]] = [{} for _ in settings]
    for name, value in load_file(file, device=str(device)).items():
        number, _, own = name.partition("/")
        states[int(number)][own] = value
    return [Trainer.from_state(one, state) for one, state in zip(settings, states, strict=True)]


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
