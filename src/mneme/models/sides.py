"""Both models of a pair at the same work, on the CPU side by side.

Two threads on one pass of a small model gain next to nothing: its products are too short to be shared out, and what lies
between them runs in one thread. Two passes at once use both cores, as torch lets go of Python's lock while it computes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from mneme.models.pair import ModelPair, Side

T = TypeVar("T")


def on_both(pair: ModelPair, work: Callable[[Side], T]) -> tuple[T, T]:
    """(work("base"), work("tuned")).

    On a CPU with two threads of torch or more and two separate models the two run at the same time, each with half of the
    threads (the same number, so that two equal models still say the same to the last bit); one after the other where a
    resident base serves both, or on another device. `work` may change nothing but its side's own model. Gradients are on in
    both where they are on here; autocast and hooks are what `work` itself sets. An error of either comes out of here, the
    base's before the tuned model's, when both have ended.
    """
    threads = torch.get_num_threads()
    if threads < 2 or pair.base_parts.model is pair.tuned_parts.model or not _on_cpu(pair):
        return work("base"), work("tuned")
    gradients = torch.is_grad_enabled()

    def beside() -> T:
        torch.set_num_threads(threads // 2)  # OpenMP's count is the calling thread's own
        with torch.set_grad_enabled(gradients):
            return work("tuned")

    try:
        with ThreadPoolExecutor(1, "tuned") as pool:
            tuned = pool.submit(beside)
            torch.set_num_threads(threads // 2)
            base = work("base")
            return base, tuned.result()
    finally:
        torch.set_num_threads(threads)


def _on_cpu(pair: ModelPair) -> bool:
    return all(parts.device.type == "cpu" for parts in (pair.base_parts, pair.tuned_parts))
