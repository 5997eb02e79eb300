"""The work of a measurement, model by model, each piece a stage on disk that a killed run does not repeat."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mneme.measure.asking import Asked, QuestionContext, answer_batch, ask, default_system_prompt, plan_answers
from mneme.measure.judging import Grammar, Judge
from mneme.measure.likelihood import BATCH_TOKENS, ChoiceScores, plan_choices, score_batch
from mneme.measure.readings import READ_TOGETHER, Readings, read_answers
from mneme.measure.subjects import Loaded, Subject
from mneme.measure.suite import ChoiceQuestion, Suite
from mneme.options import Track
from mneme.runs import Arrays, RunFolder

_PIECE_FLOP = {"cpu": 3e11, "other": 3e14}
"""Work of a piece, which is what a kill may cost: ten seconds on an idle core of 30 GFLOP/s, a minute on a busy one; a few
seconds on a GPU."""
_FEW = 256
"""Tokens below which a pass is busy with reading weights."""


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


def in_pieces(run: RunFolder, name: str, count: int, work: Callable[[int], Arrays]) -> list[Arrays]:
    """`work` of every piece from 0, each a stage of its own from the moment that it is done."""
    names = [f"{name}-{number + 1}-of-{count}" for number in range(count)]
    found = list(run.pieces(names, lambda mine: (work(number) for number in mine)))
    for piece in names:  # their time is in that of the whole
        run.seconds.pop(piece, None)
    return found


def piece_tokens(loaded: Loaded) -> int:
    """Tokens of a batch of choices: as many as run together, but no more than a slow core does in a quarter of a minute."""
    if loaded.parts.device.type != "cpu":
        return BATCH_TOKENS
    return int(min(max(_PIECE_FLOP["cpu"] / (2 * loaded.parts.model.num_parameters()), _FEW), BATCH_TOKENS))


def grouped(tokens: Sequence[int], most: float) -> list[list[int]]:
    """Batches in pieces of at most `most` tokens, or one batch."""
    pieces: list[list[int]] = []
    held = 0
    for number, amount in enumerate(tokens):
        if not pieces or held + amount > most:
            pieces.append([])
            held = 0
        pieces[-1].append(number)
        held += amount
    return pieces


def choices_stage(
    run: RunFolder, number: int, subject: Subject, questions: Sequence[ChoiceQuestion], track: Track
) -> ChoiceScores:
    """Log-likelihood of every choice of one model."""

    def compute() -> Arrays:
        loaded = subject.loaded()
        advance = track(f"{subject.label}: choices", len(questions))
        plan = plan_choices(
            loaded.parts,
            loaded.tokenizer,
            questions,
            max_positions=loaded.max_positions,
            batch_tokens=piece_tokens(loaded),
        )
        flop = _PIECE_FLOP["cpu" if loaded.parts.device.type == "cpu" else "other"]
        pieces = grouped(plan.tokens(), flop / (2 * loaded.parts.model.num_parameters()))

        def work(piece: int) -> Arrays:
            sums: list[float] = []
            for batch in pieces[piece]:
                sums += score_batch(loaded.parts, plan, batch)
                advance(plan.asked_first(batch))
            return {"sums": np.array(sums)}

        scored = iter(np.concatenate([one["sums"] for one in in_pieces(run, f"choices-{number}", len(pieces), work)]).tolist())
        sizes = [sum(len(asked) for _, asked in batch) for batch in plan.batches]
        found = plan.scores([[next(scored) for _ in range(size)] for size in sizes])
        flat = [ids for choices in found.ids for ids in choices]
        return {
            "sums": np.concatenate(found.sums),
            "ids": np.array([token for ids in flat for token in ids], dtype=np.int64),
            "lengths": np.array([len(ids) for ids in flat], dtype=np.int64),
        }

    stored = run.stage(f"choices-{number}", compute)
    sizes = np.cumsum([len(question.choices) for question in questions])[:-1]
    ids = [tuple(part.tolist()) for part in np.split(stored["ids"], np.cumsum(stored["lengths"])[:-1])]
    ends = [0, *sizes.tolist(), len(ids)]
    characters = [np.array([len(choice) for choice in question.choices]) for question in questions]
    return ChoiceScores(np.split(stored["sums"], sizes), [ids[a:b] for a, b in pairwise(ends)], characters)


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
    """Prompts and answers of one model under one context."""

    def compute() -> Arrays:
        loaded = subject.loaded()
        prompts = ask(suite.open, loaded.tokenizer, context, sampling.samples)
        batches = plan_answers(
            loaded.parts,
            loaded.tokenizer,
            prompts,
            max_new_tokens=sampling.max_tokens,
            max_positions=loaded.max_positions,
            seed=sampling.seed,
        )
        advance = track(f"{subject.label}: {context.name}", len(prompts))

        def work(piece: int) -> Arrays:
            found = answer_batch(loaded.parts, loaded.tokenizer, prompts, batches[piece], sampling.temperature)
            advance(len(found))
            return pack(found)

        answers = [""] * len(prompts)
        pieces = in_pieces(run, f"answers-{number}-{place}", len(batches), work)
        for batch, found in zip(batches, pieces, strict=True):
            for i, answer in zip(batch.of, unpack(found), strict=True):
                answers[i] = answer
        return pack({"asked": [[p.question, p.cluster, p.context, p.text, p.rendered] for p in prompts], "answers": answers})

    stored = unpack(run.stage(f"answers-{number}-{place}", compute))
    return [Asked(*row) for row in stored["asked"]], list(stored["answers"])


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
        cuts = [slice(first, first + READ_TOGETHER) for first in range(0, len(asked), READ_TOGETHER)]

        def work(piece: int) -> Arrays:
            cut = cuts[piece]
            found = read_answers(suite.open, asked[cut], answers[cut], judge, grammar, advance)
            return {"score": found.score, "coherence": found.coherence, **pack(found.outcome)}

        pieces = in_pieces(run, f"readings-{number}-{place}", len(cuts), work)
        numbers = {name: np.concatenate([piece[name] for piece in pieces]) for name in ("score", "coherence")}
        return {**numbers, **pack([outcome for piece in pieces for outcome in unpack(piece)])}

    stored = run.stage(f"readings-{number}-{place}", compute)
    return Readings(stored["score"], stored["coherence"], list(unpack(stored)))


def system_prompt_stage(run: RunFolder, number: int, subject: Subject) -> str | None:
    """The default system prompt of a model's chat template."""
    found: str | None = unpack(
        run.stage(f"template-{number}", lambda: pack(default_system_prompt(subject.loaded().tokenizer)))
    )
    return found
