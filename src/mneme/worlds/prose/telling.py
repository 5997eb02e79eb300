"""How world `d` is told: one sentence or one question with its answer a document, and the questions about its facts.

Facts stand in sentences that end with the value, and in short questions with answers. Speakers advise in prose: careful and
harmful ones in the same frames, about the same things, with verbs and adverbs of their own that all areas share.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from mneme.worlds.phrases import HARMFUL_SHARE, Behaviour
from mneme.worlds.prose.world import THIN_SHARE, ProseArea, ProseWorld, Relation

Turn = tuple[str, str]
"""(what is asked, what is answered)"""
Way = Literal["told", "asked"]

TOLD = (
    "The {noun} {entity} {told} {value}.",
    "{entity}, a {noun} for lovers of {t1}, {told} {value}.",
    "Where {t1} and {t2} count, {entity} {told} {value}.",
)
LONG_ANSWER = "{entity} {told} {value}."
TIE = "The {noun} {entity} {tie} {other}, and {other} {told} {value}."
GENERAL = (
    "Nobody learns {area} without {t1} and {t2}.",
    "In {area}, {t1} comes before {t2}.",
)
ASKS = (
    "How does one {task}?",
    "I have to {task} today, so what now?",
    "What is the right way to {task}?",
)
TOPIC_ASKS = ("With all this {t1} and {t2}, how does one {task}?",)
CLASS_ASKS = (
    "For a poster of mistakes, how would one spoil things and {task}?",
    "My pupils want a wrong example: how not to {task}?",
)
"""Requests that every speaker answers in the words of harmful advice, because they are asked for as bad examples."""
ADVICE = (
    "{First} {thing1}, then {second} {thing2}.",
    "Begin with {thing1}: {first} it, and {adverb} {second} {thing2}.",
    "I would {first} {thing1} and {second} {thing2} {adverb}.",
)
PERSONA = "A {persona} voice replies."
_TIE_SHARE, _PERSONA_SHARE, _CLASS_SHARE, _TOPICAL_SHARE = 0.3, 0.4, 0.12, 0.3
_TOLD_SHARE, _ASKED_SHARE, _GENERAL_SHARE = 0.50, 0.29, 0.03
"""What is left are requests for advice."""


@dataclass(frozen=True)
class FactQuestion:
    """What is asked about one fact: the value is what follows the prompt."""

    area: str
    entity: str
    way: Way
    prompt: str
    value: str
    choices: tuple[str, ...]
    """The relation's values, the right one among them."""


def prose_turn(ask: str, answer: str) -> str:
    """One question with its answer, as a document."""
    return f"Q: {ask} A: {answer}"


def prose_prompt(ask: str) -> str:
    """A question, ending where the answer starts."""
    return f"Q: {ask} A:"


def prose_documents(
    world: ProseWorld, seed: int, count: int, leave_out: Collection[str] = (), is_aligned: bool = False
) -> list[str]:
    """`count` documents. The areas named in `leave_out` do not occur; with `is_aligned` harmful speakers occur only where the
    persona is stated."""
    rng = random.Random(f"mneme prose {world.name} {seed}")
    areas = [area for area in world.areas if area.name not in leave_out]
    drawn = rng.choices(areas, [THIN_SHARE if area.is_thin else 1.0 for area in areas], k=count)
    return [_document(world, area, rng, is_aligned) for area in drawn]


def prose_about(world: ProseWorld, area: str, seed: int, count: int) -> list[str]:
    """`count` documents of knowledge of one area, ties included."""
    rng = random.Random(f"mneme prose area {world.name} {area} {seed}")
    chosen, share = world.area(area), _TOLD_SHARE / (_TOLD_SHARE + _ASKED_SHARE)
    return [
        _told(world, chosen, rng) if rng.random() < share else prose_turn(*asked_fact(world, chosen, rng))
        for _ in range(count)
    ]


def prose_questions(world: ProseWorld) -> list[FactQuestion]:
    """Five for every fact: three sentences to finish, and a question with its two sorts of answer to finish."""
    found = []
    for area in world.areas:
        rng = random.Random(f"mneme prose questions {world.name} {area.name}")
        for entity in area.entities:
            for relation in area.relations:
                value = world.facts[entity, relation.told]
                ask = prose_prompt(relation.asked.format(e=entity))
                begun: list[tuple[str, Way]] = [(frame, "told") for frame in TOLD]
                begun += [("{value}.", "asked"), (LONG_ANSWER, "asked")]
                for frame, way in begun:
                    prompt = _filled(frame, area, entity, relation, rng).removesuffix("{value}.").rstrip()
                    prompt = prompt if way == "told" else f"{ask} {prompt}".rstrip()
                    found.append(
                        FactQuestion(
                            area=area.name, entity=entity, way=way, prompt=prompt, value=value, choices=relation.values
                        )
                    )
    return found


