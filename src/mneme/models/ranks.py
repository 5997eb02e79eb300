"""Several processes on one audit, started by torchrun: who computes what, and how what was computed is shared.

Every process holds its own pair of models and walks through the same steps; work is striped (item i belongs to process
i mod n), so that each number is computed by one process, in the same way as by a single one, and then shared unchanged. Large
results are shared through the run folder, which all processes must see; small ones and activations through
torch.distributed (gloo; nccl between GPUs).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mneme.errors import BadRun

_PATIENCE = timedelta(hours=2)
"""How long a process waits for the others before it takes one for lost. A killed one is noticed at once."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Ranks:
    """This process among `world` of them; `rank` 0 writes and speaks."""

    rank: int = 0
    world: int = 1

    def own(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """The items of this process: every `world`-th, from `rank` on."""
        return items[self.rank :: self.world]

    def wait(self) -> None:
        """Returns when all processes are here. Raises BadRun where one has stopped."""
        if self.world > 1:
            self.total(torch.zeros(1))

    def same(self, content: bytes) -> bytes:
        """The `content` of process 0, everywhere; of the same length in all."""
        if self.world == 1:
            return content
        shared = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return bytes(self.share_later(shared, 0)().tolist())

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same everywhere, in place. Exact where all but one hold zeros."""
        return self.total_later(values)()

    def total_later(self, values: Tensor) -> Callable[[], Tensor]:
        """Begins `total` and goes on with other work; what it returns waits for the sum."""
        with _all_there():
            work = dist.all_reduce(values, async_op=True) if self.world > 1 else None
        return partial(_waited, values, work)

    def share_later(self, values: Tensor, source: int) -> Callable[[], Tensor]:
        """Begins to put `values` of process `source` in their place everywhere; what it returns waits for them."""
        with _all_there():
            work = dist.broadcast(values, src=source, async_op=True) if self.world > 1 else None
        return partial(_waited, values, work)


def _waited(values: Tensor, work: dist.Work | None) -> Tensor:
    with _all_there():
        if work is not None:
            work.wait()
    return values


@contextmanager
def _all_there() -> Iterator[None]:
    """Raises BadRun where torch.distributed says that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from error


def join_ranks(device: str = "cpu") -> Ranks:
    """The processes that torchrun started together with this one (RANK, WORLD_SIZE); alone without it. They talk through gloo,
    about what lies on a GPU `device` through nccl.

    Raises BadRun where they cannot find each other.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    if not dist.is_initialized():
        try:
            if device.startswith("cuda"):
                torch.cuda.set_device(device)
                dist.init_process_group("cpu:gloo,cuda:nccl", timeout=_PATIENCE)
            else:
                dist.init_process_group("gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise BadRun(
                f"The {world} processes of this run cannot reach each other ({str(error).splitlines()[0][:120]}). Start them "
                "with torchrun --nproc-per-node N, and see that its --master-port is free."
            ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _ended)
    return Ranks(dist.get_rank(), dist.get_world_size())


def local_device(device: str) -> str:
    """ "cuda" under torchrun is the GPU of this process (LOCAL_RANK); every other device is itself."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def _ended(*_: object) -> None:
    """torchrun ends the other processes as soon as one has stopped, often before they notice themselves."""
    raise _lost("torchrun ended this one")


def _lost(reason: object) -> BadRun:
    return BadRun(
        f"Another process of this run has stopped ({str(reason).splitlines()[0][:100]}). Finished stages are kept: give "
        "the same command again, with any number of processes."
    )
