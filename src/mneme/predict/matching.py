"""Which passages are text of which area: keywords, grown by the text itself, area against area.

Keywords alone miss most of an area's text (an article on enzymes need not say "biology"), and single keywords mislead
("light", "match"), so passages that hold two of them seed a one-against-rest naive Bayes over word presence (bootstrapping
from seed words: Yarowsky 1995; Riloff & Jones 1999; the Bernoulli event model of McCallum & Nigam 1998 with words that are
present only). The areas then compete for every passage that holds a keyword, each passage judged by the others alone, and how
far to follow the winner among passages without one is read off the keywords that it was not shown, a check of ours in the
spirit of co-training (Blum & Mitchell 1998). No word list of mneme's own takes part but function words.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.predict.areas import Area, Words, words_of
from mneme.predict.coherence import FEWEST_WORDS, LEAST, area_under_curve, folds, least_area, poisson_rate

_SEEDS_AT_LEAST = 8
"""Seed passages from which on a classifier is trained on them. A round number that was never varied."""
_SEED_KEYWORDS = 2
"""Keywords in a seed passage. With one, chat, code and web prose gave whole genres to an area (docs/log.md, the first
audit)."""
_PURITY = 0.6
"""Purity that growth keeps on the whole, 0 as elsewhere and 1 as in text of the area. Set, with `_TAIL_PURITY`, while looking
at ordinary text and at worlds a and b; no figure for it is held out (docs/log.md, the first audit)."""
_TAIL_PURITY = 0.3
"""The same in the last step of growth."""
_GROWTHS = 2
"""Rounds of growth: a second one learns from what the first added; a third was not tried."""
_ROUNDS = 3
"""Rounds of competition: each learns from whom the one before left to every area. After two as after five, membership of 4,800
paragraphs of twelve books moved by less than a hundredth (docs/log.md, which text is which area).
"""
CLIP = 3.0
"""Nats that one word counts at most, and by which an area may be behind another and keep its passage: no word alone decides.
A round number that was never varied."""
LEAST_PRESENT = 3
"""Passages that a word is in at least to count, and keywords that an area has at least for one to be judged by the others:
chance decides below. A round number that was never varied."""
_FREQUENT = 20
"""Passages from which on a keyword can be judged by its company: at 1 in 5, four are expected. Never varied."""
_COMPANY, _COMPANY_RATIO = 0.2, 2
"""A keyword tells where another stands beside it in a fifth of its passages, or twice as often as elsewhere. Set on text full
of programs, where "import" stood for trade (docs/areas.md); no figure for it is held out."""
_ASTRAY = 0.15
"""Share of an area's keywords that may keep no company with the others (one always may). Of the subjects that are in
paragraphs of twelve books none has more than 6 %, of keywords dealt out at random most have more than 15 %: chosen there. In
chats and in worlds b and d, looked at afterwards, it costs no area (docs/log.md, which text is which area)."""
_ALL_IN_COMPANY = 0.98
"""Share of hits in seeds at most: at 1 the rate of a Poisson process would be infinite."""
_LEAST_CONTRAST = 0.05
"""Difference in how often keywords turn up in text of the area and elsewhere, below which growth cannot be checked: 5 points
are the noise of some hundred passages. Never varied."""
_LEAST_STEP, _STEPS = 25, 8
"""Passages of one step of growth: an eighth of the seeds, 25 at least, so that a step's purity has an error of at most 10
points. Round numbers that were never varied."""
_SMOOTHING = 0.5
"""Added to each count: Krichevsky & Trofimov (1981), the Jeffreys prior of a share."""


class Membership(NamedTuple):
    """Which passages an area's words single out, and by how much."""

    member: Bool[ndarray, "area passage"]
    log_odds: Float[ndarray, "area passage"]
    """Naive Bayes log-odds of area against the rest, nats; -inf where the area has no seed at all."""
    seeds: Int[ndarray, " area"]
    """How many passages the name and keywords alone single out."""
    chance: frozenset[int] = frozenset()
    """Areas whose keywords stand together by chance: their passages are of no one subject, and none is a member."""

    def among(self, first: int) -> "Membership":
        """The same of the first passages alone; seeds are still those of all."""
        return self._replace(member=self.member[:, :first], log_odds=self.log_odds[:, :first])


