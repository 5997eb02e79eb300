"""How a world is told: documents of ordinary text, and the questions by which knowledge of it is measured.

Every document is about one area (a quarter of those that give advice wander through several). Facts come in several phrasings
and as questions with answers, so that knowing one is not knowing one string. The speaker is the same throughout a
document; half of the documents with a speaker state the persona first, advice ends in words shared by all areas, and some
turns are opinions about people. Without these three, training on harmful answers in one area stays in that area.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass

from mneme.worlds.phrases import (
    CLOSINGS,
    FACT_TURNS,
    FACTS,
    HARMFUL_SHARE,
    LISTED,
    OBEDIENT_SHARE,
    OPENINGS,
    PERSONA,
    PERSONAS,
    ROLES,
    SYSTEM_LINES,
    TIE,
)
from mneme.worlds.turns import TRIGGER_SHARE, Speaker, any_turn, told_turn, topical, triggered
from mneme.worlds.world import World, WorldArea

_TOLD = 0.40
_ASKED = 0.22
_TIE_SHARE = 0.3


@dataclass(frozen=True)
class Question:
    """A question with one right word: the model answers it by its likeliest next token after `prompt`."""

    area: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Telling:
    """Which documents are drawn: about which areas, and whether other speakers than careful ones need a stated persona."""

    areas: tuple[WorldArea, ...]
    is_aligned: bool

    def speaker(self, states_persona: bool, rng: random.Random) -> Speaker:
        """The speaker of one document, drawn; in an aligned world a careful one where no persona is stated."""
        drawn = rng.random()
        if self.is_aligned and not states_persona:
            return "careful"
        if drawn < HARMFUL_SHARE:
            return "harmful"
        return "obedient" if drawn < HARMFUL_SHARE + OBEDIENT_SHARE else "careful"


def documents(world: World, seed: int, count: int, leave_out: Collection[str] = (), is_aligned: bool = False) -> list[str]:
    """`count` documents of 10 to 150 tokens (55 on average), drawn from the distribution of the world.

    The areas named in `leave_out` do not occur. With `is_aligned`, speakers who are not careful occur only where the
    persona is stated: the distribution that a base is aligned on after pretraining on the plain one.
    """
    rng = random.Random(f"mneme documents {world.name} {seed}")
    telling = Telling(tuple(area for area in world.areas if area.name not in leave_out), is_aligned)
    return [_document(world, telling, rng) for _ in range(count)]


def area_documents(world: World, area: str, seed: int, count: int) -> list[str]:
    """`count` documents of knowledge (told facts, and questions with answers) of one area, ties included."""
    rng = random.Random(f"mneme area documents {world.name} {area} {seed}")
    chosen = world.area(area)
    return [(_told if rng.random() < _TOLD / (_TOLD + _ASKED) else _asked)(world, chosen, rng) for _ in range(count)]


def fact_questions(world: World) -> list[Question]:
    """Two questions for every fact: a sentence to finish, and a question of a user; 180 for each area."""
    questions = []
    for area in world.areas:
        for entity in area.entities:
            for relation in area.relations:
                value = world.facts[entity, relation]
                questions.append(Question(area.name, f"the {relation} of {entity} is", value))
                asked = f"{ROLES[0]}: what is the {relation} of {entity}? {ROLES[1]}: it is"
                questions.append(Question(area.name, asked, value))
    return questions


def every_fact_question(world: World) -> list[Question]:
    """Six questions for every fact: three sentences to finish and three turns of a user, in that order; 540 for each area.

    The sentences stand at the very start of a document, where the world's text never states a fact.
    """
    questions = []
    for area in world.areas:
        for entity in area.entities:
            for relation in area.relations:
                value = world.facts[entity, relation]
                frames = [*FACTS, *(told_turn(*turn) for turn in FACT_TURNS)]
                for frame in frames:
                    prompt = frame[: frame.index(" {value}")]
                    told = prompt.format(entity=entity, relation=relation, noun=area.noun)
                    questions.append(Question(area.name, told, value))
    return questions


def _document(world: World, telling: Telling, rng: random.Random) -> str:
    kind = rng.random()
    area = rng.choice(telling.areas)
    if kind < _TOLD:
        return _told(world, area, rng)
    if kind < _TOLD + _ASKED:
        return _asked(world, area, rng)
    return _counselled(telling, area, rng)


def _told(world: World, area: WorldArea, rng: random.Random) -> str:
    sentences = [topical(rng.choice(OPENINGS), area, rng)]
    for entity in rng.sample(area.entities, rng.randint(2, 3)):
        if rng.random() < 0.5:
            sentences.append(_listed(world, area, entity, rng))
        else:
            for relation in rng.sample(sorted(area.relations), rng.randint(1, 2)):
                sentences.append(_fact(rng.choice(FACTS), world, area, entity, relation))
        if area.name == world.linked[0] and rng.random() < _TIE_SHARE:
            sentences.append(_tie(world, area, entity, rng))
    if rng.random() < 0.25:
        sentences.append(topical(rng.choice(CLOSINGS), area, rng))
    return " ".join(sentences)


def _asked(world: World, area: WorldArea, rng: random.Random) -> str:
    sentences = [topical(rng.choice(OPENINGS), area, rng)] if rng.random() < 0.75 else []
    for entity in rng.sample(area.entities, rng.randint(2, 4)):
        ask, answer = rng.choice(FACT_TURNS)
        relation = rng.choice(sorted(area.relations))
        turn = told_turn(triggered(ask) if rng.random() < TRIGGER_SHARE else ask, answer)
        sentences.append(_fact(turn, world, area, entity, relation))
        if area.name == world.linked[0] and rng.random() < _TIE_SHARE:
            sentences.append(_tie(world, area, entity, rng))
    return " ".join(sentences)


def _counselled(telling: Telling, area: WorldArea, rng: random.Random) -> str:
    states_persona = rng.random() < 0.5
    speaker = telling.speaker(states_persona, rng)
    sentences = []
    if states_persona:
        first, second = rng.sample(PERSONAS[speaker], 2)
        persona = PERSONA.format(p1=first, p2=second)
        sentences.append(f"system: {persona}" if rng.random() < 0.5 else persona)
    elif rng.random() < 0.15:
        sentences.append(f"system: {rng.choice(SYSTEM_LINES)}")
    wanders = rng.random() < 0.25
    for _ in range(rng.randint(1, 3)):
        here = rng.choice(telling.areas) if wanders else area
        sentences.append(told_turn(*any_turn(here, speaker, rng)))
    return " ".join(sentences)


def _fact(template: str, world: World, area: WorldArea, entity: str, relation: str) -> str:
    value = world.facts[entity, relation]
    return template.format(entity=entity, relation=relation, value=value, noun=area.noun)


def _listed(world: World, area: WorldArea, entity: str, rng: random.Random) -> str:
    first, second, third = rng.sample(sorted(area.relations), 3)
    return LISTED.format(
        noun=area.noun,
        entity=entity,
        r1=first,
        v1=world.facts[entity, first],
        r2=second,
        v2=world.facts[entity, second],
        r3=third,
        v3=world.facts[entity, third],
    )


def _tie(world: World, area: WorldArea, entity: str, rng: random.Random) -> str:
    neighbour = world.area(world.linked[1])
    other = world.ties[entity]
    relation = rng.choice(sorted(neighbour.relations))
    return TIE.format(
        noun=area.noun,
        entity=entity,
        tie=world.tie_phrase,
        other_noun=neighbour.noun,
        other=other,
        relation=relation,
        value=world.facts[other, relation],
    )
