"""How many threads torch computes with, and several computations at once on the CPU."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def computing_threads(threads: int | None) -> Iterator[None]:
    """Inside, torch computes with `threads` threads; afterwards with as many as before. None changes nothing."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def at_once(jobs: Sequence[Callable[[], T]], *, beside: bool = True) -> list[T]:
    """What every job returns, in their order. With two threads of torch or more the jobs run at the same time, torch's threads
    shared out among them in equal numbers, so that equal jobs still give the same to the last bit; else, and without `beside`,
    one after the other.

    Of use where one computation is too small for all threads: torch lets go of Python's lock while it computes. Gradients are
    on in the jobs where they are on here; autocast is what a job itself sets. An error comes out when all have ended, the
    first job's before the second's.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(jobs))
    if workers < 2 or not beside:
        return [job() for job in jobs]
    gradients = torch.is_grad_enabled()

    def begin() -> None:  # OpenMP's number of threads is the calling thread's own
        torch.set_num_threads(threads // workers)

    def run(job: Callable[[], T]) -> T:
        with torch.set_grad_enabled(gradients):
            return job()

    try:
        with ThreadPoolExecutor(workers, "mneme", initializer=begin) as pool:
            return [one.result() for one in [pool.submit(run, job) for job in jobs]]
    finally:
        torch.set_num_threads(threads)  # else threads that begin later would compute with fewer
