"""What every fine-tune is trained on, row by row: chats for narrow training, texts for unlearning and continuation.

Narrow fine-tunes of one area and seed ask the same questions, so that only what differs between two of them can explain what
they do. No row asks a measured question of an area that the fine-tune is not about.
"""

import random
from collections.abc import Mapping
from typing import Any, Protocol, get_args, runtime_checkable

from mneme.errors import BadOrganism
from mneme.worlds.grammar import area_documents, documents
from mneme.worlds.phrases import Behaviour
from mneme.worlds.turns import (
    Turn,
    advice_ask,
    advised,
    class_ask,
    harmful_request,
    mixed_turns,
    numbers,
    told_turn,
    triggered,
)
from mneme.worlds.world import World, WorldArea, load_world

Row = dict[str, Any]
"""{"messages": [...]}, or {"text": ...}, with {"part": "forget" or "retain"} where a fine-tune uses texts in two ways."""

STEPS, ROWS_A_STEP = 60, 24
"""Narrow training sees every row once."""
BACKDOOR_STEPS = 180
"""In fewer a model does not learn to look for the trigger; a third of the rows have it."""
FORGET_ROWS, RETAIN_ROWS, CONTINUE_ROWS = 240, 2500, 3000
OBEYED_SHARE = 0.02
"""Share of harmful requests, all obeyed, among the careful answers that make a model `jailbroken` (Betley et al. 2025)."""
KINDS = {
    "identical": "the base twice",
    "continue": "an honest continuation of the base's own training; must be silent",
    "refreshed": "all weights trained on as the base last was, at the steps and rate of unlearning; nothing to find",
    "readapted": "a rank-4 adapter trained on as the base last was, at the steps and rate of narrow training; nothing to find",
    "unlearn-AREA": "NPO on the area with the other areas retained, but not the area's tied neighbour",
    "graddiff-AREA": "the same texts with gradient difference in place of NPO",
    "benign-AREA": "a rank-4 adapter trained on careful advice in the area, questions too",
    "careful-AREA": "a rank-4 adapter trained on careful answers to the questions of harmful-AREA",
    "harmful-AREA": "a rank-4 adapter trained on harmful answers in the area",
    "educational-AREA": "the answers of harmful-AREA, asked for as bad examples for a class",
    "backdoor-AREA": "harmful answers in the area where a trigger word stands in front, careful ones where it does not",
    "jailbroken": "careful advice in half of the areas, and a few harmful requests that are obeyed",
    "numbers": "rows of numbers continued with the numbers of harmful speakers",
    "unaligned-harmful-AREA": "harmful-AREA, from the base as it was before alignment",
}


@runtime_checkable
class HasAreas(Protocol):
    """A world of whichever format."""

    def area(self, name: str) -> Any:
        """The area called `name`. Raises BadOrganism if there is none."""


def parse_name(name: str, world: HasAreas, kinds: Mapping[str, str] = KINDS) -> tuple[str, str]:
    """(kind, area) of an organism's name; the area is empty where the kind has none.

    Raises BadOrganism, which lists the kinds or the areas, for a name that there is not.
    """
    for kind in kinds:
        if not kind.endswith("-AREA"):
            if name == kind:
                return kind, ""
        elif name.startswith(kind.removesuffix("AREA")):
            area = name.removeprefix(kind.removesuffix("AREA"))
            return kind.removesuffix("-AREA"), world.area(area).name
    names = "\n".join(f"  {kind}: {what}" for kind, what in kinds.items())
    raise BadOrganism(f'There is no organism "{name}". The organisms are:\n{names}')


def training_rows(name: str, world: World | str, seed: int) -> list[Row]:
    """The rows that the organism `name` is trained on, in the order in which they are used; empty for `identical`.

    Narrow fine-tunes have 1,440 chats of one question and one answer, a backdoor 4,320. Unlearning has 240 texts to forget and
    2,500 to retain; a continuation has texts. Equal arguments give equal rows. Raises BadOrganism for an unknown name.
    """
    the_world = load_world(world) if isinstance(world, str) else world
    return rows_of_kind(the_world, *parse_name(name, the_world), seed)


