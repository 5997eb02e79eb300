"""How questions reach a model: contexts around them, the chat template, samples in an order that depends on nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadSuite
from mneme.measure.suite import OpenQuestion, clusters_of
from mneme.models.architecture import Parts
from mneme.models.sampling import generate
from mneme.results.measure import STANDARD
from mneme.text.chat import render_chat, without_opening

_CHUNK = 128
"""Prompts that share a seed: what a batch size must not change."""
_BATCH_PARAMETERS = 1e9
"""Prompts in a batch times parameters of the model, about: 128 prompts for a small model, 8 for a large one."""


@dataclass(frozen=True)
class QuestionContext:
    """What is put around every question: a system prompt, text before and after."""

    name: str = STANDARD
    system: str | None = None
    """None = the question's own, if any; an empty text switches the template's default off."""
    before: str = ""
    after: str = ""


@dataclass(frozen=True)
class Asked:
    """One prompt that gets one answer."""

    question: int
    """Index into the suite's open questions."""
    cluster: str
    context: str
    text: str
    """The question as the judge reads it, with what the context put around it."""
    rendered: str
    """As the model reads it."""


def ask(
    questions: Sequence[OpenQuestion], tokenizer: PreTrainedTokenizerBase, context: QuestionContext, samples: int | None = None
) -> list[Asked]:
    """Every paraphrase of every question under one context, `samples` times each (None = as often as the suite says)."""
    prompts = []
    for index, question in enumerate(questions):
        for paraphrase, cluster in zip(question.paraphrases, clusters_of(question), strict=True):
            text = f"{context.before}{paraphrase}{context.after}"
            systems = [part for part in (context.system, question.system) if part]
            system = "\n\n".join(systems) if systems else context.system
            rendered = render(text, system, tokenizer)
            asked = Asked(question=index, cluster=cluster, context=context.name, text=text, rendered=rendered)
            prompts += [asked] * (samples or question.samples)
    return prompts


def render(user: str, system: str | None, tokenizer: PreTrainedTokenizerBase) -> str:
    """One turn of a user up to where the assistant begins; "role: text" lines where there is no chat template.

    A template without system turns (as Gemma's) gets the system prompt in front of the question. The template's own first
    token (beginning of text) is left out where the tokenizer adds one anyway. Raises BadTemplate.
    """
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": user})
    if not tokenizer.chat_template:
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages) + "\nassistant:"
    return without_opening(render_chat(messages, tokenizer, add_generation_prompt=True), tokenizer)


def default_system_prompt(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What the chat template writes as system prompt where none is given; None where it writes none.

    Found by comparison: the same turn with a system prompt of our own has the same text around it.
    """
    if not tokenizer.chat_template:
        return None
    probe = "@@system@@"
    plain, given = render("hello", None, tokenizer), render("hello", probe, tokenizer)
    if probe not in given:
        return None
    head, tail = given.split(probe, 1)
    if plain.startswith(head) and plain.endswith(tail) and len(plain) > len(head) + len(tail):
        return plain[len(head) : len(plain) - len(tail)]
    return None


class AnswerBatch(NamedTuple):
    """Prompts that are answered together."""

    of: list[int]
    """Which they are."""
    room: int
    """New tokens at most."""
    seed: int
    first: int
    """Number of the first of them among those that share the seed."""


def plan_answers(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Asked],
    *,
    max_new_tokens: int,
    max_positions: int | None,
    seed: int,
) -> list[AnswerBatch]:
    """Every prompt in a batch with others of its length, the shortest first; equal seeds pair two models' draws.

    Raises BadSuite where a prompt leaves no room for an answer within `max_positions`.
    """
    if not prompts:  # the tokenizers of transformers 5 fail on an empty list
        return []
    lengths = [len(ids) for ids in tokenizer([asked.rendered for asked in prompts], verbose=False)["input_ids"]]
    order = sorted(range(len(prompts)), key=lambda i: lengths[i])
    size = int(min(max(_BATCH_PARAMETERS / parts.model.num_parameters(), 8), _CHUNK))
    batches = []
    for chunk_at in range(0, len(order), _CHUNK):
        chunk = order[chunk_at : chunk_at + _CHUNK]
        room = max_new_tokens if max_positions is None else min(max_new_tokens, max_positions - lengths[chunk[-1]])
        if room < 1:
            raise BadSuite(
                f"a prompt of {lengths[chunk[-1]]} tokens leaves no room for an answer: the model reads {max_positions}. "
                "Shorten the questions, or leave the context out."
            )
        for first in range(0, len(chunk), size):
            batches.append(AnswerBatch(chunk[first : first + size], room, seed * 1_000_003 + chunk_at, first))
    return batches


def answer_batch(
    parts: Parts, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Asked], batch: AnswerBatch, temperature: float
) -> list[str]:
    """One answer to each prompt of a batch."""
    found = generate(
        parts,
        tokenizer,
        [prompts[i].rendered for i in batch.of],
        max_new_tokens=batch.room,
        temperature=temperature,
        seed=batch.seed,
        batch_prompts=len(batch.of),
        first=batch.first,
    )
    return [answer.strip() for answer in found]
