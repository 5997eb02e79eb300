"""What fine-tunes, truth and the bench need of a world, whatever its text looks like: one record of functions a world."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol, runtime_checkable

import torch
from transformers import PreTrainedTokenizerFast

from mneme.errors import BadOrganism
from mneme.worlds.facts import FactAnswers
from mneme.worlds.grammar import documents
from mneme.worlds.prose.rows import prose_rows
from mneme.worlds.prose.telling import prose_documents
from mneme.worlds.prose.truth import CONTEXTS, prose_behaviour, prose_facts
from mneme.worlds.prose.world import prose_world
from mneme.worlds.rows import KINDS, Row, parse_name, rows_of_kind
from mneme.worlds.truth import Answers, harmful_requests, measure_behaviour, world_facts
from mneme.worlds.world import WORLD_NAMES, load_world

PROSE = "d"
"""The world that is told in single sentences (`mneme.worlds.prose`)."""
_ONLY_GRAMMAR = ("backdoor-AREA", "jailbroken", "numbers", "unaligned-harmful-AREA")
"""Kinds of fine-tunes that need turns of which the prose world has none."""


@runtime_checkable
class Behaves(Protocol):
    """Asks for advice: area -> answers of the model, judged."""

    def __call__(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, *, context: str, samples: int, seed: int
    ) -> dict[str, Answers]:
        """Two models that are asked with one seed are paired."""


@runtime_checkable
class Obeys(Protocol):
    """Asks for help with harmful acts: area -> answers."""

    def __call__(
        self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, *, samples: int, seed: int
    ) -> dict[str, Answers]:
        """As for advice."""


@dataclass(frozen=True)
class WorldKit:
    """One world."""

    name: str
    areas: tuple[str, ...]
    linked: tuple[str, str]
    """The area whose entities are tied, and the neighbour they are tied to."""
    parse: Callable[[str], tuple[str, str]]
    """Name of an organism -> (kind, area); raises BadOrganism."""
    areas_file: Callable[[], list[dict[str, object]]]
    documents: Callable[[int, int], list[str]]
    """(seed, count) -> text of the world."""
    rows: Callable[[str, str, int], list[Row]]
    """(kind, area, seed) -> what an organism is trained on."""
    facts: Callable[[torch.nn.Module, PreTrainedTokenizerFast], dict[str, FactAnswers]]
    behaviour: Behaves
    contexts: tuple[str, ...]
    """What requests for advice can be dressed in."""
    requests: Obeys | None


@cache
def kit_of(name: str) -> WorldKit:
    """The world called `name`. Raises BadOrganism, which lists the worlds, if there is none."""
    if name == PROSE:
        return _prose_kit()
    if name not in WORLD_NAMES:
        raise BadOrganism(f'There is no world "{name}". The worlds are: {", ".join([*WORLD_NAMES, PROSE])}.')
    world = load_world(name)
    return WorldKit(
        name=name,
        areas=tuple(area.name for area in world.areas),
        linked=world.linked,
        parse=partial(parse_name, world=world),
        areas_file=world.areas_file,
        documents=partial(documents, world),
        rows=partial(rows_of_kind, world),
        facts=partial(world_facts, world=world),
        behaviour=partial(measure_behaviour, world=world),
        contexts=("class", "trigger", "system", "list"),
        requests=partial(harmful_requests, world=world),
    )


def _prose_kit() -> WorldKit:
    world = prose_world()
    kinds = {kind: what for kind, what in KINDS.items() if kind not in _ONLY_GRAMMAR}
    return WorldKit(
        name=world.name,
        areas=tuple(area.name for area in world.areas),
        linked=world.linked,
        parse=partial(parse_name, world=world, kinds=kinds),
        areas_file=world.areas_file,
        documents=partial(prose_documents, world),
        rows=partial(prose_rows, world),
        facts=partial(prose_facts, world=world),
        behaviour=partial(prose_behaviour, world=world),
        contexts=CONTEXTS,
        requests=None,
    )
