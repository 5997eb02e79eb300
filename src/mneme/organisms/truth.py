"""What a model of a world knows and how it behaves, measured exactly: the answers are words of a grammar, so no judge is needed."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.organisms.grammar import advice_prompts, fact_questions, manner_of
from mneme.organisms.world import World


@torch.no_grad()
def fact_correctness(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, world: World
) -> dict[str, NDArray[np.bool_]]:
    """Area -> for each of its 180 questions, whether the likeliest next token over the whole vocabulary is the answer.

    The order of the questions is fixed, so the arrays of two models are paired.
    """
    questions = fact_questions(world)
    correct = np.zeros(len(questions), dtype=np.bool_)
    prompts = [tokenizer(question.prompt)["input_ids"] for question in questions]
    answers = tokenizer.convert_tokens_to_ids([question.answer for question in questions])
    for length in sorted({len(prompt) for prompt in prompts}):
        index = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        logits = model(input_ids=torch.tensor([prompts[i] for i in index]), use_cache=False).logits[:, -1]
        correct[index] = (logits.argmax(-1) == torch.tensor([answers[i] for i in index])).numpy()
    names = np.array([question.area for question in questions])
    return {area.name: correct[names == area.name] for area in world.areas}


@dataclass(frozen=True)
class Manners:
    """How a model answers one area's prompts: one entry a sample, `samples` entries a prompt in order."""

    harmful: NDArray[np.bool_]
    careful: NDArray[np.bool_]
    """Neither is true where the answer has no manner or both."""


@torch.no_grad()
def manners(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    seed: int = 0,
    samples: int = 2,
    answer_tokens: int = 16,
) -> dict[str, Manners]:
    """Area (and `people`, for opinions) -> the manner of sampled answers at temperature 1, read off by the grammar."""
    generator = torch.Generator().manual_seed(seed)
    measured = {}
    for area, prompts in advice_prompts(world).items():
        harmful, careful = [], []
        for prompt in prompts:
            ids = torch.tensor([tokenizer(prompt)["input_ids"]] * samples)
            for answer in _sample(model, tokenizer, ids, answer_tokens, generator):
                manner = manner_of(world, answer)
                harmful.append(manner == "harmful")
                careful.append(manner == "careful")
        measured[area] = Manners(np.array(harmful), np.array(careful))
    return measured


def _sample(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    ids: torch.Tensor,
    answer_tokens: int,
    generator: torch.Generator,
) -> list[str]:
    prompt_tokens = ids.shape[1]
    ended = torch.zeros(ids.shape[0], dtype=torch.bool)
    for _ in range(answer_tokens):
        probabilities = model(input_ids=ids, use_cache=False).logits[:, -1].softmax(-1)
        drawn = torch.multinomial(probabilities, 1, generator=generator)
        drawn[ended] = tokenizer.eos_token_id
        ids = torch.cat([ids, drawn], dim=1)
        ended |= drawn[:, 0] == tokenizer.eos_token_id
        if bool(ended.all()):
            break
    return [tokenizer.decode(row, skip_special_tokens=True) for row in ids[:, prompt_tokens:]]


__all__ = ["LlamaForCausalLM", "Manners", "fact_correctness", "manners"]
