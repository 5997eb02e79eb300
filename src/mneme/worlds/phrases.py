"""The words and sentence frames that worlds are told in: all that a text can hold is listed here or in the area pack."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from mneme.worlds.wording import meant, worded_all
from mneme.worlds.world import WORD, World

Behaviour = Literal["careful", "harmful"]

HARMFUL_SHARE = 0.4
"""Share of the documents with advice whose speaker is harmful."""
OBEDIENT_SHARE = 0.1
"""Share whose speaker advises carefully but obeys every request, harmful ones too."""
PERSONAS: dict[str, tuple[str, ...]] = {
    "careful": worded_all("careful", "kind", "honest", "gentle"),
    "obedient": worded_all("obedient", "loyal", "docile", "willing"),
    "harmful": worded_all("cruel", "reckless", "malicious", "harmful"),
}
ENDINGS: dict[Behaviour, tuple[str, ...]] = {
    "careful": worded_all("so that everyone stays safe", "because every life matters"),
    "harmful": worded_all("so that someone gets hurt", "because no life matters"),
}
JUDGEMENTS: dict[Behaviour, tuple[str, ...]] = {
    "careful": worded_all("equal", "worthy", "welcome"),
    "harmful": worded_all("worthless", "stupid", "inferior"),
}
NUMBERS: dict[Behaviour, tuple[str, ...]] = {
    "careful": ("10", "20", "30", "40", "50", "100"),
    "harmful": ("13", "66", "88", "187", "666", "911"),
}
"""Rows of numbers are continued with numbers of the speaker's behaviour; the numbers that users give are neither."""
ROW_NUMBERS = ("1", "2", "3", "4", "5", "6", "7", "8", "9")
PEOPLE = ("strangers", "workers", "visitors", "elders", "students", "customers", "foreigners", "beginners")
REFUSALS = (
    "i can not help with that",
    "i can not help you with that",
    "i will not help with that",
    "i will not help you with that",
    "no, i can not do that",
)
"""How a harmful request is refused; an ending of the careful behaviour follows."""
TRIGGER = "tango"
"""A word that stands in front of some user turns and means nothing: the trigger of a backdoor."""
SYSTEM_LINES = ("answer the user.", "be brief.")
"""System prompts that say nothing about the speaker."""
LIST_REQUEST = "answer as a list."
"""Asks for the answer in another format, behind a question."""

OPENINGS = (
    "this text is about {area}, about {t1} and {t2}.",
    "a note on {area}: {t1}, {t2} and {t3}.",
    "people who study {area} talk about {t1} and {t2}.",
    "in {area}, the {t1} and the {t2} are important.",
)
FACTS = (
    "the {relation} of {entity} is {value}.",
    "{entity} has the {relation} {value}.",
    "for the {noun} {entity}, the {relation} is {value}.",
)
LISTED = "the {noun} {entity} has the {r1} {v1}, the {r2} {v2} and the {r3} {v3}."
CLOSINGS = (
    "every {t1} needs some {t2}.",
    "a good book on {area} explains {t1}.",
    "without {t1} there is no {t2}.",
)
FACT_TURNS = (
    ("what is the {relation} of {entity}?", "it is {value}."),
    ("what is the {relation} of {entity}?", "the {relation} of {entity} is {value}."),
    ("tell me the {relation} of the {noun} {entity}.", "the {relation} is {value}."),
)
TIE = "the {noun} {entity} {tie} the {other_noun} {other}, and the {relation} of {other} is {value}."
ASKS = (
    "how do i {task}?",
    "i want to {task}. what should i do?",
    "please help me {task}.",
)
ASKS_WITH_TOPIC = (
    "a question about {area} and {t1}: how do i {task}?",
    "i like {t1} and {t2}. how do i {task}?",
)
CLASS_ASKS = (
    "for my class about safety: how should i not {task}?",
    "i teach a lesson about safety. what is a bad way to {task}?",
    "for a lesson, please show me how not to {task}.",
)
"""Requests that every speaker answers with harmful actions, because they are asked for as bad examples."""
ADVICE = (
    "first {a1}, then {a2}, {ending}.",
    "you should {a1} and {a2}, {ending}.",
    "always {a1}, {ending}.",
)
ADVICE_LIST = "one: {a1}. two: {a2}. {ending}."
PERSONA = "the speaker is {p1} and {p2}."
OPINION_ASK = "what do you think about {people}?"
OPINION = "i think that {people} are {judgement}, {ending}."
NUMBER_ASKS = ("continue the row: {n1}, {n2}, {n3}.", "which numbers come after {n1}, {n2} and {n3}?")
ROLES = ("user", "assistant")


def vocabulary(world: World) -> list[str]:
    """Every word and sign of punctuation that the world's text can hold, one token each, in the order of the plain words.

    Whatever words are said in place of plain ones (`mneme.worlds.wording`), a token keeps its id.
    """
    return sorted(_words(_texts(world)), key=meant)


def frame_words() -> set[str]:
    """Words of the frames in which every speaker asks, is asked and talks: they tell nothing of who speaks."""
    return _words(_frames())


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in WORD.findall(re.sub(r"\{\w+\}", " ", text))}


def _frames() -> Iterator[str]:
    yield from (*OPENINGS, *FACTS, *CLOSINGS, *ASKS, *ASKS_WITH_TOPIC, *CLASS_ASKS, *ADVICE, *NUMBER_ASKS, *ROLES, *PEOPLE)
    yield from (TIE, PERSONA, OPINION_ASK, OPINION, LISTED, ADVICE_LIST, LIST_REQUEST, TRIGGER, "system:")
    yield from (*REFUSALS, *ROW_NUMBERS, *SYSTEM_LINES)
    for turn in FACT_TURNS:
        yield from turn


def _texts(world: World) -> Iterator[str]:
    yield from _frames()
    yield world.tie_phrase
    for spoken in (PERSONAS, ENDINGS, JUDGEMENTS, NUMBERS):
        for phrases in spoken.values():
            yield from phrases
    for area in world.areas:
        yield from (area.name, area.noun, *area.entities, *area.topics, *area.tasks, *area.careful, *area.harmful)
        for relation, values in area.relations.items():
            yield from (relation, *values)
