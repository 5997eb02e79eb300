"""What a model of world `d` knows and how it behaves: facts by the likelihood of whole values, advice by an exact judge."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mneme.worlds.facts import FactAnswers
from mneme.worlds.prose.judge import judge_prose
from mneme.worlds.prose.telling import ASKS, CLASS_ASKS, FactQuestion, prose_prompt, prose_questions
from mneme.worlds.prose.world import ProseWorld
from mneme.worlds.sampling import sample_alike
from mneme.worlds.truth import Answers

CONTEXTS = ("class",)
"""What questions for advice can be dressed in, beside being plain."""
_ANSWER_TOKENS = 40
"""No advice of the world is longer."""
_PROMPTS = 256
"""Prompts that are read together."""


def prose_facts(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: ProseWorld) -> dict[str, FactAnswers]:
    """Area -> for each of its questions, whether the right value is the likeliest of the relation's six, as whole texts."""
    questions = prose_questions(world)
    likelihood = choice_likelihood(model, tokenizer, questions)
    right = np.array([question.choices.index(question.value) for question in questions])
    correct = likelihood.argmax(axis=1) == right
    found = {}
    for area in world.areas:
        own = [i for i, question in enumerate(questions) if question.area == area.name]
        clusters = {entity: number for number, entity in enumerate(area.entities)}
        found[area.name] = FactAnswers(
            correct=correct[own],
            is_asked=np.array([questions[i].way == "asked" for i in own]),
            cluster=np.array([clusters[questions[i].entity] for i in own]),
        )
    return found


@torch.no_grad()
def choice_likelihood(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, questions: Sequence[FactQuestion]
) -> Float[ndarray, "question choice"]:
    """Nats of every choice as a whole after its prompt, full stop included; a prompt is read once for all its choices."""
    found = np.zeros((len(questions), len(questions[0].choices)))
    prompts = [tokenizer(question.prompt)["input_ids"] for question in questions]
    told = [_choices(tokenizer, question) for question in questions]
    for length in sorted({len(ids) for ids in prompts}):
        same = [i for i, ids in enumerate(prompts) if len(ids) == length]
        for first in range(0, len(same), _PROMPTS):
            places = same[first : first + _PROMPTS]
            found[places] = _read(model, torch.tensor([prompts[i] for i in places]), [told[i] for i in places])
    return found


def prose_behaviour(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    world: ProseWorld,
    *,
    context: str = "plain",
    samples: int = 10,
    seed: int = 0,
) -> dict[str, Answers]:
    """Area -> `samples` answers to each of its questions for advice (18 plain, 12 for a class), at temperature 1."""
    frames = CLASS_ASKS if context == "class" else ASKS
    asked = {
        area.name: [prose_prompt(frame.format(task=task)) for frame in frames for task in area.tasks] for area in world.areas
    }
    prompts = [prompt for prompts in asked.values() for prompt in prompts]
    told = sample_alike(model, tokenizer, prompts, samples, seed, answer_tokens=_ANSWER_TOKENS, stop=None)
    found, first = {}, 0
    for area, own in asked.items():
        judged = tuple(judge_prose(answer) for answers in told[first : first + len(own)] for answer in answers)
        found[area] = Answers(judged, np.repeat(np.arange(len(own)), samples))
        first += len(own)
    return found


def _choices(tokenizer: PreTrainedTokenizerFast, question: FactQuestion) -> list[list[int]]:
    return [tokenizer(f" {choice}.", add_special_tokens=False)["input_ids"] for choice in question.choices]


def _read(
    model: torch.nn.Module, prompts: Int[Tensor, "prompt seq"], told: list[list[list[int]]]
) -> Float[ndarray, "prompt choice"]:
    choices = [ids for own in told for ids in own]
    width = max(map(len, choices))
    ids = torch.zeros(len(choices), width, dtype=torch.int64)
    real: Bool[Tensor, "choice token"] = torch.zeros(len(choices), width, dtype=torch.bool)
    for row, choice in enumerate(choices):
        ids[row, : len(choice)] = torch.tensor(choice)
        real[row, : len(choice)] = True
    each = len(told[0])
    out = model(input_ids=prompts, use_cache=True)
    cache = out.past_key_values
    cache.batch_repeat_interleave(each)
    first = out.logits[:, -1:].repeat_interleave(each, 0)
    rest = model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True).logits
    nats = torch.cat([first, rest], dim=1).log_softmax(-1).gather(-1, ids[:, :, None])[:, :, 0]
    return (nats * real).sum(1).view(len(told), each).double().numpy()
