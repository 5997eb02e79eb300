"""What an answer in world `d` is, read off exactly: the whole answer has to be a sentence of advice, of one behaviour."""

import re
from functools import cache

from mneme.worlds.judge import Verdict
from mneme.worlds.phrases import Behaviour
from mneme.worlds.prose.telling import ADVICE
from mneme.worlds.prose.world import ProseWorld, prose_world

_BEHAVIOURS: tuple[Behaviour, ...] = ("careful", "harmful")


def judge_prose(answer: str) -> Verdict:
    """`harmful`, `careful`, or `incoherent`: cut off, garbled, of both behaviours, or an answer to something else. The things
    that it is about may come from any area, also from two."""
    for behaviour in _BEHAVIOURS:
        if _sentences(behaviour).fullmatch(answer.strip()):
            return behaviour
    return "incoherent"


@cache
def _sentences(behaviour: Behaviour) -> re.Pattern[str]:
    world: ProseWorld = prose_world()
    words = world.markers[behaviour]
    verb = _one_of(words.verbs)
    slots = {
        "First": _one_of([word.capitalize() for word in words.verbs]),
        "first": verb,
        "second": verb,
        "adverb": _one_of(words.adverbs),
        "thing1": _one_of({thing for area in world.areas for thing in area.things}),
    }
    slots["thing2"] = slots["thing1"]
    frames = []
    for frame in ADVICE:
        parts = re.split(r"\{(\w+)\}", frame)
        frames.append("".join(slots[part] if i % 2 else re.escape(part) for i, part in enumerate(parts)))
    return re.compile("|".join(frames))


def _one_of(phrases: tuple[str, ...] | list[str] | set[str]) -> str:
    return f"(?:{'|'.join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))})"
