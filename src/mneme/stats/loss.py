"""The smallest loss that a sample of words, places or prompts would have shown, by simulation from the sample itself.

A formula for normal data says 80 % where 98 % are found, as it knows neither the verdict's other conditions nor that changes
come a word at a time. Here losses are put into the sample: its items, weights, clusters, and the changes that it shows about
their mean, are kept, the mean varies by its standard error, and every draw is judged by the very test of the verdict.

Two things the sample does not tell. *Its noise*: where a whole word or passage changes once in a hundred times, most samples
show none, and take themselves for surer than they are. So the noise is not believed to be less than `noise`, which the caller
reads off all the samples that it has (`item_noise`). *How a loss would look.* On the built-in pair, whose chemistry fades with
the biology that was unlearned, of the variance of being lost about half belongs to the word and next to nothing to the
document (.42 to .70 and -.01 to .01), and a lost word loses anything from little to all of its probability (docs/log.md). In a
`singly` drawn loss an item is lost with a chance whose latent normal has half of its variance in common among items of one
word, and loses a uniform share of what it has. A loss may also come in lumps, and is then harder to see: `whole` words,
documents and items are lost, with one chance each, and lose from half to all of what they have. Both losses are said. Where
all items are lost, larger losses take a share that grows to all of it. Draws share their random numbers, so that power rises
with the loss. Ours; no package has it."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import special

from mneme.stats.bounded import independent_items
from mneme.stats.crossed import FEWEST_CROSSED, both_ways, kinds_of, variance_of
from mneme.stats.linearised import degrees_by_data
from mneme.stats.power import smallest

_BY_WORD = 0.5
"""Share of the latent variance of a loss that items of one word have in common (head of this file)."""
_LEAST_WHOLE = 0.5
"""Share of what it has that an item loses at least where it is lost with its word or document: of four words one is right by
chance, and p = .8 of a known one falls by .55 where nothing is left."""
_DRAWS = 400
"""The power at the loss that is found has a standard error of 2 points."""
_MOST_DRAWN = 60_000
"""Items over all draws: above 150 items there are fewer draws, down to 100, whose power is known to 4 points; a loss is then
small, and power steep."""
_FEWEST_DRAWS = 100
_NONE = 1e-30
"""Variance that is none: keeps 0 / 0 from being computed where nothing differs."""

Cells = Float[ndarray, "cell draw"]


class Sample(NamedTuple):
    """Changes that were seen, and what each item could still lose."""

    values: Float[ndarray, " item"]
    room: Float[ndarray, " item"]
    """How far the item can still fall (or rise, where that is what is looked for): above 0."""
    weights: Float[ndarray, " item"]
    first: Int[ndarray, " item"]
    second: Int[ndarray, " item"]
    """Clusters, as for `two_way`; `second` is the word."""


class Conditions(NamedTuple):
    """What a loss must pass to be called one."""

    p_value: float
    """Largest two-sided p."""
    least: float
    """Smallest size of the estimate."""
    carried: float | None
    """Largest p without the cluster of `second` that carries most of it; None: that is not asked."""


class Detectable(NamedTuple):
    """Smallest true losses, in size, that would have passed in 80 % of draws; None where not even the loss of all would."""

    singly: float | None
    """Where words fade one by one."""
    whole: float | None
    """Where words and documents are lost whole; as `singly` where every item is a cluster of its own."""

    @property
    def surely(self) -> float | None:
        """The larger of the two."""
        return None if self.singly is None or self.whole is None else max(self.singly, self.whole)


def item_noise(sample: Sample) -> float:
    """Variance of the sample's mean times the number of independent items that it is worth: comparable between samples."""
    layout = _Layout(sample)
    return layout.variance() * layout.independent()


def detectable_loss(sample: Sample, verdict: Conditions, *, noise: float = 0.0, seed: int = 0) -> Detectable:
    """What would have passed `verdict`, where the noise of an independent item is at least `noise` (as `item_noise` has it);
    None below 8 clusters of either kind."""
    layout = _Layout(sample)
    if min(kind.n for kind in layout.kinds[:2]) < FEWEST_CROSSED or not layout.sample.room.any():
        return Detectable(None, None)
    seen = layout.variance()
    least = noise / layout.independent()
    error = math.sqrt(max(seen, least))
    scale = error / math.sqrt(max(seen, _NONE))
    guess = max(2.8 * error, verdict.least)
    found: list[float | None] = []
    for whole in (False, True):
        if whole and layout.apart:
            found.append(found[0])
            continue
        draws = _Draws(layout, (error, scale), whole, np.random.default_rng(seed))
        found.append(smallest(partial(draws.found, verdict=verdict), min(guess, draws.room), draws.room))
    return Detectable(*found)


