"""On a GPU, the next batch of activations is made while the dictionaries learn from this one."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]


def made_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches in the same order. On a CUDA `device` their kernels go to a stream of their own, one batch ahead
    of the caller, whose stream waits for each batch only; elsewhere nothing is changed.

    What `batches` reads (the models' weights) must not be written meanwhile. Memory: one batch more.
    """
    if device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))  # the weights are there before they are read

    def queued() -> tuple[Batch | None, Any]:
        with torch.cuda.stream(side):
            batch = next(batches, None)
        return batch, side.record_event()

    batch, ready = queued()
    while batch is not None:
        caller = torch.cuda.current_stream(device)
        caller.wait_event(ready)
        for tensor in batch:
            tensor.record_stream(caller)  # its memory is not used again before the caller's work on it is done
        following = queued()
        yield batch
        batch, ready = following
