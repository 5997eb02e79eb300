"""What an audit was asked to do, once everything is checked."""

from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console

from mneme.dictionaries.crosscoder import Kind
from mneme.models.client import Endpoint
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks
from mneme.predict.areas import Area
from mneme.runs import RunFolder
from mneme.text.documents import Documents
from mneme.text.packing import PackedRows

Track = Callable[[str, int | None], Callable[[int], None]]
"""Starts a progress bar (name, total or None) and gives the function that moves it on."""


class Job(NamedTuple):
    """Everything an audit was asked to do, checked."""

    pair: ModelPair
    documents: Documents
    rows: PackedRows
    areas: tuple[Area, ...]
    kind: Kind | None
    """None: no dictionary is trained, and the effects are read without latents."""
    layers: tuple[int, ...] | None
    seed: int
    endpoint: Endpoint | None
    """Who writes the words of latents; None: offline."""
    intended: tuple[str, ...]
    run: RunFolder
    console: Console
    ranks: Ranks
