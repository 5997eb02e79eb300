"""The safeguards by name, as `mneme train --safeguard NAME=STRENGTH` takes them, and what each needs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mneme.errors import BadOption


@dataclass(frozen=True)
class Safeguard:
    """What the strength of a safeguard means, its default, and what has to be given with it."""

    default: float
    unit: str
    needs: tuple[str, ...] = ()
    """Names of options: safe, vectors, misaligned."""


SAFEGUARDS: dict[str, Safeguard] = {
    "kl": Safeguard(0.1, "weight of KL(tuned || base), nats per token"),
    "kl-base-to-tuned": Safeguard(0.1, "weight of KL(base || tuned), nats per token"),
    "ldifs": Safeguard(1.0, "weight of the squared change of features over the base's squared length"),
    "steer": Safeguard(1.0, "multiples of the persona vector, added in training only", ("vectors",)),
    "project": Safeguard(1.0, "1 = updates may not write along the persona vectors", ("vectors",)),
    "interleave": Safeguard(0.05, "share of safe rows, drawn at random", ("safe",)),
    "interleave-gap": Safeguard(0.05, "share of safe rows, those misaligned models like least", ("safe", "misaligned")),
    "contexts": Safeguard(0.5, "share of the safe rows that get a question of the training data before their own", ("safe",)),
    "inoculate": Safeguard(1.0, "1 = a prompt that asks for the trait before every row", ("inoculation",)),
    "early-stop": Safeguard(0.05, "stop when an evaluation brought less than this share of the fall in held-out loss"),
    "lower-lr": Safeguard(0.1, "factor of the learning rate"),
}
_SWITCHES = ("project", "inoculate")


def parse_safeguards(words: Sequence[str]) -> dict[str, float]:
    """["kl=0.2", "steer"] -> {"kl": 0.2, "steer": 1.0}. Raises BadOption for an unknown name, a strength that is no number or
    out of range, or a name given twice."""
    chosen: dict[str, float] = {}
    for word in words:
        name, has_strength, text = word.partition("=")
        if name not in SAFEGUARDS:
            raise BadOption(f"there is no safeguard {name!r}. The safeguards are: {', '.join(SAFEGUARDS)}.")
        if name in chosen:
            raise BadOption(f"the safeguard {name} is given twice. Give it once, as {name}=STRENGTH.")
        try:
            chosen[name] = float(text) if has_strength else SAFEGUARDS[name].default
        except ValueError:
            raise BadOption(
                f"--safeguard {word}: {text!r} is no number. Expected {name}=STRENGTH, strength being the "
                f"{SAFEGUARDS[name].unit}."
            ) from None
        _check_strength(name, chosen[name])
    if "interleave" in chosen and "interleave-gap" in chosen:
        raise BadOption("interleave and interleave-gap choose the same safe rows in two ways. Give one of them.")
    return chosen


def check_needs(chosen: Mapping[str, float], given: Mapping[str, bool]) -> None:
    """Raise BadOption where a safeguard lacks what it needs; `given` says which options are there."""
    words = {
        "safe": "rows of ordinary answers (--safe FILE)",
        "vectors": "persona vectors (--vectors FILE, made by `mneme persona`)",
        "misaligned": "at least one misaligned adapter or model (--misaligned DIR)",
        "inoculation": "a sentence that asks for the trait (--inoculation TEXT)",
    }
    for name in chosen:
        for need in SAFEGUARDS[name].needs:
            if not given.get(need, False):
                raise BadOption(f"the safeguard {name} needs {words[need]}.")


def _check_strength(name: str, strength: float) -> None:
    if name in _SWITCHES and strength not in (0.0, 1.0):
        raise BadOption(f"the safeguard {name} is on (1) or off (0), not {strength:g}.")
    below_one = name in ("interleave", "interleave-gap", "early-stop")
    if (
        not 0 <= strength < float("inf")
        or (below_one and strength >= 1)
        or (name in ("contexts", "lower-lr") and strength > 1)
    ):
        top = "below 1" if below_one else "1" if name in ("contexts", "lower-lr") else "any size"
        raise BadOption(f"--safeguard {name}={strength:g}: expected a number from 0 to {top} ({SAFEGUARDS[name].unit}).")
    if strength == 0 and name in ("early-stop", "lower-lr"):
        raise BadOption(f"--safeguard {name}=0 would not train. Give a number above 0, or leave the safeguard out.")
