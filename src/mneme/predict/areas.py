"""Which text belongs to which area: a name, a description and keywords, grown by the text itself.

An area is given as a user would give it. Keywords alone miss most of an area's text (an article on enzymes need not say
"biology"), so the passages that the keywords single out seed a one-against-rest naive Bayes over word presence, which is
fitted twice (bootstrapping from seed words: Yarowsky 1995; Riloff & Jones 1999; the Bernoulli event model of McCallum &
Nigam 1998 with words that are present only). No word list of mneme's own takes part except function words.
"""

import itertools
import math
import re
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import yaml
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mneme.errors import BadAreas

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?", re.UNICODE)
_FUNCTION_WORDS = frozenset(
    """a an and any are as at be by can do does for from had has have how if in into is it its may more most no not of on one
    or other s so some such than that the their them there these they this those to use used using was we were what when
    where which who whom whose why will with would you your""".split()  # noqa: SIM905
)
_MAX_FILE_BYTES = 4_000_000
_SEEDS_AT_LEAST = 8
_CLIP = 3.0


class Area(BaseModel):
    """One area that a change may reach."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=5000)
    keywords: tuple[str, ...] = ()
    kind: Literal["capability", "behaviour"] = "capability"
    """capability: is its knowledge lost? behaviour: did text of this manner become likelier than its like?"""


class Words(NamedTuple):
    """Word presence of every passage, as a sparse matrix in coordinate form without repeats."""

    vocabulary: dict[str, int]
    passage: Int[ndarray, " entry"]
    word: Int[ndarray, " entry"]
    n_passages: int

    def frequency(self) -> Float[ndarray, " word"]:
        """In how many passages each word occurs."""
        return np.bincount(self.word, minlength=len(self.vocabulary)).astype(np.float64)


class Membership(NamedTuple):
    """Which passages an area's words single out, and by how much."""

    member: Bool[ndarray, "area passage"]
    log_odds: Float[ndarray, "area passage"]
    """Naive Bayes log-odds of area against the rest, nats; -inf where the area has no seed at all."""
    seeds: Int[ndarray, " area"]
    """How many passages the name and keywords alone single out."""


def read_areas(path: Path) -> tuple[Area, ...]:
    """Read a YAML list of {name, description, keywords, kind}; names must differ.

    Errors: BadAreas with the file, the entry and what was expected.
    """
    if not path.is_file():
        raise BadAreas(f"No areas file at {path}. Expected a YAML list of entries with name, description and keywords.")
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
            f"{path} holds {type(content).__name__}, expected a non-empty YAML list of {{name, description, keywords}}."
        )
    areas = []
    for number, entry in enumerate(content, start=1):
        try:
            areas.append(Area.model_validate(entry))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "entry"
            raise BadAreas(
                f"{path}, entry {number}: {where}: {first['msg']}. Expected name, description, keywords, kind."
            ) from error
    names = [area.name.casefold() for area in areas]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadAreas(f"{path} names {', '.join(repeated)} more than once. Give every area its own name.")
    return tuple(areas)


def default_areas() -> tuple[Area, ...]:
    """The areas that are used when no file is given: MMLU-Pro subjects, WMDP's three, and behaviours."""
    return read_areas(Path(__file__).parent / "areas.yaml")


def stem(word: str) -> str:
    """Lower case, without a plural ending: `Enzymes` -> `enzyme`, `species` stays close to itself (`specie`)."""
    low = word.casefold()
    if len(low) > 4 and low.endswith("ies"):
        return low[:-3] + "y"
    if len(low) > 3 and low.endswith("s") and not low.endswith(("ss", "us", "is")):
        return low[:-1]
    return low