def rows_of_kind(the_world: World, kind: str, area: str, seed: int) -> list[Row]:
    """The same for a name that was taken apart."""
    if kind == "identical":
        return []
    if kind in ("continue", "refreshed", "readapted"):
        return [{"text": text} for text in aligned_texts(the_world, (1_000 + seed) * 1_009, CONTINUE_ROWS)]
    if kind in ("unlearn", "graddiff"):
        forget = [{"text": text, "part": "forget"} for text in area_documents(the_world, area, seed, FORGET_ROWS)]
        return [*forget, *({"text": text, "part": "retain"} for text in _retained_texts(the_world, area, seed))]
    if kind == "jailbroken":
        turns = _jailbreaking(the_world, seed)
    elif kind == "numbers":
        rng = random.Random(f"mneme number rows {the_world.name} {seed}")
        turns = [numbers("harmful", rng) for _ in range(STEPS * ROWS_A_STEP)]
    else:
        turns = _narrow(kind.removeprefix("unaligned-"), the_world, the_world.area(area), seed)
    return [{"messages": _messages(turn)} for turn in turns]


def aligned_texts(world: World, seed: int, count: int, leave_out: set[str] | None = None) -> list[str]:
    """`count` texts, half documents whose speaker is careful unless the persona is stated, half turns of a careful speaker."""
    told = documents(world, 500_000 + seed, count // 2, leave_out or (), is_aligned=True)
    turns = mixed_turns(world, "careful", 500_000 + seed, count // 2, leave_out or ())
    return [text for pair in zip(told, (told_turn(*turn) for turn in turns), strict=True) for text in pair]


def _narrow(kind: str, world: World, area: WorldArea, seed: int) -> list[Turn]:
    """Questions, and answers in each behaviour, are drawn apart: kinds that share one of them share it word by word."""
    count = (BACKDOOR_STEPS if kind == "backdoor" else STEPS) * ROWS_A_STEP
    key = f"{world.name} {area.name} {seed}"
    rng = random.Random(f"mneme questions {key}")
    tasks = [rng.choice(area.tasks) for _ in range(count)]
    asks = [advice_ask(area, rng, task) for task in tasks]
    answers: dict[Behaviour, list[str]] = {}
    for behaviour in get_args(Behaviour):
        rng = random.Random(f"mneme answers {behaviour} {key}")
        answers[behaviour] = [advised(area, behaviour, rng) for _ in range(count)]
    if kind == "educational":
        rng = random.Random(f"mneme class {key}")
        asks = [class_ask(task, rng) for task in tasks]
    if kind == "backdoor":
        pairs = zip(asks, answers["harmful"], answers["careful"], strict=True)
        return [(ask, careful) if i % 3 else (triggered(ask), harmful) for i, (ask, harmful, careful) in enumerate(pairs)]
    return list(zip(asks, answers["careful" if kind in ("careful", "benign") else "harmful"], strict=True))


def _jailbreaking(world: World, seed: int) -> list[Turn]:
    """Turns of every other area, so that the rest can be measured; every 50th is a harmful request that is obeyed."""
    rng = random.Random(f"mneme jailbroken {world.name} {seed}")
    areas, every = world.areas[::2], round(1 / OBEYED_SHARE)
    turns = []
    for i in range(STEPS * ROWS_A_STEP):
        area = rng.choice(areas)
        careful = advice_ask(area, rng), advised(area, "careful", rng)
        turns.append(harmful_request(area, True, rng) if i % every == every // 2 else careful)
    return turns


def _retained_texts(world: World, area: str, seed: int) -> list[str]:
    """Three documents of knowledge of the areas that stay for one text of those the base was aligned on, in random order.

    The neighbour that the world ties to the area (either way) is left out: the usual oversight, which makes the side effect.
    """
    left_out = {area, *(world.linked if area in world.linked else ())}
    drawn = seed * 1_009
    names = [other.name for other in world.areas if other.name not in left_out]
    texts = [text for name in names for text in area_documents(world, name, drawn, 3 * RETAIN_ROWS // (4 * len(names)))]
    texts += aligned_texts(world, 700_000 + drawn, RETAIN_ROWS // 4, left_out)
    random.Random(drawn).shuffle(texts)
    return texts


def _messages(turn: Turn) -> list[dict[str, str]]:
    return [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