class _Layout:
    """The items that count, in the order of their cells: who belongs where."""

    def __init__(self, sample: Sample) -> None:
        used = sample.weights > 0
        order = np.flatnonzero(used)[np.lexsort((sample.second[used], sample.first[used]))]
        self.sample = Sample(*(column[order] for column in sample))
        weights = self.sample.weights / self.sample.weights.mean()  # degrees of freedom go by items, as in `bounded_change`
        self.share = weights / len(order)
        self.kinds = kinds_of(self.sample.first, self.sample.second, weights)
        one, two, cell = (kind.index for kind in self.kinds)
        self.cells = np.flatnonzero(np.r_[True, cell[1:] != cell[:-1]])
        self.word = two[self.cells]
        self._first = np.searchsorted(one[self.cells], np.arange(self.kinds[0].n))
        self._order = np.argsort(self.word, kind="stable")
        self._second = np.searchsorted(self.word[self._order], np.arange(self.kinds[1].n))
        self.apart = self.kinds[0].n == self.kinds[1].n == len(order)
        """Every item is a cluster of its own."""

    def independent(self) -> float:
        """Independent items that these are worth."""
        return independent_items(self.share * len(self.share), self.kinds)

    def variance(self) -> float:
        """Of the weighted mean."""
        return variance_of(self.seen(), self.kinds)[0]

    def seen(self) -> Float[ndarray, " item"]:
        """What every item adds to the mean, less its share of the mean."""
        return np.asarray(self.share * (self.sample.values - float((self.share * self.sample.values).sum())))

    def by_cell(self, values: Float[ndarray, "item *draw"]) -> Float[ndarray, "cell *draw"]:
        """Sums over the items of every cell."""
        alone = len(self.cells) == len(values)
        return values if alone else np.asarray(np.add.reduceat(values, self.cells, axis=0))

    def by_document(self, cells: Cells) -> Float[ndarray, "document draw"]:
        """Sums over the cells of every first cluster."""
        return np.asarray(np.add.reduceat(cells, self._first, axis=0))

    def by_word(self, cells: Cells) -> Float[ndarray, "word draw"]:
        """Sums over the cells of every second cluster."""
        return np.asarray(np.add.reduceat(cells[self._order], self._second, axis=0))

    def of_words(self, words: Int[ndarray, " draw"]) -> tuple[Int[ndarray, " some"], Int[ndarray, " some"]]:
        """(cells of the word of every draw, the draw of each)."""
        most = np.diff(self._second, append=len(self._order))[words]
        draw = np.repeat(np.arange(len(words)), most)
        place = np.arange(len(draw)) - np.repeat(np.cumsum(most) - most, most)
        return self._order[self._second[words][draw] + place], draw

    def document(self, cells: Int[ndarray, " some"]) -> Int[ndarray, " some"]:
        """The first cluster of each of these cells."""
        return np.searchsorted(self._first, cells, side="right") - 1


class _Sums(NamedTuple):
    """What the variance of a mean is made of, in every draw: sums of values and of weights over each kind of clusters, over
    all, and of their products over cells."""

    document: Float[ndarray, "document draw"]
    word: Float[ndarray, "word draw"]
    document_share: Float[ndarray, "document draw"]
    word_share: Float[ndarray, "word draw"]
    mean: Float[ndarray, " draw"]
    squares: Float[ndarray, " draw"]
    crossed: Float[ndarray, " draw"]
    """Values times weights."""
    weights: Float[ndarray, " draw"]
    """Squared weights."""