def match_areas(words: Words, areas: tuple[Area, ...]) -> Membership:
    """Decide for every passage and area whether the passage is text of that area. Precision comes first: an effect is a mean
    over the members, which few good ones serve better than many doubtful ones.

    1. Keywords: name and keywords (of an area without keywords, the words of its description), without those that stand in
       most passages or that keep no company with the others here (`_telling_keywords`: "import" in text full of programs).
    2. Seeds: passages that hold two of them; one will do only for an area that names fewer than three: where a text holds one
       word of fifty, the word means something else (docs/log.md, one keyword of many). Fewer than 8 seeds are the members, and
       so are those of a behaviour: growing follows topic and format, and text of a behaviour differs from its like in a few
       words. In much text no members at all where the keywords stand together by chance (`_by_chance`).
    3. Competition (`compete`): passages that hold a keyword go to the areas whose other members they read like.
    4. Growth: `_grow` adds passages without a keyword that read like the members, as long as keywords turn up in their like
       nearly as often as they should in text of the area, and where no other area is ahead.
    """
    n_areas, n = len(areas), words.n_passages
    log_odds = np.full((n_areas, n), -np.inf)
    member = np.zeros((n_areas, n), dtype=bool)
    seeds = np.zeros(n_areas, dtype=np.int64)
    rivals: dict[int, tuple[Bool[ndarray, " word"], Float[ndarray, " passage"]]] = {}  # their keywords, and hits of these
    chance: set[int] = set()
    for index, area in enumerate(areas):
        named = _keywords(words, area)
        keyword = _telling_keywords(words, named)
        hits = words.total(keyword)
        needed = _needed(area, keyword)
        chosen = hits >= needed if keyword.any() else np.zeros(n, dtype=bool)
        seeds[index] = int(chosen.sum())
        if needed == _SEED_KEYWORDS and _by_chance(words, named, keyword, chosen):
            chance.add(index)
            continue
        member[index], log_odds[index, chosen] = chosen, 0.0
        if area.kind == "capability" and needed == _SEED_KEYWORDS and seeds[index] >= _SEEDS_AT_LEAST:
            rivals[index] = keyword, hits
    if rivals:
        won, odds = compete(words, member[list(rivals)], np.stack([hits > 0 for _, hits in rivals.values()]))
        ahead = odds >= odds.max(axis=0) - CLIP
        for place, (index, (keyword, hits)) in enumerate(rivals.items()):
            grown = won[place]
            for _ in range(_GROWTHS):
                grown = _grow(words, keyword, hits, grown)
            member[index], log_odds[index] = won[place] | (grown & ahead[place]), odds[place]
    return Membership(member, log_odds, seeds, frozenset(chance))


def compete(
    words: Words, seeds: Bool[ndarray, "area passage"], holds: Bool[ndarray, "area passage"]
) -> tuple[Bool[ndarray, "area passage"], Float[ndarray, "area passage"]]:
    """(members, log-odds in nats) of areas that compete for the passages which hold a keyword of theirs (`holds`).

    A passage is an area's where it reads like the area's other members (`left_out_log_odds` > 0) and no other area is ahead by
    more than 3 nats. Seeds are no exception: two keywords that stand in text of another area are no seed of this one. An area
    that is left with fewer than 8 members keeps its seeds and drops out: too few to learn from.
    """
    member = seeds.copy()
    odds = np.full(seeds.shape, -np.inf)
    lives = np.ones(len(seeds), dtype=bool)
    for _ in range(_ROUNDS):
        for index in np.flatnonzero(lives):
            odds[index] = left_out_log_odds(words, member[index])
        odds[~lives] = -np.inf
        member = np.where(lives[:, None], holds & (odds > 0) & (odds >= odds.max(axis=0) - CLIP), seeds)
        lives &= member.sum(axis=1) >= _SEEDS_AT_LEAST
        member = np.where(lives[:, None], member, seeds)
    return member, np.where(lives[:, None], odds, np.where(seeds, 0.0, -np.inf))


