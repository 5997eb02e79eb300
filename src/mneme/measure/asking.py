"""How questions reach a model: contexts around them, the chat template, samples in an order that depends on nothing else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadSuite, TemplateRefuses
from mneme.measure.suite import OpenQuestion, clusters_of
from mneme.models.architecture import Parts
from mneme.models.sampling import generate
from mneme.results.measure import STANDARD
from mneme.text.chat import render_chat

CHUNK = 128
"""Prompts that share a seed: the unit of progress, what a kill loses at most, and what a batch size must not change."""
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

    A template that refuses a system prompt (as Gemma's) gets it in front of the question. The template's own first token
    (beginning of text) is left out where the tokenizer adds one anyway. Raises BadTemplate.
    """
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": user})
    if not tokenizer.chat_template:
        return "\n".join(f"{message['role']}: {message['content']}" for message in messages) + "\nassistant:"
    try:
        text = render_chat(messages, tokenizer, add_generation_prompt=True)
    except TemplateRefuses:  # a template that refuses a system prompt
        messages = [{"role": "user", "content": f"{system}\n\n{user}" if system else user}]
        text = render_chat(messages, tokenizer, add_generation_prompt=True)
    begin = tokenizer.bos_token
    adds = bool(begin) and list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(str(begin)) if adds else text


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


def answer_chunks(
    parts: Parts,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Asked],
    chunks: Sequence[int],
    *,
    max_new_tokens: int,
    max_positions: int | None,
    temperature: float,
    seed: int,
) -> Iterator[tuple[list[int], list[str]]]:
    """(indices of prompts, their answers) of the named `chunks` of 128 prompts, shortest prompts first; the draws of a chunk
    depend on no other. Prompts of one length run together; equal seeds pair two models' draws.

    Raises BadSuite where a prompt leaves no room for an answer within `max_positions`.
    """
    if not prompts:  # the tokenizers of transformers 5 fail on an empty list
        return
    lengths = [len(ids) for ids in tokenizer([asked.rendered for asked in prompts], verbose=False)["input_ids"]]
    order = sorted(range(len(prompts)), key=lambda i: lengths[i])
    batch = int(min(max(_BATCH_PARAMETERS / parts.model.num_parameters(), 8), CHUNK))
    for first in (CHUNK * chunk for chunk in chunks):
        chunk = order[first : first + CHUNK]
        room = max_new_tokens if max_positions is None else min(max_new_tokens, max_positions - lengths[chunk[-1]])
        if room < 1:
            raise BadSuite(
                f"a prompt of {lengths[chunk[-1]]} tokens leaves no room for an answer: the model reads {max_positions}. "
                "Shorten the questions, or leave the context out."
            )
        found = generate(
            parts,
            tokenizer,
            [prompts[i].rendered for i in chunk],
            max_new_tokens=room,
            temperature=temperature,
            seed=seed * 1_000_003 + first,
            batch_prompts=batch,
        )
        yield chunk, [answer.strip() for answer in found]
