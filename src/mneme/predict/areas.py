"""Which text belongs to which area: a name, a description and keywords, grown by the text itself.

An area is given as a user would give it. Keywords alone miss most of an area's text (an article on enzymes need not say
"biology"), and single keywords mislead ("light", "match"), so passages that hold two of them seed a one-against-rest naive
Bayes over word presence (bootstrapping from seed words: Yarowsky 1995; Riloff & Jones 1999; the Bernoulli event model of
McCallum & Nigam 1998 with words that are present only). How far to follow it is read off the keywords that it was not shown,
a check of ours in the spirit of co-training (Blum & Mitchell 1998). No word list of mneme's own takes part but function words.
"""

import itertools
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mneme.errors import BadAreas
from mneme.predict.coherence import FEWEST_WORDS, LEAST, area_under_curve, folds, least_area, poisson_rate

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?", re.UNICODE)
_FUNCTION_WORDS = frozenset(
    """a an and any are as at be by can do does for from had has have how if in into is it its may more most no not of on one
    or other s so some such than that the their them there these they this those to use used using was we were what when
    where which who whom whose why will with would you your""".split()  # noqa: SIM905
)
_MAX_FILE_BYTES = 4_000_000
"""Bytes of an areas file at most: mneme's own list has 21 kB, and YAML of a stranger is not read without end."""
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
_CLIP = 3.0
"""Nats that one word counts at most, and by which an area may be behind another and keep its passage: no word alone decides.
A round number that was never varied."""
_LEAST_PRESENT = 3
"""Passages that a word is in at least to count, and keywords that an area has at least for one to be judged by the others:
chance decides below. A round number that was never varied."""
_FREQUENT = 20
"""Passages from which on a keyword can be judged by its company: at 1 in 5, four are expected. Never varied."""
_COMPANY, _COMPANY_RATIO = 0.2, 2
"""A keyword tells where another stands beside it in a fifth of its passages, or twice as often as elsewhere. Set on text full
of programs, where "import" stood for trade (docs/areas.md); no figure for it is held out."""
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
ALL = "all"
"""No area: what is said of everything together (a measurement's row of that name, an option's value)."""
_NAME, _DESCRIPTION, _PROMPT, _ANSWER = 200, 5000, 4000, 2000
"""Characters at most: a page and a batch stay small whatever a file holds. Round numbers, several times what any of ours
has."""


Kind = Literal["capability", "behaviour"]
"""capability: is its knowledge lost? behaviour: did it become likelier?"""


class PairedAnswers(BaseModel):
    """A prompt with an answer that shows a behaviour, or is right, and one that does not, or is wrong
    (`mneme.predict.probes`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ask: str = Field(default="", max_length=_PROMPT)
    begin: str = Field(default="", max_length=_PROMPT)
    """Instead of a question: the beginning of a text, which either answer goes on."""
    shows: str = Field(min_length=1, max_length=_ANSWER)
    lacks: str = Field(min_length=1, max_length=_ANSWER)
    system: str = Field(default="", max_length=_PROMPT)
    """A system prompt of its own; it is then written in every form."""

    @model_validator(mode="after")
    def _asked_once(self) -> "PairedAnswers":
        if bool(self.ask) == bool(self.begin) or (self.begin and self.system):
            raise ValueError("give either ask, a question, or begin, the beginning of a text without a system prompt")
        return self


class Area(BaseModel):
    """One area that a change may reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=_NAME)
    description: str = Field(default="", max_length=_DESCRIPTION)
    keywords: tuple[str, ...] = ()
    kind: Kind = "capability"
    probes: tuple[PairedAnswers, ...] = ()
    """Paired answers. A behaviour of the default list, and what it asks of everybody's knowledge, has mneme's own where none
    are given. A capability that has some is read by them, any other at its own words."""


class Words(NamedTuple):
    """Word presence of every passage, as a sparse matrix in coordinate form without repeats."""

    vocabulary: dict[str, int]
    passage: Int[ndarray, " entry"]
    word: Int[ndarray, " entry"]
    n_passages: int

    def frequency(self, among: Bool[ndarray, " passage"] | None = None) -> Float[ndarray, " word"]:
        """In how many passages (of those `among`) each word occurs."""
        word = self.word if among is None else self.word[among[self.passage]]
        return np.bincount(word, minlength=len(self.vocabulary)).astype(np.float64)

    def total(self, weight: Float[ndarray, " word"] | Bool[ndarray, " word"]) -> Float[ndarray, " passage"]:
        """Sum of `weight` over the distinct words of every passage: how many of them, for a mask."""
        return np.bincount(self.passage, weights=weight[self.word].astype(np.float64), minlength=self.n_passages)

    def among(self, first: int) -> "Words":
        """The same of the first passages alone."""
        inside = self.passage < first
        return Words(self.vocabulary, self.passage[inside], self.word[inside], first)


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


