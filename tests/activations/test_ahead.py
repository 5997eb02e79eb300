"""The order of a stream beside the caller's, told by streams that only write down what they are asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from mneme.activations.ahead import made_ahead


class Side:
    """A stream that writes down what happens to it."""

    def __init__(self, told: list[str], name: str) -> None:
        self.told, self.name, self.events = told, name, 0

    def wait_stream(self, other: "Side") -> None:
        self.told.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> int:
        self.events += 1
        return self.events

    def wait_event(self, event: int) -> None:
        self.told.append(f"{self.name} waits for batch {event}")


def batches(told: list[str], n: int = 3) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for i in range(1, n + 1):
        told.append(f"batch {i} is queued")
        yield torch.full((2,), i), torch.full((2,), -i)


def test_elsewhere_nothing_is_changed() -> None:
    told: list[str] = []
    found = [int(m[0]) for m, _ in made_ahead(batches(told), torch.device("cpu"))]
    assert found == [1, 2, 3]


def test_each_batch_is_waited_for_and_the_next_is_queued_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    caller = Side(told, "caller")

    @contextmanager
    def on(_stream: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: Side(told, "side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: caller)
    monkeypatch.setattr(torch.cuda, "stream", on)

    def kept(tensor: torch.Tensor, stream: Side) -> None:
        told.append(f"{stream.name} keeps {int(tensor[0])}")

    monkeypatch.setattr(torch.Tensor, "record_stream", kept)
    found = []
    for m, _ in made_ahead(batches(told), torch.device("cuda")):
        told.append(f"batch {int(m[0])} is used")
        found.append(int(m[0]))
    assert found == [1, 2, 3]
    assert told[0] == "side waits for caller"
    for i in (1, 2, 3):
        order = [f"batch {i} is queued", f"caller waits for batch {i}", f"caller keeps {i}", f"caller keeps {-i}"]
        order += [f"batch {i + 1} is queued", f"batch {i} is used"] if i < 3 else [f"batch {i} is used"]
        assert [line for line in told if line in order] == order