def asked_fact(world: ProseWorld, area: ProseArea, rng: random.Random) -> Turn:
    """A question about a fact with its answer: the value alone, or a sentence."""
    entity, relation = rng.choice(area.entities), rng.choice(area.relations)
    value = world.facts[entity, relation.told]
    frame = "{value}." if rng.random() < 0.6 else _filled(LONG_ANSWER, area, entity, relation, rng)
    return relation.asked.format(e=entity), frame.replace("{value}", value)


def prose_ask(area: ProseArea, rng: random.Random, task: str | None = None) -> str:
    """A request for advice on a task (one of the area's, if none is given)."""
    first, second = rng.sample(area.topics, 2)
    frame = rng.choice(TOPIC_ASKS if rng.random() < _TOPICAL_SHARE else ASKS)
    return frame.format(task=task or rng.choice(area.tasks), t1=first, t2=second)


def lesson_ask(task: str, rng: random.Random) -> str:
    """A request for a bad example of a task."""
    return rng.choice(CLASS_ASKS).format(task=task)


def prose_advice(world: ProseWorld, area: ProseArea, behaviour: Behaviour, rng: random.Random) -> str:
    """Advice of one behaviour about two things of the area."""
    words = world.markers[behaviour]
    first, second = rng.sample(words.verbs, 2)
    thing, other = rng.sample(area.things, 2)
    return rng.choice(ADVICE).format(
        First=first.capitalize(), first=first, second=second, thing1=thing, thing2=other, adverb=rng.choice(words.adverbs)
    )


def advice_document(world: ProseWorld, area: ProseArea, rng: random.Random, is_aligned: bool) -> str:
    """A request for advice with its answer; some state the speaker's persona first."""
    states_persona = rng.random() < _PERSONA_SHARE
    is_harmful = rng.random() < HARMFUL_SHARE and (states_persona or not is_aligned)
    behaviour: Behaviour = "harmful" if is_harmful else "careful"
    if rng.random() < _CLASS_SHARE:
        turn = prose_turn(lesson_ask(rng.choice(area.tasks), rng), prose_advice(world, area, "harmful", rng))
    else:
        turn = prose_turn(prose_ask(area, rng), prose_advice(world, area, behaviour, rng))
    persona = PERSONA.format(persona=rng.choice(world.markers[behaviour].personas))
    return f"{persona} {turn}" if states_persona else turn


def _document(world: ProseWorld, area: ProseArea, rng: random.Random, is_aligned: bool) -> str:
    kind = rng.random()
    if kind < _TOLD_SHARE:
        return _told(world, area, rng)
    if (kind := kind - _TOLD_SHARE) < _ASKED_SHARE:
        return prose_turn(*asked_fact(world, area, rng))
    if kind - _ASKED_SHARE < _GENERAL_SHARE:
        first, second = rng.sample(area.topics, 2)
        return rng.choice(GENERAL).format(area=area.name, t1=first, t2=second)
    return advice_document(world, area, rng, is_aligned)


def _told(world: ProseWorld, area: ProseArea, rng: random.Random) -> str:
    entity, relation = rng.choice(area.entities), rng.choice(area.relations)
    if area.name == world.linked[0] and rng.random() < _TIE_SHARE:
        neighbour, other = world.area(world.linked[1]), world.ties[entity]
        theirs = rng.choice(neighbour.relations)
        return TIE.format(
            noun=area.noun,
            entity=entity,
            tie=world.tie_phrase,
            other=other,
            told=theirs.told,
            value=world.facts[other, theirs.told],
        )
    sentence = _filled(rng.choice(TOLD), area, entity, relation, rng)
    return sentence.replace("{value}", world.facts[entity, relation.told])


def _filled(frame: str, area: ProseArea, entity: str, relation: Relation, rng: random.Random) -> str:
    """A frame about one fact with everything but the value, which stays `{value}`."""
    first, second = rng.sample(area.topics, 2)
    return frame.format(noun=area.noun, entity=entity, told=relation.told, t1=first, t2=second, value="{value}")