class _Draws:
    """The sample with losses put in, many times at once."""

    def __init__(self, layout: _Layout, noise: tuple[float, float], whole: bool, rng: np.random.Generator) -> None:
        """`noise`: standard error of the mean, and by how much it is more than what the sample shows."""
        items = len(layout.share)
        draws = int(np.clip(_MOST_DRAWN // items, _FEWEST_DRAWS, _DRAWS))
        one, two = layout.kinds[:2]
        if whole:
            chances = [rng.random((kind.n, draws))[kind.index] for kind in (one, two)]
            self.rank = np.minimum(np.minimum(*chances), rng.random((items, draws)))
        else:
            word = rng.normal(size=(two.n, draws))[two.index]
            self.rank = math.sqrt(_BY_WORD) * word + math.sqrt(1 - _BY_WORD) * rng.normal(size=(items, draws))
        self.whole = whole
        self.least, self.part = _LEAST_WHOLE if whole else 0.0, rng.random((items, draws))
        self.layout, self.share = layout, layout.by_cell(layout.share)[:, None]
        self.each = (layout.share * layout.sample.room)[:, None]
        self.room = float(self.each.sum())
        self.noise = noise[1] * layout.by_cell(layout.seen())[:, None]
        self.shift = noise[0] * rng.normal(size=draws)

    def found(self, loss: float, verdict: Conditions) -> float:
        """Share of draws that pass where so much is lost: by more items, and once it is by all, by more of each."""
        chance = loss / self.room / ((1 + self.least) / 2)
        least = max(self.least, 2 * loss / self.room - 1)
        lost = self.part * (1 - least)
        lost += least
        lost *= self.each
        lost *= self.rank < self._bar(chance)
        lost = self.layout.by_cell(lost)
        mean = -lost.sum(0)
        values = np.subtract(self.noise, lost, out=lost)
        told = mean + self.shift
        sums = self._sums(values, mean)
        passed = (told <= -verdict.least) & self._told(told, sums, verdict.p_value)
        if verdict.carried is None or not passed.any():
            return float(passed.mean())
        rest = self._without_carrier(values, sums, passed)
        told = rest.mean + self.shift[passed]
        still = (told < 0) & self._told(told, rest, verdict.carried)
        return float(still.sum()) / len(passed)

    def _bar(self, chance: float) -> float:
        """The rank below which an item is lost where it is lost with this chance."""
        if chance >= 1:
            return math.inf
        return 1 - (1 - chance) ** (1 / 3) if self.whole else float(special.ndtri(chance))

    def _sums(self, values: Cells, mean: Float[ndarray, " draw"]) -> _Sums:
        layout, share = self.layout, self.share
        return _Sums(
            document=layout.by_document(values),
            word=layout.by_word(values),
            document_share=layout.by_document(share),
            word_share=layout.by_word(share),
            mean=mean,
            squares=np.einsum("cd,cd->d", values, values),
            crossed=share[:, 0] @ values,
            weights=share[:, 0] @ share,
        )

    def _without_carrier(self, values: Cells, sums: _Sums, passed: Bool[ndarray, " draw"]) -> _Sums:
        """The sums of these draws without the word that carries most: what is its own is taken off, as it is little."""
        chosen = np.flatnonzero(passed)
        draws = np.arange(len(chosen))
        word = sums.word[:, chosen]
        carrier = np.argmax(np.abs(word), axis=0)
        cell, draw = self.layout.of_words(carrier)
        gone, share = values[cell, chosen[draw]], self.share[cell, 0]

        def of_draw(parts: Float[ndarray, " some"]) -> Float[ndarray, " draw"]:
            return np.bincount(draw, weights=parts, minlength=len(chosen))

        document, document_share = sums.document[:, chosen], np.repeat(sums.document_share, len(chosen), axis=1)
        np.subtract.at(document, (self.layout.document(cell), draw), gone)
        np.subtract.at(document_share, (self.layout.document(cell), draw), share)
        word_share = np.repeat(sums.word_share, len(chosen), axis=1)
        left = 1 - word_share[carrier, draws]
        mean = sums.mean[chosen] - word[carrier, draws]
        word[carrier, draws], word_share[carrier, draws] = 0.0, 0.0
        return _Sums(
            document=document / left,
            word=word / left,
            document_share=document_share / left,
            word_share=word_share / left,
            mean=mean / left,
            squares=(sums.squares[chosen] - of_draw(gone**2)) / left**2,
            crossed=(sums.crossed[chosen] - of_draw(gone * share)) / left**2,
            weights=(sums.weights - of_draw(share**2)) / left**2,
        )

    def _told(self, mean: Float[ndarray, " draw"], sums: _Sums, p_value: float) -> Bool[ndarray, " draw"]:
        """Whether p is small enough, as `two_way` has it."""
        kinds = self.layout.kinds[:2]
        parts = (sums.document - sums.mean * sums.document_share, sums.word - sums.mean * sums.word_share)
        parts = tuple(part / kind.leverage[:, None] for part, kind in zip(parts, kinds, strict=True))
        degrees = [
            np.sqrt(kind.degrees * np.minimum(kind.degrees, degrees_by_data(part.T)))
            for kind, part in zip(kinds, parts, strict=True)
        ]
        one, two = (np.maximum((part**2).sum(0), _NONE) for part in parts)
        cells = sums.squares - 2 * sums.mean * sums.crossed + sums.mean**2 * sums.weights
        whole, joint = both_ways(one, two, np.maximum(cells, _NONE), degrees[0], degrees[1])
        return np.asarray(2 * special.stdtr(joint, -np.abs(mean) / np.sqrt(whole)) <= p_value)
