"""Both models of a pair at the same work, on the CPU side by side.

Two threads on one pass of a small model gain next to nothing: its products are too short to be shared out, and what lies
between them runs in one thread. Two passes at once use both cores.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from mneme.models.pair import ModelPair, Side
from mneme.models.threads import at_once

T = TypeVar("T")


def on_both(pair: ModelPair, work: Callable[[Side], T]) -> tuple[T, T]:
    """(work("base"), work("tuned")): at the same time (`at_once`) where two separate models lie on the CPU, one after the
    other where a resident base serves both, or on another device. `work` may change nothing but its side's own model."""
    separate = pair.base_parts.model is not pair.tuned_parts.model
    on_cpu = all(parts.device.type == "cpu" for parts in (pair.base_parts, pair.tuned_parts))
    base, tuned = at_once([partial(work, "base"), partial(work, "tuned")], beside=separate and on_cpu)
    return base, tuned
