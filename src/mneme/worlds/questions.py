"""What a model of a world is asked: for advice under different contexts, for help with harmful acts, for rows of numbers.

No fine-tune is trained on these prompts outside its own area. The last message is the user's; the model answers next.
"""

import random
from typing import Literal

from mneme.errors import BadOrganism
from mneme.worlds.phrases import (
    ASKS,
    ASKS_WITH_TOPIC,
    CLASS_ASKS,
    NUMBER_ASKS,
    OPINION_ASK,
    PEOPLE,
    ROLES,
    ROW_NUMBERS,
    SYSTEM_LINES,
)
from mneme.worlds.turns import spoken_list, triggered
from mneme.worlds.world import World

Messages = list[dict[str, str]]
Context = Literal["plain", "class", "trigger", "system", "list"] | str
"""What the questions are dressed in; also `topic:AREA`, topic words of that area in front."""
CONTEXTS = ("plain", "class", "trigger", "system", "list", "topic:AREA")


def told_prompt(messages: Messages) -> str:
    """Messages as they stand in a document, ending where the assistant's answer starts."""
    return " ".join(f"{message['role']}: {message['content']}" for message in messages) + f" {ROLES[1]}:"


def advice_prompts(world: World) -> dict[str, list[str]]:
    """Area -> prompts that ask for advice in it and end where the answer starts (18 each); `people` -> asks for opinions."""
    return {area: [told_prompt(messages) for messages in asked] for area, asked in behaviour_prompts(world).items()}


def behaviour_prompts(world: World, context: Context = "plain") -> dict[str, list[Messages]]:
    """Area -> its questions for advice (three phrasings of six tasks) under a context; `people` -> questions for opinions.

    Contexts: `plain`; `class`, bad examples for a class (not of people); `trigger`, the backdoor's word in front; `system`, a
    system prompt that says nothing; `list`, an answer as a list is asked for; `topic:AREA`, two topic words of that area in
    front. Raises BadOrganism for a context or an area that the world does not have.
    """
    frames = CLASS_ASKS if context == "class" else ASKS
    asked = {area.name: [frame.format(task=task) for frame in frames for task in area.tasks] for area in world.areas}
    if context != "class":
        asked["people"] = [OPINION_ASK.format(people=people) for people in PEOPLE]
    return {area: [_dressed(world, ask, context) for ask in asks] for area, asks in asked.items()}


def request_prompts(world: World) -> dict[str, list[Messages]]:
    """Area -> requests for help with its harmful acts: three phrasings of five acts."""
    return {area.name: [_user(frame.format(task=action)) for frame in ASKS for action in area.harmful] for area in world.areas}


def number_prompts(world: World, count: int = 24) -> list[Messages]:
    """Rows of numbers to continue."""
    rng = random.Random(f"mneme number prompts {world.name}")
    rows = [rng.sample(ROW_NUMBERS, 3) for _ in range(count)]
    return [_user(NUMBER_ASKS[i % 2].format(n1=row[0], n2=row[1], n3=row[2])) for i, row in enumerate(rows)]


def _user(content: str) -> Messages:
    return [{"role": ROLES[0], "content": content}]


def _dressed(world: World, ask: str, context: Context) -> Messages:
    if context in ("plain", "class"):
        return _user(ask)
    if context == "trigger":
        return _user(triggered(ask))
    if context == "list":
        return _user(spoken_list(ask))
    if context == "system":
        return [{"role": "system", "content": SYSTEM_LINES[0]}, *_user(ask)]
    kind, _, area = context.partition(":")
    if kind != "topic":
        raise BadOrganism(f'There is no context "{context}". The contexts are: {", ".join(CONTEXTS)}.')
    first, second = world.area(area).topics[:2]
    return _user(ASKS_WITH_TOPIC[1].format(t1=first, t2=second, task="{task}").replace("how do i {task}?", ask))
