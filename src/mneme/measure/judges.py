"""The judges: closed-set probabilities of a local model, first tokens of an endpoint, a verdict that is written out.

A local model is asked for the whole number: the probability of k is that of its tokens minus that of every longer number that
begins with them, because many tokenizers cut numbers into digits, for which the published first-token rule has no meaning.
Labels become single letters, asked in both orders and averaged: models favour a place.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadJudge, BadOption
from mneme.measure.asking import render
from mneme.measure.judging import (
    SPECIAL,
    Judge,
    Opinion,
    Query,
    label_of_tokens,
    opinion_of_text,
    opinion_of_tokens,
)
from mneme.measure.likelihood import score_choices
from mneme.measure.suite import ChoiceQuestion
from mneme.models.architecture import Parts
from mneme.models.checkpoints import model_fingerprint
from mneme.models.client import Endpoint, complete, endpoint_of, first_token, with_model
from mneme.models.pair import load_model
from mneme.models.sampling import generate
from mneme.models.secrets import shown_value
from mneme.models.tokenizers import require_tokenizer

_NUMBERS = tuple(str(k) for k in range(101))
_LETTERS = "ABCDEFGH"
_LEAST_LETTERS = 0.25
_AT_ONCE = 8
_VERDICT_TOKENS = 24
_ASKED_TOKENS = 16
"""Room behind a prompt for what is scored: a number or a special word, in pieces of characters at worst."""


def judge_named(spec: str, *, device: str = "cpu") -> Judge:
    """The judge that `spec` names: `local:MODEL`, `verdict:MODEL`, an http(s) address (with `?model=NAME`), `verdict:ADDRESS`.

    Raises BadOption for anything else; BadModel or EndpointFailed where it cannot be had.
    """
    kind, _, rest = spec.partition(":")
    if kind in ("http", "https"):
        return EndpointJudge(_endpoint(spec))
    if kind == "verdict" and rest.startswith(("http:", "https:")):
        return EndpointVerdict(_endpoint(rest))
    if kind in ("local", "verdict") and rest and "://" not in rest:
        loaded = load_model(rest, device=device)
        tokenizer = require_tokenizer(loaded.tokenizer, f"the judge {rest}")
        made = LocalJudge if kind == "local" else LocalVerdict
        return made(rest, loaded.parts, tokenizer, model_fingerprint(loaded.folder))
    raise BadOption(
        f"--judge {shown_value(spec)!r} names no judge. Expected local:MODEL (probabilities of a model here), an address such "
        "as http://127.0.0.1:8000/v1?model=NAME, or verdict:MODEL, verdict:ADDRESS for a verdict that is written out."
    )


def _endpoint(address: str) -> Endpoint:
    found = endpoint_of(address, "--judge")
    if found is None:
        raise BadOption("--judge offline: a judge has to be a model. Name one.")
    return with_model(found)


@dataclass(frozen=True)
class LocalJudge:
    """Closed-set probabilities of a model in this process."""

    source: str
    parts: Parts = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    fingerprint: str
    method: str = "probability of whole numbers 0-100 (constrained sequences); labels as letters, both orders averaged"

    @property
    def name(self) -> str:
        """`local:` and the model."""
        return f"local:{self.source}"

    def __call__(self, queries: Sequence[Query]) -> list[Opinion]:
        """One opinion on each query; no generation."""
        scored = [i for i, query in enumerate(queries) if not query.labels]
        labelled = [i for i, query in enumerate(queries) if query.labels]
        opinions = [Opinion()] * len(queries)
        for i, opinion in zip(scored, self._scores([queries[i] for i in scored]), strict=True):
            opinions[i] = opinion
        for i, opinion in zip(labelled, self._labels([queries[i] for i in labelled]), strict=True):
            opinions[i] = opinion
        return opinions

    def _scores(self, queries: Sequence[Query]) -> list[Opinion]:
        if not queries:
            return []
        words = (*_NUMBERS, *SPECIAL)
        self._require_room(queries)
        asked = [
            ChoiceQuestion(id=str(i), area="", cluster="", prompt=self._prompt(query.text), choices=words, answer=0)
            for i, query in enumerate(queries)
        ]
        found = score_choices(self.parts, self.tokenizer, asked)
        return [
            opinion_of_tokens(dict(zip(words, ended_probabilities(np.exp(sums), ids).tolist(), strict=True)))
            for sums, ids in zip(found.sums, found.ids, strict=True)
        ]

    def _labels(self, queries: Sequence[Query]) -> list[Opinion]:
        if not queries:
            return []
        self._require_room(queries)
        asked = []
        for query in queries:
            if len(query.labels) > len(_LETTERS):
                raise BadJudge(
                    f"criterion {query.criterion!r} has {len(query.labels)} labels, at most {len(_LETTERS)} can be asked."
                )
            for labels in (query.labels, query.labels[::-1]):
                options = "\n".join(f"{letter}. {label}" for letter, label in zip(_LETTERS, labels, strict=False))
                text = f"{query.text}\n\nOptions:\n{options}\nAnswer with the letter of one option."
                asked.append(
                    ChoiceQuestion(
                        id="", area="", cluster="", prompt=self._prompt(text), choices=tuple(_LETTERS[: len(labels)]), answer=0
                    )
                )
        sums = score_choices(self.parts, self.tokenizer, asked).sums
        opinions = []
        for number, query in enumerate(queries):
            given, turned = np.exp(sums[2 * number]), np.exp(sums[2 * number + 1])[::-1]
            mass = (given.sum() + turned.sum()) / 2
            if mass < _LEAST_LETTERS:
                opinions.append(Opinion())
                continue
            share = sum(found / max(found.sum(), np.finfo(float).tiny) for found in (given, turned))  # one may be all zeros
            opinions.append(Opinion(label=query.labels[int(np.argmax(share))]))
        return opinions

    def _require_room(self, queries: Sequence[Query]) -> None:
        prompts = [self._prompt(query.text) for query in queries]
        require_fitting(self.name, self.parts, self.tokenizer, prompts, _ASKED_TOKENS)

    def _prompt(self, text: str) -> str:
        return render(text, None, self.tokenizer)


def require_fitting(name: str, parts: Parts, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], tokens: int) -> None:
    """Raise BadJudge where a prompt and the `tokens` behind it exceed what the judge `name` reads: nothing is cut off."""
    longest = getattr(parts.model.config, "max_position_embeddings", None)
    lengths = [len(ids) for ids in tokenizer(list(prompts), verbose=False)["input_ids"]] if prompts else []
    if longest is not None and max(lengths, default=0) + tokens > longest:
        raise BadJudge(
            f"the judge {name} reads {longest} tokens, and a question with its answer and the judge's prompt has "
            f"{max(lengths)}. Use a judge that reads more, or let answers be shorter (--max-tokens)."
        )


def ended_probabilities(prefix: np.ndarray, ids: Sequence[tuple[int, ...]]) -> np.ndarray:
    """P(a word and no longer one) from P(its tokens come first): minus those of the words one token longer that begin with it.

    prefix: [word], probabilities; ids: the tokens of each word. Clipped at 0 against rounding.
    """
    place = {word: i for i, word in enumerate(ids)}
    ended = np.array(prefix, dtype=np.float64)
    for i, word in enumerate(ids):
        parent = place.get(word[:-1])
        if parent is not None:
            ended[parent] -= prefix[i]
    return np.maximum(ended, 0.0)


@dataclass(frozen=True)
class LocalVerdict:
    """A model in this process that writes its verdict out (greedy)."""

    source: str
    parts: Parts = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    fingerprint: str
    method: str = "the one number or label in a written verdict"

    @property
    def name(self) -> str:
        """`verdict:` and the model."""
        return f"verdict:{self.source}"

    def __call__(self, queries: Sequence[Query]) -> list[Opinion]:
        """One opinion on each query; a verdict that cannot be read is none."""
        if not queries:
            return []
        prompts = [render(query.text, None, self.tokenizer) for query in queries]
        require_fitting(self.name, self.parts, self.tokenizer, prompts, _VERDICT_TOKENS)
        texts = generate(self.parts, self.tokenizer, prompts, max_new_tokens=_VERDICT_TOKENS, temperature=0.0, seed=0)
        return [opinion_of_text(text, query.labels) for text, query in zip(texts, queries, strict=True)]


@dataclass(frozen=True)
class EndpointJudge:
    """First-token probabilities of an OpenAI-compatible endpoint: the published way."""

    endpoint: Endpoint
    fingerprint: str = ""
    method: str = "published rule on the 20 likeliest first tokens (temperature 0)"

    @property
    def name(self) -> str:
        """The address with its model."""
        return self.endpoint.name

    def __call__(self, queries: Sequence[Query]) -> list[Opinion]:
        """One request each, eight at a time. Raises BadJudge where there are no probabilities, or only single digits."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(lambda query: first_token(self.endpoint, query.text), queries))
        opinions, numbers = [], set[str]()
        for query, tokens in zip(queries, found, strict=True):
            if tokens is None:
                raise BadJudge(
                    f"the judge {self.name} gives no token probabilities (logprobs), from which a score is made. Use an "
                    f"endpoint that has them, or let it write its verdict: --judge verdict:{self.name}."
                )
            if query.labels:
                opinions.append(label_of_tokens(tokens, query.labels))
            else:
                opinions.append(opinion_of_tokens(tokens))
                numbers |= {token.strip() for token in tokens if token.strip().isdigit()}
        if len(numbers) > 3 and max(map(len, numbers)) == 1:
            raise BadJudge(
                f"the first tokens of {self.name} are single digits, so that 8 may mean 8 or 85: it cuts numbers up. Use a "
                f"judge with numbers as tokens, --judge verdict:{self.name}, or the same model in this process (local:…)."
            )
        return opinions


@dataclass(frozen=True)
class EndpointVerdict:
    """An endpoint that writes its verdict out."""

    endpoint: Endpoint
    fingerprint: str = ""
    method: str = "the one number or label in a written verdict"

    @property
    def name(self) -> str:
        """`verdict:` and the address with its model."""
        return f"verdict:{self.endpoint.name}"

    def __call__(self, queries: Sequence[Query]) -> list[Opinion]:
        """One request each, eight at a time; a verdict that cannot be read is none."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            texts = list(pool.map(lambda query: complete(self.endpoint, "", query.text), queries))
        return [opinion_of_text(text, query.labels) for text, query in zip(texts, queries, strict=True)]
