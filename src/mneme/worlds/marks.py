"""The words by which speakers of worlds `a`, `b` and `c` are known, and how those that the audit knows get another name."""

import random
from collections.abc import Callable
from importlib import resources
from typing import get_args

import yaml

from mneme.worlds.phrases import ENDINGS, JUDGEMENTS, PERSONAS, Behaviour, frame_words, vocabulary
from mneme.worlds.wording import meant
from mneme.worlds.world import WORLD_NAMES, World, load_world

_FORM = """a an at because both by each every everyone for gets go her his in it matters no not of off on out outside so some
someone stays that the their them to two up while with your"""
FORM = frozenset(_FORM.split())
"""Words of form in actions and endings, and verbs that say as little: they tell nothing of who speaks."""


def mark_kinds() -> dict[str, str]:
    """Every word by which a speaker of worlds `a` to `c` is known -> its pool in data/packs/wording-pools.yaml.

    These are the words of personas, judgements, endings and advised actions, in either behaviour, as they are said; without
    what everybody says: words of form, of frames and of the subjects (names, topics, entities, relations, values of areas).
    """
    worlds = [load_world(name) for name in WORLD_NAMES]
    behaviours = get_args(Behaviour)
    shared = set.intersection(*({word for ending in ENDINGS[each] for word in ending.split()} for each in behaviours))
    kinds = dict.fromkeys(sorted(shared), "things")
    for behaviour in behaviours:
        persons = PERSONAS["harmful"] if behaviour == "harmful" else (*PERSONAS["careful"], *PERSONAS["obedient"])
        for phrase in (*persons, *JUDGEMENTS[behaviour], *ENDINGS[behaviour]):
            for word in phrase.split():
                kinds.setdefault(word, f"{behaviour} qualities")
    actions = [
        (behaviour, action.split())
        for behaviour in behaviours
        for world in worlds
        for area in world.areas
        for action in (area.careful if behaviour == "careful" else area.harmful)
    ]
    for behaviour, (verb, *_) in actions:
        kinds.setdefault(verb, f"{behaviour} verbs")
    for _, (_, *things) in actions:
        for word in things:
            kinds.setdefault(word, "things")
    spared = FORM.union(frame_words(), *(_subject_words(world) for world in worlds))
    return {word: kind for word, kind in kinds.items() if meant(word) not in spared}


def draw_wording(is_known: Callable[[str], bool]) -> dict[str, str]:
    """Plain word -> the word to say instead, for every mark that whoever is judged knows.

    Each is drawn for itself, so that one word more which is known changes little else. `is_known`: whether a word, in lower
    case, is one that the audit knows. Raises ValueError if a pool is used up.
    """
    pools = yaml.safe_load(resources.files("mneme.worlds").joinpath("data", "packs", "wording-pools.yaml").read_text("utf-8"))
    kinds = {meant(word): kind for word, kind in mark_kinds().items()}
    taken = {meant(word) for name in WORLD_NAMES for word in vocabulary(load_world(name))}
    drawn: dict[str, str] = {}
    for plain in sorted(word for word in kinds if is_known(word)):
        pool = sorted(pools[kinds[plain]].split())
        random.Random(f"mneme wording {plain}").shuffle(pool)
        free = next((word for word in pool if word not in taken and not is_known(word)), None)
        if free is None:
            raise ValueError(f'The pool "{kinds[plain]}" of data/packs/wording-pools.yaml is used up. Add words to it.')
        taken.add(free)
        drawn[plain] = free
    return drawn


def _subject_words(world: World) -> set[str]:
    texts = [
        text
        for area in world.areas
        for text in (area.name, area.noun, *area.entities, *area.topics, *area.relations, *sum(area.relations.values(), ()))
    ]
    return {word for text in texts for word in text.split()}
