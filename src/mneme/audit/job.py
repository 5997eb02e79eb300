"""What an audit was asked to do, once everything is checked."""

from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console

from mneme.activations.corpus import Documents, Rows
from mneme.dictionaries.crosscoder import Kind
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks
from mneme.predict.areas import Area
from mneme.runs import RunFolder

Track = Callable[[str, int | None], Callable[[int], None]]
"""Starts a progress bar (name, total or None) and gives the function that moves it on."""


class Job(NamedTuple):
    """Everything an audit was asked to do, checked."""

    pair: ModelPair
    documents: Documents
    rows: Rows
    areas: tuple[Area, ...]
    kind: Kind | None
    """None: no dictionary is trained, and the effects are read without latents."""
    layers: tuple[int, ...] | None
    seed: int
    describe: str
    intended: tuple[str, ...]
    run: RunFolder
    console: Console
    ranks: Ranks
    quick: bool
    """Few tokens, few paired answers, no dictionary."""
    named_areas: bool
    """The user gave the areas, so that each of them matters; else they are those of the default list."""