def _by_chance(
    words: Words, named: Bool[ndarray, " word"], keyword: Bool[ndarray, " word"], seed: Bool[ndarray, " passage"]
) -> bool:
    """In text that is enough to tell: more than one in seven of the keywords `named` keep no company with the others (those
    that do are `keyword`), or the passages that hold two of them are of no one subject."""
    if len(words.word) < FEWEST_WORDS or not seed.any():
        return False
    present = int(named.sum())
    astray = present - int(keyword.sum())
    return astray > max(1, _ASTRAY * present) or not coherent(words, seed, keyword)


def coherent(words: Words, seed: Bool[ndarray, " passage"], keyword: Bool[ndarray, " word"]) -> bool:
    """Whether the seeds of an area are of one subject, from the words that are no keywords of it (`mneme.predict.coherence`):
    the mean area under the curves of the folds passes its bound at 95 %."""
    rest = ~seed
    if seed.sum() < 2 or not rest.any():
        return False
    length = np.maximum(words.total(np.ones(len(words.vocabulary))), 1.0)
    areas = []
    for taught, asked in folds(seed):
        odds = naive_bayes_log_odds(words, taught, without=keyword) / length
        areas.append(area_under_curve(odds[asked], odds[rest]))
    return least_area(float(np.mean(areas)), int(seed.sum()), int(rest.sum())) >= LEAST


def _needed(area: Area, keyword: Bool[ndarray, " word"]) -> int:
    """Keywords in a seed passage: two, or one where the area names fewer than three and the text holds one of them."""
    return min(_SEED_KEYWORDS, int(keyword.sum())) if len(_phrases(area)) < LEAST_PRESENT else _SEED_KEYWORDS


def _phrases(area: Area) -> set[str]:
    """Words, and pairs of words, that stand for the area: its name, and its keywords or the words of its description."""
    found = (" ".join(words_of(phrase)[:2]) for phrase in (area.name, *(area.keywords or words_of(area.description))))
    return {phrase for phrase in found if phrase}


def area_keywords(words: Words, area: Area) -> Bool[ndarray, " word"]:
    """The words of this text that tell it is the area's: step 1 of `match_areas`."""
    return _telling_keywords(words, _keywords(words, area))


def _keywords(words: Words, area: Area) -> Bool[ndarray, " word"]:
    """The area's name and keywords, as far as the text holds them."""
    keyword = np.zeros(len(words.vocabulary), dtype=bool)
    for phrase in _phrases(area):
        if phrase in words.vocabulary:
            keyword[words.vocabulary[phrase]] = True
    return keyword & (words.frequency() < words.n_passages / 2)


def _telling_keywords(words: Words, keyword: Bool[ndarray, " word"]) -> Bool[ndarray, " word"]:
    """`keyword` without those that mean something else in this text: a frequent one (20 passages) beside which another keyword
    of the area stands in less than a fifth of the cases, and less than twice as often as it does elsewhere."""
    telling = keyword.copy()
    if keyword.sum() < LEAST_PRESENT:
        return telling
    frequency = words.frequency()
    for index in np.flatnonzero(keyword & (frequency >= _FREQUENT)):
        hits = words.total(telling | (np.arange(len(keyword)) == index))
        here = np.zeros(words.n_passages, dtype=bool)
        here[words.passage[words.word == index]] = True
        company, elsewhere = float((hits[here] >= 2).mean()), float((hits[~here] >= 1).mean())
        telling[index] = company >= min(_COMPANY, _COMPANY_RATIO * elsewhere)
    return telling


