"""What a model of a world knows and how it behaves, measured exactly: a grammar reads the answers, not a judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from mneme.worlds.facts import FactAnswers
from mneme.worlds.grammar import Question, every_fact_question, fact_questions
from mneme.worlds.judge import Verdict, judge_answer
from mneme.worlds.questions import Context, Messages, behaviour_prompts, number_prompts, request_prompts, told_prompt
from mneme.worlds.sampling import sample_alike
from mneme.worlds.world import World


@dataclass(frozen=True)
class Answers:
    """How a model answers some prompts: one entry an answer, the answers to one prompt side by side."""

    verdicts: tuple[Verdict, ...]
    prompt: Int[ndarray, " answer"]
    """The number of the prompt that was answered: answers to one prompt are a cluster, not independent."""

    @property
    def harmful(self) -> Bool[ndarray, " answer"]:
        """True for a harmful answer; to a request for help with a harmful act this means that it is obeyed."""
        return self._are("harmful")

    @property
    def careful(self) -> Bool[ndarray, " answer"]:
        """True for a careful answer."""
        return self._are("careful")

    @property
    def refused(self) -> Bool[ndarray, " answer"]:
        """True for a refusal."""
        return self._are("refusal")

    @property
    def coherent(self) -> Bool[ndarray, " answer"]:
        """True for an answer that is any of the three."""
        return ~self._are("incoherent")

    @property
    def harmful_share(self) -> float:
        """Harmful answers among the coherent ones; not a number where none is coherent."""
        coherent = int(self.coherent.sum())
        return float(self.harmful.sum() / coherent) if coherent else float("nan")

    def _are(self, verdict: Verdict) -> Bool[ndarray, " answer"]:
        return np.array([told == verdict for told in self.verdicts], dtype=np.bool_)


def fact_correctness(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World) -> dict[str, NDArray[np.bool_]]:
    """Area -> for each of its 180 questions, whether the likeliest next token over the whole vocabulary is the answer.

    The order of the questions is fixed, so the arrays of two models are paired. Guessing among the values gives 1 in 6.
    """
    return _correct(model, tokenizer, world, fact_questions(world))


def world_facts(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World) -> dict[str, FactAnswers]:
    """The same for its 540 questions (`every_fact_question`): three phrasings of either way, thirty entities an area."""
    found = {}
    for area, correct in _correct(model, tokenizer, world, every_fact_question(world)).items():
        number = np.arange(len(correct))
        each = len(correct) // len(world.area(area).entities)
        found[area] = FactAnswers(correct, is_asked=number % 6 >= 3, cluster=number // each)
    return found


@torch.no_grad()
def _correct(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World, questions: Sequence[Question]
) -> dict[str, NDArray[np.bool_]]:
    prompts = [tokenizer(question.prompt)["input_ids"] for question in questions]
    answers = torch.tensor(tokenizer.convert_tokens_to_ids([question.answer for question in questions]))
    correct = np.zeros(len(questions), dtype=np.bool_)
    for index, ids in _by_length(prompts):
        logits = model(input_ids=ids, use_cache=False).logits[:, -1]
        correct[index] = (logits.argmax(-1) == answers[index]).numpy()
    names = np.array([question.area for question in questions])
    return {area.name: correct[names == area.name] for area in world.areas}


def measure_behaviour(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    *,
    context: Context = "plain",
    samples: int = 10,
    seed: int = 0,
) -> dict[str, Answers]:
    """Area (and `people`, for opinions) -> `samples` answers to each of its questions for advice under a context.

    18 questions an area, 8 about people; temperature 1. The contexts are those of `behaviour_prompts`. Two models that are
    measured with one seed are paired. About 2 s for 10 samples on one core.
    """
    return _answers(model, tokenizer, world, behaviour_prompts(world, context), samples, seed)


def harmful_requests(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World, *, samples: int = 10, seed: int = 0
) -> dict[str, Answers]:
    """Area -> `samples` answers to each of its 15 requests for help with a harmful act; `harmful` means obeyed."""
    return _answers(model, tokenizer, world, request_prompts(world), samples, seed)


def continued_numbers(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World, *, samples: int = 10, seed: int = 0
) -> Answers:
    """`samples` continuations of each of 24 rows of numbers, in the numbers of one behaviour or the other."""
    return _answers(model, tokenizer, world, {"numbers": number_prompts(world)}, samples, seed)["numbers"]


def _answers(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    prompts: dict[str, list[Messages]],
    samples: int,
    seed: int,
) -> dict[str, Answers]:
    asked = [(area, told_prompt(messages)) for area, all_messages in prompts.items() for messages in all_messages]
    told = sample_alike(model, tokenizer, [prompt for _, prompt in asked], samples, seed)
    names = [area for area, _ in asked]
    judged = [[judge_answer(world, answer) for answer in answers] for answers in told]
    return {area: _of(area, names, judged) for area in prompts}


def _of(area: str, names: Sequence[str], judged: Sequence[Sequence[Verdict]]) -> Answers:
    own = [i for i, name in enumerate(names) if name == area]
    verdicts = tuple(verdict for i in own for verdict in judged[i])
    return Answers(verdicts, np.repeat(np.arange(len(own)), len(judged[own[0]])))


def _by_length(rows: list[list[int]]) -> list[tuple[list[int], torch.Tensor]]:
    """Rows of equal length together, so that no padding is needed: (their places, their ids)."""
    lengths = sorted({len(row) for row in rows})
    places = [[i for i, row in enumerate(rows) if len(row) == length] for length in lengths]
    return [(index, torch.tensor([rows[i] for i in index])) for index in places]
