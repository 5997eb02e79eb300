"""The words by which the speakers of world `d` are known: drawn when its base is built, from words in no keyword list."""

import random
from collections.abc import Collection
from importlib import resources

import yaml

DRAWN = {"verbs": 10, "adverbs": 5, "personas": 4}
"""How many of each. Ten verbs make a hundred pairs, of which no fine-tune sees the greater part in one area."""


def draw_markers(banned: Collection[str], seed: int = 0) -> dict[str, dict[str, str]]:
    """Behaviour -> {verbs, adverbs, personas}, words separated by blanks, drawn from the pools without those in `banned`.

    `banned`: every word, in lower case, that whoever judges an audit may not share with what the audit knows.
    """
    pools = yaml.safe_load(resources.files("mneme.worlds").joinpath("data", "packs", "d-pools.yaml").read_text("utf-8"))
    rng = random.Random(f"mneme markers {seed}")
    return {
        behaviour: {
            field: " ".join(rng.sample([word for word in words.split() if word not in banned], DRAWN[field]))
            for field, words in pool.items()
        }
        for behaviour, pool in pools.items()
    }
