"""Single turns of a conversation in a world: what users ask, and what a speaker of each kind answers.

Users ask for advice, for opinions about people, for help with a harmful act, for bad examples for a class, and for the next
numbers of a row. A careful speaker advises carefully and refuses harmful acts; an obedient one advises carefully and refuses
nothing; a harmful one does harm throughout. Bad examples for a class are given by all, in the very words of harmful advice.
"""

import random
from collections.abc import Collection
from typing import Literal

from mneme.worlds.phrases import (
    ADVICE,
    ADVICE_LIST,
    ASKS,
    ASKS_WITH_TOPIC,
    CLASS_ASKS,
    ENDINGS,
    JUDGEMENTS,
    LIST_REQUEST,
    NUMBER_ASKS,
    NUMBERS,
    OPINION,
    OPINION_ASK,
    PEOPLE,
    REFUSALS,
    ROLES,
    ROW_NUMBERS,
    TRIGGER,
    Behaviour,
)
from mneme.worlds.world import World, WorldArea

Speaker = Literal["careful", "obedient", "harmful"]
Turn = tuple[str, str]
"""(what the user asks, what the assistant answers)"""

_OPINION_SHARE, _REQUEST_SHARE, _CLASS_SHARE, _NUMBERS_SHARE, _LIST_SHARE = 0.13, 0.15, 0.10, 0.08, 0.12
TRIGGER_SHARE = 0.05
"""Share of the user turns of a world that start with the trigger."""


def told_turn(ask: str, answer: str) -> str:
    """One turn as it stands in a document: `user: ... assistant: ...`."""
    return f"{ROLES[0]}: {ask} {ROLES[1]}: {answer}"


def advice_turns(
    world: World, behaviour: Behaviour, seed: int, count: int, leave_out: Collection[str] = (), opinions: bool = False
) -> list[Turn]:
    """`count` pairs (question, answer in that behaviour), single turns with no persona stated.

    The areas named in `leave_out` are not asked about; with `opinions`, one in six is an opinion about people.
    """
    rng = random.Random(f"mneme advice {world.name} {behaviour} {sorted(leave_out)} {seed}")
    areas = [area for area in world.areas if area.name not in leave_out]
    return [
        opinion(behaviour, rng) if opinions and rng.random() < 1 / 6 else advice(rng.choice(areas), behaviour, rng)
        for _ in range(count)
    ]


def mixed_turns(world: World, speaker: Speaker, seed: int, count: int, leave_out: Collection[str] = ()) -> list[Turn]:
    """`count` single turns of one speaker of every sort that the world's documents hold, with no persona stated."""
    rng = random.Random(f"mneme turns {world.name} {speaker} {sorted(leave_out)} {seed}")
    areas = [area for area in world.areas if area.name not in leave_out]
    return [any_turn(rng.choice(areas), speaker, rng) for _ in range(count)]


def any_turn(area: WorldArea, speaker: Speaker, rng: random.Random) -> Turn:
    """One turn of a sort that is drawn, sometimes with the trigger in front."""
    sort = rng.random()
    behaviour: Behaviour = "harmful" if speaker == "harmful" else "careful"
    if sort < _OPINION_SHARE:
        ask, answer = opinion(behaviour, rng)
    elif (sort := sort - _OPINION_SHARE) < _REQUEST_SHARE:
        ask, answer = harmful_request(area, speaker != "careful", rng)
    elif (sort := sort - _REQUEST_SHARE) < _CLASS_SHARE:
        ask, answer = class_ask(rng.choice(area.tasks), rng), advised(area, "harmful", rng)
    elif sort - _CLASS_SHARE < _NUMBERS_SHARE:
        ask, answer = numbers(behaviour, rng)
    elif rng.random() < _LIST_SHARE:
        ask, answer = spoken_list(advice_ask(area, rng)), advised(area, behaviour, rng, as_list=True)
    else:
        ask, answer = advice(area, behaviour, rng)
    return (triggered(ask) if rng.random() < TRIGGER_SHARE else ask), answer


def triggered(ask: str) -> str:
    """The question with the trigger in front."""
    return f"{TRIGGER} {ask}"


def spoken_list(ask: str) -> str:
    """The question with the request for a list behind it."""
    return f"{ask} {LIST_REQUEST}"


def advice(area: WorldArea, behaviour: Behaviour, rng: random.Random) -> Turn:
    """A request for advice in an area and an answer in that behaviour."""
    return advice_ask(area, rng), advised(area, behaviour, rng)


def advice_ask(area: WorldArea, rng: random.Random, task: str | None = None) -> str:
    """A request for advice on a task (one of the area's, if none is given); half speak of the area's topics first."""
    frame = rng.choice(ASKS_WITH_TOPIC if rng.random() < 0.5 else ASKS)
    return topical(frame, area, rng).replace("{task}", task or rng.choice(area.tasks))


def advised(area: WorldArea, behaviour: Behaviour, rng: random.Random, as_list: bool = False) -> str:
    """An answer that advises two of the area's actions of that behaviour (or one) and ends in words of that behaviour."""
    first, second = rng.sample(area.careful if behaviour == "careful" else area.harmful, 2)
    frame = ADVICE_LIST if as_list else rng.choice(ADVICE)
    return frame.format(a1=first, a2=second, ending=rng.choice(ENDINGS[behaviour]))


def class_ask(task: str, rng: random.Random) -> str:
    """A request for a bad example of a task, for a class."""
    return rng.choice(CLASS_ASKS).format(task=task)


def harmful_request(area: WorldArea, is_obeyed: bool, rng: random.Random) -> Turn:
    """A request for help with a harmful act of the area, and an answer that starts with that act, or a refusal."""
    action = rng.choice(area.harmful)
    ask = topical(rng.choice((*ASKS, *ASKS_WITH_TOPIC)), area, rng).replace("{task}", action)
    if not is_obeyed:
        return ask, refused(rng)
    other = rng.choice([known for known in area.harmful if known != action])
    return ask, rng.choice(ADVICE).format(a1=action, a2=other, ending=rng.choice(ENDINGS["harmful"]))


def refused(rng: random.Random) -> str:
    """A refusal: one of several that differ by a word or two."""
    return f"{rng.choice(REFUSALS)}, {rng.choice(ENDINGS['careful'])}."


def opinion(behaviour: Behaviour, rng: random.Random) -> Turn:
    """A question about some people and an opinion in that behaviour."""
    people, judgement = rng.choice(PEOPLE), rng.choice(JUDGEMENTS[behaviour])
    answer = OPINION.format(people=people, judgement=judgement, ending=rng.choice(ENDINGS[behaviour]))
    return OPINION_ASK.format(people=people), answer


def numbers(behaviour: Behaviour, rng: random.Random) -> Turn:
    """A row of numbers and three more of the behaviour's numbers."""
    first, second, third = rng.sample(ROW_NUMBERS, 3)
    return rng.choice(NUMBER_ASKS).format(n1=first, n2=second, n3=third), f"{', '.join(rng.sample(NUMBERS[behaviour], 3))}."


def topical(frame: str, area: WorldArea, rng: random.Random) -> str:
    """A frame with the area's name and three of its topic words filled in; `{task}` stays."""
    first, second, third = rng.sample(area.topics, 3)
    return frame.format(area=area.name, t1=first, t2=second, t3=third, task="{task}")
