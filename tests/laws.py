"""The six laws that methods are held to, as functions that any test may call. A method's docstring says which it claims.

Each takes what a method gave (numbers, arrays, tensors, estimates, or tuples, lists and dicts of them) and fails with the
largest departure. Absence (None) and words must be the same on both sides; they have no sign and no size.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel


def numbers(value: Any, where: str = "result") -> Iterator[tuple[str, np.ndarray]]:
    """Every number in `value` with the path to it, in a fixed order, as float64 (booleans as 0 and 1)."""
    if isinstance(value, torch.Tensor):
        yield where, value.detach().cpu().double().numpy()
    elif isinstance(value, np.ndarray | np.generic | bool | int | float):
        yield where, np.asarray(value, dtype=np.float64)
    elif isinstance(value, BaseModel):
        yield from numbers({name: getattr(value, name) for name in type(value).model_fields}, where)
    elif isinstance(value, Mapping):
        for name in value:
            yield from numbers(value[name], f"{where}.{name}")
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from numbers(value._asdict(), where)
    elif isinstance(value, tuple | list):
        for index, part in enumerate(value):
            yield from numbers(part, f"{where}[{index}]")


def bytes_of(value: Any) -> bytes:
    """What `determinism` compares: every number bit for bit, everything else as it is written."""
    if isinstance(value, bytes):
        return value
    found = list(numbers(value))
    return b"".join(name.encode() + array.tobytes() for name, array in found) if found else repr(value).encode()


def _same(left: Any, right: Any, tolerance: float, law: str) -> None:
    one, two = list(numbers(left)), list(numbers(right))
    assert [name for name, _ in one] == [name for name, _ in two], f"{law}: not the same kind of result"
    assert one, f"{law}: there is no number in the result"
    for (name, a), (_, b) in zip(one, two, strict=True):
        assert a.shape == b.shape, f"{law}: {name} has shape {a.shape} on one side and {b.shape} on the other"
        largest = float(np.abs(a - b).max(initial=0.0))
        assert largest <= tolerance, f"{law}: {name} differs by {largest:g}, allowed is {tolerance:g}"


def identity(effect_of_equal_models: Any) -> None:
    """Tuned = base gives exactly no effect: every number is 0, not merely small."""
    found = list(numbers(effect_of_equal_models))
    assert found, "identity: there is no number in the result"
    for name, array in found:
        assert not array.any(), f"identity: {name} is {np.abs(array).max():g} for equal models"


def padding(one: Any, other: Any, *, tolerance: float = 1e-5) -> None:
    """How the same text was batched, ordered or padded does not matter (up to float32 rounding)."""
    _same(one, other, tolerance, "padding")


def antisymmetry(forward: Any, swapped: Any, *, tolerance: float = 0.0) -> None:
    """Swapping base and tuned flips the sign, exactly unless a tolerance says otherwise."""
    negated = [(name, -array) for name, array in numbers(swapped)]
    _same([array for _, array in numbers(forward)], [array for _, array in negated], tolerance, "antisymmetry")


def zero_strength(plain: Any, at_zero: Any, *, tolerance: float = 0.0) -> None:
    """A method at weight 0 is the plain run."""
    _same(plain, at_zero, tolerance, "zero strength")


def determinism(run: Callable[[], Any]) -> None:
    """The same seed gives the same bytes."""
    assert bytes_of(run()) == bytes_of(run()), "determinism: two runs with one seed differ"


def planted(found: Any, expected: Any, *, within: float) -> None:
    """An effect that was put in by hand is found, with its size."""
    _same(found, expected, within, "planted")
