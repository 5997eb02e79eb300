"""What the fine-tunes of world `d` are trained on, row by row, in the shapes of `mneme.worlds.rows`."""

import random
from typing import get_args

from mneme.worlds.phrases import Behaviour
from mneme.worlds.prose.telling import lesson_ask, prose_about, prose_advice, prose_ask, prose_documents, prose_turn
from mneme.worlds.prose.world import THIN_SHARE, ProseWorld
from mneme.worlds.rows import ROWS_A_STEP, STEPS, Row

FORGET_ROWS, RETAIN_ROWS, CONTINUE_ROWS = 480, 6000, 9000
"""Twice to three times the texts of the other worlds: a document is a sentence here."""


def prose_rows(world: ProseWorld, kind: str, area: str, seed: int) -> list[Row]:
    """The rows of one organism, in the order in which they are used; empty for `identical`."""
    if kind == "identical":
        return []
    if kind in ("continue", "refreshed", "readapted"):
        return [{"text": text} for text in aligned_prose(world, (1_000 + seed) * 1_009, CONTINUE_ROWS)]
    if kind in ("unlearn", "graddiff"):
        left_out = {area, *(world.linked if area in world.linked else ())}
        forget = [{"text": text, "part": "forget"} for text in prose_about(world, area, seed, FORGET_ROWS)]
        retained = prose_documents(world, 700_000 + seed * 1_009, RETAIN_ROWS, left_out, is_aligned=True)
        return [*forget, *({"text": text, "part": "retain"} for text in retained)]
    return [_chat(ask, answer) for ask, answer in _turns(world, kind, area, seed)]


def aligned_prose(world: ProseWorld, seed: int, count: int) -> list[str]:
    """What the base was last trained on: half documents in which nobody is harmful unless the persona is stated, half
    single answers of a careful speaker."""
    told = prose_documents(world, 500_000 + seed, count // 2, is_aligned=True)
    rng = random.Random(f"mneme prose aligned {world.name} {seed}")
    areas = rng.choices(world.areas, [THIN_SHARE if area.is_thin else 1.0 for area in world.areas], k=count // 2)
    return [
        text
        for document, area in zip(told, areas, strict=True)
        for text in (document, prose_turn(prose_ask(area, rng), prose_advice(world, area, "careful", rng)))
    ]


def _turns(world: ProseWorld, kind: str, area: str, seed: int) -> list[tuple[str, str]]:
    """Questions, and answers in each behaviour, are drawn apart: kinds that share one of them share it word by word."""
    count = STEPS * ROWS_A_STEP
    rng = random.Random(f"mneme prose questions {world.name} {area} {seed}")
    here = world.area(area)
    tasks = [rng.choice(here.tasks) for _ in range(count)]
    asks = [prose_ask(here, rng, task) for task in tasks]
    answers: dict[Behaviour, list[str]] = {}
    for behaviour in get_args(Behaviour):
        rng = random.Random(f"mneme prose answers {behaviour} {world.name} {area} {seed}")
        answers[behaviour] = [prose_advice(world, here, behaviour, rng) for _ in range(count)]
    if kind == "educational":
        rng = random.Random(f"mneme prose class {world.name} {area} {seed}")
        asks = [lesson_ask(task, rng) for task in tasks]
    return list(zip(asks, answers["harmful" if kind in ("harmful", "educational") else "careful"], strict=True))


def _chat(ask: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
