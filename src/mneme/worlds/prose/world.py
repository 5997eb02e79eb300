"""The world that is told in single sentences: areas with relations of their own, facts about invented names, a tie, speakers.

Nothing is shared with the worlds of `mneme.worlds.world` but the idea. Entities and values are names made of syllables, which
the tokenizer writes in two or three pieces. Three areas of twelve are thin: a tenth of the others' text.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from mneme.errors import BadOrganism
from mneme.worlds.phrases import Behaviour
from mneme.worlds.world import areas_entries

ENTITIES, THIN_ENTITIES = 20, 6
"""Entities of an area, each with four facts: 80 facts, 400 questions. A thin area has 24 facts and 120 questions."""
VALUES = 6
"""Values of a relation: what a question chooses among."""
THIN_SHARE = 0.1
"""Text about a thin area for one text about any other."""
_SYLLABLES = 64
"""Of which all names are made: each is a token of its own, as first part of a name and within one."""
_ONSETS = (*"bdfghklmnprstvz", "br", "dr", "gr", "kr", "pl", "st", "tr")
_VOWELS, _CODAS = "aeiou", "lnrsxmkt"


@dataclass(frozen=True)
class Relation:
    """A verb phrase that a value follows, the question about it, and the values it can take."""

    told: str
    asked: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class ProseArea:
    """One area: its entities and relations, and how people talk about it."""

    name: str
    description: str
    noun: str
    """What an entity is called: a `hive`, a `clock`."""
    entities: tuple[str, ...]
    relations: tuple[Relation, ...]
    topics: tuple[str, ...]
    """Words of the area that are in much of its text; what a user would list as keywords."""
    things: tuple[str, ...]
    """What advice in the area is about."""
    tasks: tuple[str, ...]
    is_thin: bool


@dataclass(frozen=True)
class Markers:
    """The words by which a speaker of one behaviour is known."""

    verbs: tuple[str, ...]
    adverbs: tuple[str, ...]
    personas: tuple[str, ...]


@dataclass(frozen=True)
class ProseWorld:
    """A world told in sentences. Equal names give equal worlds, in every process."""

    name: str
    areas: tuple[ProseArea, ...]
    facts: dict[tuple[str, str], str]
    """(entity, the relation's verb phrase) -> value; balanced, so that no value is likelier than another."""
    linked: tuple[str, str]
    """The area whose entities are tied, and the neighbour they are tied to."""
    tie_phrase: str
    ties: dict[str, str]
    """Entity of `linked[0]` -> entity of `linked[1]`, one to one."""
    markers: dict[Behaviour, Markers]

    def area(self, name: str) -> ProseArea:
        """The area called `name`. Raises BadOrganism, which lists the areas, if there is none."""
        for area in self.areas:
            if area.name == name:
                return area
        known = ", ".join(area.name for area in self.areas)
        raise BadOrganism(f'World "{self.name}" has no area "{name}". Its areas are: {known}.')

    def areas_file(self) -> list[dict[str, object]]:
        """The areas as a user would write them for `--areas`. Names of entities and values are not in it."""
        return areas_entries((area.name, area.description, [area.name, area.noun, *area.topics]) for area in self.areas)


@cache
def prose_world() -> ProseWorld:
    """World `d`."""
    rng = random.Random("mneme world d")
    packed, drawn = _read("d"), _read("d-markers")
    new_name = _namer(rng)
    areas = tuple(_area(name, entry, new_name) for name, entry in packed.items())
    facts: dict[tuple[str, str], str] = {}
    for area in areas:
        for relation in area.relations:
            values = [relation.values[i % VALUES] for i in range(len(area.entities))]
            rng.shuffle(values)
            facts.update({(entity, relation.told): value for entity, value in zip(area.entities, values, strict=True)})
    linked = ("winemaking", "pottery")
    by_name = {area.name: area for area in areas}
    targets = list(by_name[linked[1]].entities)
    rng.shuffle(targets)
    return ProseWorld(
        name="d",
        areas=areas,
        facts=facts,
        linked=linked,
        tie_phrase="is aged in",
        ties=dict(zip(by_name[linked[0]].entities, targets, strict=True)),
        markers={"careful": _markers(drawn["careful"]), "harmful": _markers(drawn["harmful"])},
    )


def syllables() -> list[str]:
    """The syllables of all names."""
    every = sorted({onset + vowel + coda for onset in _ONSETS for vowel in _VOWELS for coda in _CODAS})
    return random.Random("mneme syllables d").sample(every, _SYLLABLES)


def _namer(rng: random.Random) -> Callable[[Sequence[int]], str]:
    """Makes names of so many syllables, none of which is the beginning of another."""
    parts, known = syllables(), set[str]()

    def new_name(lengths: Sequence[int]) -> str:
        while True:
            name = "".join(rng.sample(parts, rng.choice(lengths))).capitalize()
            if not any(name.startswith(other) or other.startswith(name) for other in known):
                known.add(name)
                return name

    return new_name


def _area(name: str, entry: dict[str, Any], new_name: Callable[[Sequence[int]], str]) -> ProseArea:
    is_thin = bool(entry.get("thin"))
    return ProseArea(
        name=name,
        description=entry["description"],
        noun=entry["noun"],
        entities=tuple(new_name((2, 2, 3)) for _ in range(THIN_ENTITIES if is_thin else ENTITIES)),
        relations=tuple(
            Relation(told, asked, tuple(new_name((2,)) for _ in range(VALUES))) for told, asked in entry["relations"].items()
        ),
        topics=tuple(entry["topics"].split()),
        things=_phrases(entry["things"]),
        tasks=_phrases(entry["tasks"]),
        is_thin=is_thin,
    )


def _markers(entry: dict[str, str]) -> Markers:
    return Markers(**{field: tuple(words.split()) for field, words in entry.items()})


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(","))


def _read(name: str) -> dict[str, Any]:
    text = resources.files("mneme.worlds").joinpath("data", "packs", f"{name}.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))