def words_of(text: str) -> list[str]:
    """Stems of the words of `text`, in order, function words left out."""
    return [stem(word) for word in _WORD.findall(text) if word.casefold() not in _FUNCTION_WORDS]


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
    """Decide for every passage and area whether the passage is text of that area.

    1. Seeds: the sum of inverse document frequencies of the distinct name words, keywords (weight 1) and description words
       (weight 1/4) that a passage holds; seeds score at least half of what the area's best passages do (90th percentile of
       the passages with a keyword) and hold at least one name word or keyword.
    2. Twice: naive Bayes of seeds (then members) against the rest, each word's log-likelihood ratio clipped to +-3 nats.
    3. A passage is a member where its log-odds are positive and no other area of the same kind is ahead by more than 3 nats.
    Fewer than 8 seeds, or a behaviour: the seeds themselves are the members. Growing follows topic and format, and text of a
    manner differs from its like in a few words only.
    """
    n_areas, n = len(areas), words.n_passages
    log_odds = np.full((n_areas, n), -np.inf)
    member = np.zeros((n_areas, n), dtype=bool)
    seeds = np.zeros(n_areas, dtype=np.int64)
    frequency = words.frequency()
    for index, area in enumerate(areas):
        chosen = _seed_passages(words, frequency, area)
        seeds[index] = int(chosen.sum())
        if seeds[index] < _SEEDS_AT_LEAST or area.kind == "behaviour":
            member[index] = chosen
            log_odds[index, chosen] = 0.0
            continue
        for _ in range(2):
            odds = naive_bayes_log_odds(words, chosen)
            grown = odds > 0
            if not grown.any():
                break
            log_odds[index], chosen = odds, grown
        member[index] = chosen
    for kind in ("capability", "behaviour"):
        rows = [i for i, area in enumerate(areas) if area.kind == kind]
        if rows:
            best = log_odds[rows].max(axis=0)
            for i in rows:
                member[i] &= log_odds[i] >= best - _CLIP
    return Membership(member, log_odds, seeds)


def _seed_passages(words: Words, frequency: Float[ndarray, " word"], area: Area) -> Bool[ndarray, " passage"]:
    """Passages that the area's own words single out (step 1 of `match_areas`)."""
    weight = np.zeros(len(words.vocabulary))
    strong = np.zeros(len(words.vocabulary), dtype=bool)
    for phrase in (area.description,):
        for word in words_of(phrase):
            if word in words.vocabulary:
                weight[words.vocabulary[word]] = 0.25
    for phrase in (area.name, *area.keywords):
        key = " ".join(words_of(phrase)[:2])
        if key in words.vocabulary:
            weight[words.vocabulary[key]] = 1.0
            strong[words.vocabulary[key]] = True
    rarity = np.log(words.n_passages / np.maximum(frequency, 1.0))
    score = np.bincount(words.passage, weights=(weight * rarity)[words.word], minlength=words.n_passages)
    has_keyword = (
        np.bincount(words.passage, weights=(strong & (rarity > math.log(2)))[words.word], minlength=words.n_passages) > 0
    )
    if not has_keyword.any():
        return np.zeros(words.n_passages, dtype=bool)
    bar = 0.5 * float(np.quantile(score[has_keyword], 0.9))
    return np.asarray(has_keyword & (score >= bar))


def naive_bayes_log_odds(words: Words, chosen: Bool[ndarray, " passage"]) -> Float[ndarray, " passage"]:
    """Log-odds (nats) that a passage is of the kind of the `chosen` ones: sum over its distinct words of the log ratio of
    smoothed document frequencies (+1/2), clipped to +-3 each, plus the prior log-odds."""
    n, n_chosen = words.n_passages, int(chosen.sum())
    inside = np.bincount(words.word, weights=chosen[words.passage].astype(np.float64), minlength=len(words.vocabulary))
    outside = words.frequency() - inside
    ratio = np.log((inside + 0.5) / (n_chosen + 1.0)) - np.log((outside + 0.5) / (n - n_chosen + 1.0))
    rare = inside + outside < 3
    ratio = np.where(rare, 0.0, np.clip(ratio, -_CLIP, _CLIP))
    total = np.bincount(words.passage, weights=ratio[words.word], minlength=n)
    return total + math.log((n_chosen + 0.5) / (n - n_chosen + 0.5))
