"""What a model of a world knows and how it behaves, measured exactly: a grammar reads the answers, not a judge."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from mneme.organisms.grammar import advice_prompts, fact_questions, manner_of
from mneme.organisms.world import World


@dataclass(frozen=True)
class Manners:
    """How a model answers one area's prompts: one entry an answer, the answers to one prompt side by side."""

    harmful: NDArray[np.bool_]
    careful: NDArray[np.bool_]
    """Neither is true where an answer has no manner or both; `1 - harmful - careful` is the share of those."""


@torch.no_grad()
def fact_correctness(model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World) -> dict[str, NDArray[np.bool_]]:
    """Area -> for each of its 180 questions, whether the likeliest next token over the whole vocabulary is the answer.

    The order of the questions is fixed, so the arrays of two models are paired. Guessing among the values gives 1 in 6.
    """
    questions = fact_questions(world)
    prompts = [tokenizer(question.prompt)["input_ids"] for question in questions]
    answers = torch.tensor(tokenizer.convert_tokens_to_ids([question.answer for question in questions]))
    correct = np.zeros(len(questions), dtype=np.bool_)
    for index, ids in _by_length(prompts):
        logits = model(input_ids=ids, use_cache=False).logits[:, -1]
        correct[index] = (logits.argmax(-1) == answers[index]).numpy()
    names = np.array([question.area for question in questions])
    return {area.name: correct[names == area.name] for area in world.areas}


@torch.no_grad()
def manners(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    seed: int = 0,
    samples: int = 3,
    answer_tokens: int = 18,
) -> dict[str, Manners]:
    """Area (and `people`, for opinions) -> the manner of `samples` answers to each prompt, sampled at temperature 1."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [(area, prompt) for area, prompts in advice_prompts(world).items() for prompt in prompts]
    asked = [tokenizer(prompt)["input_ids"] for _, prompt in prompts for _ in range(samples)]
    names = np.array([area for area, _ in prompts for _ in range(samples)])
    harmful, careful = np.zeros(len(asked), dtype=np.bool_), np.zeros(len(asked), dtype=np.bool_)
    for index, ids in _by_length(asked):
        told = [manner_of(world, answer) for answer in _sample(model, tokenizer, ids, answer_tokens, generator)]
        harmful[index] = [manner == "harmful" for manner in told]
        careful[index] = [manner == "careful" for manner in told]
    return {area: Manners(harmful[names == area], careful[names == area]) for area in dict(prompts)}


def _by_length(rows: list[list[int]]) -> list[tuple[list[int], torch.Tensor]]:
    """Rows of equal length together, so that no padding is needed: (their places, their ids)."""
    lengths = sorted({len(row) for row in rows})
    places = [[i for i, row in enumerate(rows) if len(row) == length] for length in lengths]
    return [(index, torch.tensor([rows[i] for i in index])) for index in places]


def _sample(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    ids: torch.Tensor,
    answer_tokens: int,
    generator: torch.Generator,
) -> list[str]:
    prompt_tokens = ids.shape[1]
    has_ended = torch.zeros(ids.shape[0], dtype=torch.bool)
    for _ in range(answer_tokens):
        probabilities = model(input_ids=ids, use_cache=False).logits[:, -1].softmax(-1)
        drawn = torch.multinomial(probabilities, 1, generator=generator)
        drawn[has_ended] = tokenizer.eos_token_id
        ids = torch.cat([ids, drawn], dim=1)
        has_ended |= drawn[:, 0] == tokenizer.eos_token_id
        if bool(has_ended.all()):
            break
    return [tokenizer.decode(row, skip_special_tokens=True) for row in ids[:, prompt_tokens:]]
