"""How strongly a repair is applied, from 0 (the tuned model, untouched) to 1 (as far as the method goes), and the weakest
strength that closes a stated share of the gap on the development probe. Ours.
"""

from collections.abc import Callable

from mneme.errors import BadOption

GRID = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Strengths that are tried first, from weak to strong; few methods are monotone to the last digit."""


def check_strength(strength: float) -> float:
    """`strength` itself. Raises BadOption outside [0, 1]."""
    if not 0.0 <= strength <= 1.0:
        raise BadOption(f"A strength of {strength:g} is outside 0 to 1: 0 keeps the tuned model, 1 repairs as far as it goes.")
    return strength


def weakest_strength(
    closed_at: Callable[[float], float], goal: float, *, tolerance: float = 0.02, max_steps: int = 7
) -> float | None:
    """The weakest strength whose closed share is at least `goal` and, where bisection gets there, below `goal + tolerance`.

    Walks up the grid to the first strength that reaches the goal, then bisects between it and the one before, at most
    `max_steps` times. None where no strength of the grid reaches it. Raises BadOption for a goal outside (0, 1].
    """
    if not 0.0 < goal <= 1.0:
        raise BadOption(f"A share of {goal:g} of the gap cannot be closed: expected more than 0 and at most 1, such as 0.8.")
    below = 0.0
    above: float | None = None
    for strength in GRID:
        if closed_at(strength) >= goal:
            above = strength
            break
        below = strength
    if above is None:
        return None
    for _ in range(max_steps):
        if closed_at(above) <= goal + tolerance:
            break
        middle = (below + above) / 2
        if closed_at(middle) >= goal:
            above = middle
        else:
            below = middle
    return above