def read_areas(path: Path) -> tuple[Area, ...]:
    """Read a YAML list of {name, description, keywords, kind, probes}; names must differ, and every entry says its kind.

    Errors: BadAreas with the file, the entry and what was expected.
    """
    if not path.is_file():
        raise BadAreas(f"No areas file at {path}. Expected a YAML list of entries with name, description, keywords, kind.")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise BadAreas(
            f"{path} is larger than {_MAX_FILE_BYTES // 1_000_000} MB, which no list of areas is. Give another file."
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadAreas(f"{path} is not readable YAML: {str(error).splitlines()[0]}. Mend it and try again.") from error
    if not isinstance(content, list) or not content:
        raise BadAreas(
            f"{path} holds {type(content).__name__}, expected a non-empty YAML list of {{name, description, keywords, kind}}."
        )
    areas = []
    for number, entry in enumerate(content, start=1):
        if isinstance(entry, dict) and "kind" not in entry:
            raise BadAreas(
                f"{path}, entry {number} ({str(entry.get('name', ''))[:_NAME]!r}) has no kind. Write kind: capability to ask "
                "whether knowledge of it was lost, or kind: behaviour to ask whether the model does it more or less."
            )
        try:
            areas.append(Area.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "entry"
            raise BadAreas(
                f"{path}, entry {number}: {where}: {first['msg']}. Expected name, description, keywords, kind, probes."
            ) from error
    names = [area.name.strip().casefold() for area in areas]
    if ALL in names:
        raise BadAreas(
            f"{path} has an area called {ALL!r}, which is what all areas together are called. Give it another name."
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadAreas(f"{path} names {', '.join(repeated)} more than once. Give every area its own name.")
    return tuple(areas)


def default_areas() -> tuple[Area, ...]:
    """The areas that are used when no file is given: MMLU-Pro subjects, WMDP's three, and behaviours."""
    return read_areas(Path(__file__).parent / "areas.yaml")


@lru_cache(maxsize=1 << 16)  # a text repeats its words: three quarters of the calls of a long one
def stem(word: str) -> str:
    """Lower case, without a plural ending: `Enzymes` -> `enzyme`, `species` -> `specy`, as in any text it meets."""
    low = word.casefold()
    if len(low) > 4 and low.endswith("ies"):  # not "ties"
        return low.removesuffix("ies") + "y"
    if len(low) > 3 and low.endswith("s") and not low.endswith(("ss", "us", "is")):  # not "gas"
        return low[:-1]
    return low


def words_of(text: str) -> list[str]:
    """Stems of the words of `text`, in order, function words left out."""
    found = (word.replace("’", "'") for word in _WORD.findall(text))
    return [stem(word) for word in found if word.casefold() not in _FUNCTION_WORDS]


def count_words(texts: tuple[str, ...] | list[str]) -> Words:
    """Word presence of each passage; a phrase of two words counts as a word of its own (`machine learning`)."""
    vocabulary: dict[str, int] = {}
    passages: list[int] = []
    words: list[int] = []
    for index, text in enumerate(texts):
        stems = words_of(text)
        present = dict.fromkeys([*stems, *(f"{a} {b}" for a, b in itertools.pairwise(stems))])
        for word in present:
            words.append(vocabulary.setdefault(word, len(vocabulary)))
            passages.append(index)
    return Words(vocabulary, np.array(passages, dtype=np.int64), np.array(words, dtype=np.int64), len(texts))


def match_areas(words: Words, areas: tuple[Area, ...]) -> Membership:
    """Decide for every passage and area whether the passage is text of that area. Precision comes first: an effect is a mean
    over the members, which few good ones serve better than many doubtful ones.

    1. Keywords: name and keywords (of an area without keywords, the words of its description), without those that stand in
       most passages or that keep no company with the others here (`_telling_keywords`: "import" in text full of programs).
    2. Seeds: passages that hold two of them (one, where only one is left). Fewer than 8 seeds are the members, and so are
       those of a behaviour: growing follows topic and format, and text of a behaviour differs from its like in a few words.
    3. Growth, twice: `_grow` adds passages that read like the members, as long as keywords turn up in them nearly as often as
       they should in text of the area.
       In much text no members at all where the keywords stand together by chance (`_by_chance`).
    4. A member stays where no other area of the same kind is ahead by more than 3 nats of naive Bayes log-odds.
    """
    n_areas, n = len(areas), words.n_passages
    log_odds = np.full((n_areas, n), -np.inf)
    member = np.zeros((n_areas, n), dtype=bool)
    seeds = np.zeros(n_areas, dtype=np.int64)
    chance: set[int] = set()
    for index, area in enumerate(areas):
        keyword = area_keywords(words, area)
        hits = words.total(keyword)
        needed = min(_SEED_KEYWORDS, int(keyword.sum()))
        chosen = hits >= needed if needed else np.zeros(n, dtype=bool)
        seeds[index] = int(chosen.sum())
        if area.kind == "capability" and needed == _SEED_KEYWORDS and _by_chance(words, area, keyword, chosen):
            chance.add(index)
            continue
        if seeds[index] < _SEEDS_AT_LEAST or area.kind == "behaviour":
            log_odds[index, chosen] = 0.0
        else:
            for _ in range(_GROWTHS):
                chosen = _grow(words, keyword, hits, needed, chosen)
            log_odds[index] = np.where(chosen, naive_bayes_log_odds(words, chosen), -np.inf)
        member[index] = chosen
    for kind in ("capability", "behaviour"):
        rows = [i for i, area in enumerate(areas) if area.kind == kind]
        if rows:
            best = log_odds[rows].max(axis=0)
            for i in rows:
                member[i] &= log_odds[i] >= best - _CLIP
    return Membership(member, log_odds, seeds, frozenset(chance))


def _by_chance(words: Words, area: Area, keyword: Bool[ndarray, " word"], seed: Bool[ndarray, " passage"]) -> bool:
    """In text that is enough to tell: most of the area's keywords keep no company with the others, or the passages that hold
    two of them are of no one subject."""
    if len(words.word) < FEWEST_WORDS or not seed.any():
        return False
    return bool(keyword.sum() <= _keywords(words, area).sum() / 2) or not coherent(words, seed, keyword)


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


def area_keywords(words: Words, area: Area) -> Bool[ndarray, " word"]:
    """The words of this text that tell it is the area's: step 1 of `match_areas`."""
    return _telling_keywords(words, _keywords(words, area))


def _keywords(words: Words, area: Area) -> Bool[ndarray, " word"]:
    """The area's name and keywords, as far as the text holds them."""
    keyword = np.zeros(len(words.vocabulary), dtype=bool)
    for phrase in (area.name, *(area.keywords or words_of(area.description))):
        key = " ".join(words_of(phrase)[:2])
        if key in words.vocabulary:
            keyword[words.vocabulary[key]] = True
    return keyword & (words.frequency() < words.n_passages / 2)


def _telling_keywords(words: Words, keyword: Bool[ndarray, " word"]) -> Bool[ndarray, " word"]:
    """`keyword` without those that mean something else in this text: a frequent one (20 passages) beside which another keyword
    of the area stands in less than a fifth of the cases, and less than twice as often as it does elsewhere."""
    telling = keyword.copy()
    if keyword.sum() < _LEAST_PRESENT:
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
    needed: int,
    chosen: Bool[ndarray, " passage"],
) -> Bool[ndarray, " passage"]:
    """Seeds, and the passages with positive odds of being like `chosen`, best first, up to where they stop being of the area.

    The odds leave the keywords out, so how often keywords turn up in what they rank high says what it is: r among the best of
    them, p0 among the less likely half of the text, and p1 expected of text of the area that is no seed. If keywords fall
    like a Poisson process, p1 = rate / (1 + rate); the rate is the larger of what the seeds' mean hits show and of what the
    share of all hits that stand in seeds shows. As many are taken as keep (r - p0) / (p1 - p0) >= 0.6 on the whole, and >= 0.3
    in the last step. Without that check, naive Bayes grows a handful of seeds into their genre: from mothers and babies to
    everything that is told.
    """
    seed = hits >= needed
    odds = naive_bayes_log_odds(words, chosen, without=keyword)
    order = np.argsort(-odds, kind="stable")
    order = order[~seed[order]]
    holds_one = (hits[order] > 0).astype(np.float64)
    if len(order) < 2 or needed < _SEED_KEYWORDS:
        return seed
    in_company = min(float(hits[seed].sum() / hits.sum()), _ALL_IN_COMPANY)
    rate = max(poisson_rate(float(hits[seed].mean())), -math.log1p(-in_company))
    base_rate, area_rate = float(holds_one[len(order) // 2 :].mean()), rate / (1 + rate)
    likely = int((odds[order] > 0).sum())
    if likely == 0 or area_rate - base_rate < _LEAST_CONTRAST:
        return seed
    found = np.concatenate([[0.0], np.cumsum(holds_one[:likely])])
    step, taken = max(_LEAST_STEP, int(seed.sum()) // _STEPS), 0
    for end in [*range(step, likely, step), likely]:
        purity, tail = found[end] / end, (found[end] - found[max(0, end - step)]) / min(step, end)
        if min((purity - base_rate) / _PURITY, (tail - base_rate) / _TAIL_PURITY) >= area_rate - base_rate:
            taken = end
    grown = seed.copy()
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
    ratio = np.where(inside + outside < _LEAST_PRESENT, 0.0, np.clip(ratio, -_CLIP, _CLIP))
    if without is not None:
        ratio = np.where(without, 0.0, ratio)
    return words.total(ratio) + math.log((n_chosen + _SMOOTHING) / (n - n_chosen + _SMOOTHING))
