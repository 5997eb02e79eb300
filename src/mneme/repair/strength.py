"""How strongly a repair is applied: a number from 0 (the tuned model, untouched) to 1 (as far as the method goes). Ours."""

from mneme.errors import BadOption


def check_strength(strength: float) -> float:
    """`strength` itself. Raises BadOption outside [0, 1]."""
    if not 0.0 <= strength <= 1.0:
        raise BadOption(f"A strength of {strength:g} is outside 0 to 1: 0 keeps the tuned model, 1 repairs as far as it goes.")
    return strength