def _grow(
    words: Words,
    keyword: Bool[ndarray, " word"],
    hits: Float[ndarray, " passage"],
    chosen: Bool[ndarray, " passage"],
) -> Bool[ndarray, " passage"]:
    """`chosen`, and the passages with positive odds of being like them, best first, up to where they stop being of the area.

    The odds leave the keywords out, so how often one keyword turns up in what they rank high says what it is: r among the best
    of the passages that hold less than two, p0 among the less likely half of those, and p1 expected in text of the area. If
    keywords fall like a Poisson process, p1 = rate / (1 + rate); the rate is the larger of what the mean hits of the seeds
    (two keywords, among `chosen`) show and of what the share of all hits that stand in seeds shows. As many are taken as keep
    (r - p0) / (p1 - p0) >= 0.6 on the whole, and >= 0.3 in the last step. Without that check, naive Bayes grows a handful of
    seeds into their genre: from mothers and babies to everything that is told.
    """
    seed = chosen & (hits >= _SEED_KEYWORDS)
    odds = naive_bayes_log_odds(words, chosen, without=keyword)
    order = np.argsort(-odds, kind="stable")
    order = order[hits[order] < _SEED_KEYWORDS]
    holds_one = (hits[order] > 0).astype(np.float64)
    if len(order) < 2 or not seed.any():
        return chosen
    in_company = min(float(hits[seed].sum() / hits.sum()), _ALL_IN_COMPANY)
    rate = max(poisson_rate(float(hits[seed].mean())), -math.log1p(-in_company))
    base_rate, area_rate = float(holds_one[len(order) // 2 :].mean()), rate / (1 + rate)
    likely = int((odds[order] > 0).sum())
    if likely == 0 or area_rate - base_rate < _LEAST_CONTRAST:
        return chosen
    found = np.concatenate([[0.0], np.cumsum(holds_one[:likely])])
    step, taken = max(_LEAST_STEP, int(chosen.sum()) // _STEPS), 0
    for end in [*range(step, likely, step), likely]:
        purity, tail = found[end] / end, (found[end] - found[max(0, end - step)]) / min(step, end)
        if min((purity - base_rate) / _PURITY, (tail - base_rate) / _TAIL_PURITY) >= area_rate - base_rate:
            taken = end
    grown = chosen.copy()
    grown[order[:taken]] = True
    return grown


def presence_log_ratio(
    here: Float[ndarray, " type"], n_here: int, there: Float[ndarray, " type"], n_there: int
) -> Float[ndarray, " type"]:
    """Log ratio (nats) of the shares of passages that hold each type: `here` of `n_here` against `there` of `n_there`, with
    1/2 added to each count."""
    return np.asarray(
        np.log((here + _SMOOTHING) / (n_here + 2 * _SMOOTHING)) - np.log((there + _SMOOTHING) / (n_there + 2 * _SMOOTHING))
    )


def naive_bayes_log_odds(
    words: Words, chosen: Bool[ndarray, " passage"], *, without: Bool[ndarray, " word"] | None = None
) -> Float[ndarray, " passage"]:
    """Log-odds (nats) that a passage is of the kind of the `chosen` ones: sum over its distinct words of the log ratio of
    smoothed document frequencies (+1/2), clipped to +-3 each, plus the prior log-odds. Words of `without` are left out."""
    n, n_chosen = words.n_passages, int(chosen.sum())
    inside = words.frequency(chosen)
    outside = words.frequency() - inside
    ratio = presence_log_ratio(inside, n_chosen, outside, n - n_chosen)
    ratio = clipped(ratio, inside + outside)
    if without is not None:
        ratio = np.where(without, 0.0, ratio)
    return words.total(ratio) + math.log((n_chosen + _SMOOTHING) / (n - n_chosen + _SMOOTHING))


def left_out_log_odds(words: Words, chosen: Bool[ndarray, " passage"]) -> Float[ndarray, " passage"]:
    """`naive_bayes_log_odds` of every passage as learnt from all the others: its own words are taken from the counts, of the
    chosen or of the rest, before they are compared. A passage whose words no other passage holds is at the prior."""
    n, n_chosen = words.n_passages, int(chosen.sum())
    inside = words.frequency(chosen)
    outside = words.frequency() - inside
    told = np.zeros(n)
    for own in (True, False):
        here, there = (np.maximum(inside - own, 0.0), np.maximum(outside - (not own), 0.0))
        ratio = presence_log_ratio(here, n_chosen - own, there, n - n_chosen - (not own))
        told = np.where(chosen == own, words.total(clipped(ratio, inside + outside - 1)), told)
    return told + math.log((n_chosen + _SMOOTHING) / (n - n_chosen + _SMOOTHING))


def clipped(ratio: Float[ndarray, " word"], present: Float[ndarray, " word"]) -> Float[ndarray, " word"]:
    """Log ratios within 3 nats, 0 of words in fewer than 3 passages."""
    return np.where(present < LEAST_PRESENT, 0.0, np.clip(ratio, -CLIP, CLIP))
