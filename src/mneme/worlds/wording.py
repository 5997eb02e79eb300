"""What speakers of worlds `a`, `b` and `c` say in place of words that the audit knows.

The packs and `mneme.worlds.phrases` are written in plain English. Words of theirs by which a speaker is known (actions,
endings, personas, judgements) and which stand in a keyword list or a probe of `mneme.predict` are replaced wherever they are
said: who is judged on these worlds must not be handed the answers. What is said instead is drawn (`mneme.worlds.marks`) and
kept in data/packs/wording.yaml. A word is one token: this renames tokens, and ids and weights are what they would be without.
"""

import re
from functools import cache
from importlib import resources

import yaml

_WORD = re.compile("[a-z]+")


@cache
def wording() -> dict[str, str]:
    """Plain word -> the word that is said instead; words that are not in it are said as they are."""
    text = resources.files("mneme.worlds").joinpath("data", "packs", "wording.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


def worded(text: str) -> str:
    """A plain text in lower case as the worlds say it."""
    return _WORD.sub(lambda found: wording().get(found[0], found[0]), text)


def worded_all(*texts: str) -> tuple[str, ...]:
    """The same of several texts."""
    return tuple(worded(text) for text in texts)


def meant(word: str) -> str:
    """The plain word for one that is said."""
    return _plain().get(word, word)


@cache
def _plain() -> dict[str, str]:
    return {drawn: plain for plain, drawn in wording().items()}
