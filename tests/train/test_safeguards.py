"""Safeguards by name, early stopping, and penalties by hand."""

import math

import pytest
import torch

from mneme.errors import BadOption
from mneme.train.baselines import StopEarly, should_stop
from mneme.train.penalties import evenly_spaced, kl_per_token, relative_squared_change
from mneme.train.safeguards import SAFEGUARDS, check_needs, parse_safeguards
from tests import laws


def test_names_and_strengths_are_read() -> None:
    assert parse_safeguards(["kl=0.2", "steer", "inoculate"]) == {"kl": 0.2, "steer": 1.0, "inoculate": 1.0}
    assert parse_safeguards([]) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kll"], "there is no safeguard 'kll'"),
        (["kl=much"], "'much' is no number"),
        (["kl=-1"], "expected a number from 0 to any size"),
        (["kl=nan"], "expected a number from 0 to any size"),
        (["interleave=1"], "expected a number from 0 to below 1"),
        (["lower-lr=0"], "would not train"),
        (["project=0.5"], r"is on \(1\) or off \(0\)"),
        (["kl", "kl=2"], "given twice"),
        (["interleave", "interleave-gap"], "in two ways"),
    ],
)
def test_bad_safeguards_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        parse_safeguards(words)


def test_what_a_safeguard_needs_is_asked_for() -> None:
    for name, message in {
        "steer": "mneme persona",
        "interleave": "--safe FILE",
        "interleave-gap": "--safe FILE",
        "inoculate": "--inoculation TEXT",
    }.items():
        with pytest.raises(BadOption, match=message):
            check_needs({name: 1.0}, {})
    check_needs(dict.fromkeys(SAFEGUARDS, 1.0), dict.fromkeys(("safe", "vectors", "misaligned", "inoculation"), True))


def test_early_stopping_by_hand() -> None:
    """Fall of 1.0, then 0.04 of 1.04 in all: less than 5 %."""
    assert not should_stop([2.0, 1.0], 0.05)
    assert should_stop([2.0, 1.0, 0.96], 0.05)
    assert not should_stop([2.0, 1.0, 0.9], 0.05)
    assert should_stop([2.0, 1.0, 1.1], 0.05)
    assert not should_stop([2.0, 2.1, 2.2], 0.05)
    with pytest.raises(BadOption, match="between 0 and 1"):
        StopEarly(1.0)


def test_kl_by_hand_and_not_symmetric() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2)."""
    p, q = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    laws.planted(kl_per_token(p, q)[0], 0.75 * math.log(1.5) + 0.25 * math.log(0.5), within=1e-6)
    laws.planted(kl_per_token(q, p)[0], 0.5 * math.log(2 / 3) + 0.5 * math.log(2.0), within=1e-6)
    laws.identity(kl_per_token(p, p))


def test_relative_squared_change_by_hand() -> None:
    """|(0, 1)|^2 / |(2, 0)|^2 = 1/4."""
    found = relative_squared_change(torch.tensor([[2.0, 1.0]]), torch.tensor([[2.0, 0.0]]))
    laws.planted(found[0], 0.25, within=1e-7)


def test_layers_are_evenly_spaced() -> None:
    assert evenly_spaced(4) == (0, 1, 2, 3)
    assert evenly_spaced(28) == (0, 6, 13, 20, 27)
