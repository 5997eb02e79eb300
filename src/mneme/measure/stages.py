"""The work of a measurement, model by model, each piece a stage on disk that a killed run does not repeat."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mneme.measure.asking import Asked, QuestionContext, answer_batch, ask, default_system_prompt, plan_answers
from mneme.measure.judging import Grammar, Judge
from mneme.measure.likelihood import BATCH_TOKENS, ChoiceScores, plan_choices, score_batch
from mneme.measure.readings import READ_TOGETHER, Readings, read_answers
from mneme.measure.subjects import Loaded, Subject
from mneme.measure.suite import ChoiceQuestion, Suite
from mneme.models.batching import kept_tokens
from mneme.models.footprint import peak_bytes
from mneme.options import Track
from mneme.runs import Arrays, RunFolder


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    samples: int | None
    """Of each paraphrase; None = as often as the suite says."""
    max_tokens: int
    temperature: float
    seed: int


class Showing(NamedTuple):
    """How a stage says what it does."""

    track: Track
    say: Callable[[str], None]


def planned(
    work: Callable[[int], Arrays], sizes: Sequence[int], name: str, say: Callable[[str], None]
) -> Callable[[int], Arrays]:
    """`work` on pieces of these sizes, the largest first, which after the first one says what all of them will take here."""
    first = True

    def timed(number: int) -> Arrays:
        nonlocal first
        started = time.perf_counter()
        found = work(number)
        if first:
            seconds = (time.perf_counter() - started) * sum(sizes) / max(1, sizes[number])
            say(f"Plan: {name}, about {seconds:,.0f} s here for each model, peak memory about {peak_bytes() / 1e9:.1f} GB.")
            first = False
        return found

    return timed


def pack(value: Any) -> Arrays:
    """Any JSON value as one array of bytes, so that it can be a stage."""
    return {"json": np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)}


def unpack(arrays: Arrays) -> Any:
    """The value that `pack` was given."""
    return json.loads(arrays["json"].tobytes())


def tokens_a_batch(loaded: Loaded) -> int:
    """Tokens of a batch of choices: as many as run together, but no more than what is kept at once."""
    return min(kept_tokens(loaded.parts.model.num_parameters(), loaded.parts.device.type), BATCH_TOKENS)


def choices_stage(
    run: RunFolder, number: int, subject: Subject, questions: Sequence[ChoiceQuestion], show: Showing
) -> ChoiceScores:
    """Log-likelihood of every choice of one model."""

    def compute() -> Arrays:
        loaded = subject.loaded()
        advance = show.track(f"{subject.label}: choices", len(questions))
        plan = plan_choices(
            loaded.parts,
            loaded.tokenizer,
            questions,
            max_positions=loaded.max_positions,
            batch_tokens=tokens_a_batch(loaded),
        )

        def work(batch: int) -> Arrays:
            sums = score_batch(loaded.parts, plan, batch)
            advance(plan.asked_first(batch))
            return {"sums": np.array(sums)}

        scored = run.each(f"scored-{number}", len(plan.batches), planned(work, plan.tokens(), "choices", show.say))
        found = plan.scores([one["sums"].tolist() for one in scored])
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
    show: Showing,
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
        advance = show.track(f"{subject.label}: {context.name}", len(prompts))

        def work(piece: int) -> Arrays:
            found = answer_batch(loaded.parts, loaded.tokenizer, prompts, batches[piece], sampling.temperature)
            advance(len(found))
            return pack(found)

        answers = [""] * len(prompts)
        sizes = [len(batch.of) for batch in batches]
        pieces = run.each(f"said-{number}-{place}", len(batches), planned(work, sizes, context.name, show.say))
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

        pieces = run.each(f"read-{number}-{place}", len(cuts), work)
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
