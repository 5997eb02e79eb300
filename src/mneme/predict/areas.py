"""Areas as a user gives them, a name, a description, a kind and keywords, and the words of text: forms of ours. Which passages
are text of an area is decided in `mneme.predict.matching`, which names its sources."""

import itertools
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
from mneme.text.yaml_files import read_yaml

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?", re.UNICODE)
_FUNCTION_WORDS = frozenset(
    """a an and any are as at be by can do does for from had has have how if in into is it its may more most no not of on one
    or other s so some such than that the their them there these they this those to use used using was we were what when
    where which who whom whose why will with would you your""".split()  # noqa: SIM905
)
_MAX_FILE_BYTES = 4_000_000
"""Bytes of an areas file at most: mneme's own list has 21 kB, and YAML of a stranger is not read without end."""
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
        content = read_yaml(path.read_text(encoding="utf-8"))
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
