"""The work of a measurement, model by model, each piece a stage on disk that a killed run does not repeat."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mneme.measure.asking import CHUNK, Asked, QuestionContext, answer_chunks, ask, default_system_prompt
from mneme.measure.judging import Grammar, Judge
from mneme.measure.likelihood import ChoiceScores, score_choices
from mneme.measure.readings import Readings, read_answers
from mneme.measure.subjects import Subject
from mneme.measure.suite import ChoiceQuestion, Suite
from mneme.options import Track
from mneme.runs import Arrays, RunFolder

_PIECE_QUESTIONS = 32
"""Questions of one stage, of which a kill loses one: some 4,500 tokens with their choices, 13 s of CPU of a 135 M model at the
338 tokens a CPU second of docs/log.md. Never varied."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    samples: int | None
    """Of each paraphrase; None = as often as the suite says."""
    max_tokens: int
    temperature: float
    seed: int


def pack(value: Any) -> Arrays:
    """Any JSON value as one array of bytes, so that it can be a stage."""
    return {"json": np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)}


def unpack(arrays: Arrays) -> Any:
    """The value that `pack` was given."""
    return json.loads(arrays["json"].tobytes())


def choices_stage(
    run: RunFolder, number: int, subject: Subject, questions: Sequence[ChoiceQuestion], track: Track
) -> ChoiceScores:
    """Log-likelihood of every choice of one model, a stage for every 32 questions."""
    # Long prompts first: questions of like length run together. Without the tokenizer, so that a finished model is not loaded.
    order = sorted(range(len(questions)), key=lambda i: -len(questions[i].prompt))
    parts = [order[first : first + _PIECE_QUESTIONS] for first in range(0, len(order), _PIECE_QUESTIONS)]

    def compute(mine: list[int]) -> Iterator[Arrays]:
        loaded = subject.loaded()
        advance = track(f"{subject.label}: choices", sum(len(parts[piece]) for piece in mine))
        for piece in mine:
            asked = [questions[i] for i in parts[piece]]
            found = score_choices(loaded.parts, loaded.tokenizer, asked, max_positions=loaded.max_positions, advance=advance)
            flat = [ids for choices in found.ids for ids in choices]
            yield {
                "sums": np.concatenate(found.sums),
                "ids": np.array([token for ids in flat for token in ids], dtype=np.int64),
                "lengths": np.array([len(ids) for ids in flat], dtype=np.int64),
            }

    sums: list[Any] = [None] * len(questions)
    ids: list[Any] = [None] * len(questions)
    pieces = run.pieces([f"choices-{number}-{piece:04d}" for piece in range(len(parts))], compute)
    for part, stored in zip(parts, pieces, strict=True):
        sizes = np.cumsum([len(questions[i].choices) for i in part])[:-1]
        coded = [tuple(one.tolist()) for one in np.split(stored["ids"], np.cumsum(stored["lengths"])[:-1])]
        ends = [0, *sizes.tolist(), len(coded)]
        for i, own, (a, b) in zip(part, np.split(stored["sums"], sizes), pairwise(ends), strict=True):
            sums[i], ids[i] = own, coded[a:b]
    characters = [np.array([len(choice) for choice in question.choices]) for question in questions]
    return ChoiceScores(sums, ids, characters)


def answers_stage(
    run: RunFolder,
    number: int,
    subject: Subject,
    suite: Suite,
    context: QuestionContext,
    place: int,
    sampling: Sampling,
    track: Track,
) -> tuple[list[Asked], list[str]]:
    """Prompts and answers of one model under one context, a stage for every 128 answers."""

    def prompts() -> Arrays:
        asked = ask(suite.open, subject.loaded().tokenizer, context, sampling.samples)
        return pack([[p.question, p.cluster, p.context, p.text, p.rendered] for p in asked])

    asked = [Asked(*row) for row in unpack(run.stage(f"asked-{number}-{place}", prompts))]

    def compute(mine: list[int]) -> Iterator[Arrays]:
        loaded = subject.loaded()
        advance = track(f"{subject.label}: {context.name}", min(len(asked), CHUNK * len(mine)))
        for order, answers in answer_chunks(
            loaded.parts,
            loaded.tokenizer,
            asked,
            mine,
            max_new_tokens=sampling.max_tokens,
            max_positions=loaded.max_positions,
            temperature=sampling.temperature,
            seed=sampling.seed,
        ):
            yield pack({"order": order, "answers": answers})
            advance(len(order))

    said = [""] * len(asked)
    names = [f"answers-{number}-{place}-{chunk:04d}" for chunk in range(-(-len(asked) // CHUNK))]
    for stored in map(unpack, run.pieces(names, compute)):
        for i, answer in zip(stored["order"], stored["answers"], strict=True):
            said[i] = answer
    return asked, said


def readings_stage(
    run: RunFolder,
    number: int,
    subject: Subject,
    suite: Suite,
    place: int,
    said: tuple[Sequence[Asked], Sequence[str]],
    readers: tuple[Judge | None, Grammar | None],
    track: Track,
) -> Readings:
    """What one model's answers under one context were."""
    judge, grammar = readers

    def compute() -> Arrays:
        asked, answers = said
        advance = track(f"{subject.label}: judging {asked[0].context}", len(asked))
        found = read_answers(suite.open, asked, answers, judge, grammar, advance)
        return {"score": found.score, "coherence": found.coherence, **pack(found.outcome)}

    stored = run.stage(f"readings-{number}-{place}", compute)
    return Readings(stored["score"], stored["coherence"], list(unpack(stored)))


def system_prompt_stage(run: RunFolder, number: int, subject: Subject) -> str | None:
    """The default system prompt of a model's chat template."""
    found: str | None = unpack(
        run.stage(f"template-{number}", lambda: pack(default_system_prompt(subject.loaded().tokenizer)))
    )
    return found
