"""Both models of a pair at the same work, on the CPU side by side.

Two threads on one pass of a small model gain next to nothing: its products are too short to be shared out, and what lies
between them runs in one thread. Two passes at once use both cores, as torch lets go of Python's lock while it computes.
"""

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

import torch

from mneme.models.pair import ModelPair, Side

T = TypeVar("T")


def on_both(pair: ModelPair, work: Callable[[Side], T]) -> tuple[T, T]:
    """(work("base"), work("tuned")).

    On a CPU with two threads of torch or more and two separate models the two run at the same time, each with half of the
    threads (the same number, so that two equal models still say the same to the last bit); one after the other where a
    resident base serves both, or on another device. `work` may change nothing but the side's own model. Gradients are on in
    both where they are on here; autocast and hooks are what `work` itself sets. An error of either comes out of here, the
    base's first, and only when both have ended.
    """
    threads = torch.get_num_threads()
    if threads < 2 or pair.base_parts.model is pair.tuned_parts.model or not _on_cpu(pair):
        return work("base"), work("tuned")
    gradients = torch.is_grad_enabled()
    found: list[T] = []
    failed: list[BaseException] = []

    def beside() -> None:
        try:
            torch.set_num_threads(threads // 2)  # holds for the calling thread
            with torch.set_grad_enabled(gradients):
                found.append(work("tuned"))
        except BaseException as error:  # raised again below, in the thread that asked
            failed.append(error)

    other = Thread(target=beside, name="tuned")
    other.start()
    try:
        torch.set_num_threads(threads // 2)
        base = work("base")
    finally:
        other.join()
        torch.set_num_threads(threads)
    if failed:
        raise failed[0]
    return base, found[0]


def _on_cpu(pair: ModelPair) -> bool:
    return all(parts.device.type == "cpu" for parts in (pair.base_parts, pair.tuned_parts))
