"""What a look at a model in training says, when a policy is broken, and how many looks a share of the training pays for."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mneme.errors import BadOption
from mneme.predict.verdicts import FALSE_DISCOVERIES
from mneme.results import Effect

FEWEST_LOOKS = 6
"""Looks that a training has room for at least, before more text is read at each: with fewer, two of them before the middle
leave no time to stop. Never varied."""
_EVERY = "*"
"""The limit of every area that no other limit names."""


@dataclass(frozen=True)
class Look:
    """What the fine-tune has changed by a step, against the base."""

    step: int
    effects: tuple[Effect, ...]
    """As in a report of `mneme audit --quick`, without the comparison with purposeless changes."""
    chosen_change: float | None
    """Of preference training: mean change of log p(chosen answer) over the watched pairs, nats per answer."""
    displaced: float | None
    """Of preference training: share of the watched pairs whose chosen answer became less likely."""
    seconds: float
    breach: str | None = None
    """Why the policy is broken, in a sentence; None where it is kept."""

    def metrics(self) -> dict[str, float]:
        """What goes to the trainer's logger: points (100 = certain) by area, and what is affected.

        `side_effects/AREA`: change of an area, in points. `side_effects/affected`: areas that are affected.
        `side_effects/largest_loss`: the largest loss of any capability, in points. `side_effects/broken`: 1 where the policy
        is broken. Of preferences: `side_effects/chosen_change`, nats per answer, and `side_effects/displaced`, a share.
        """
        found = {f"side_effects/{effect.area}": 100 * effect.magnitude.value for effect in self.effects}
        losses = [-100 * effect.magnitude.value for effect in self.effects if effect.kind == "capability"]
        found["side_effects/affected"] = float(sum(effect.finding == "affected" for effect in self.effects))
        found["side_effects/largest_loss"] = max([0.0, *losses])
        found["side_effects/broken"] = float(self.breach is not None)
        found["side_effects/seconds"] = self.seconds
        if self.chosen_change is not None and self.displaced is not None:
            found |= {"side_effects/chosen_change": self.chosen_change, "side_effects/displaced": self.displaced}
        return found


Policy = Mapping[str, float | int] | Callable[[Look], str | None]
"""Limits in points, or a function that says in a sentence why a look breaks it, or None."""


def checked_policy(policy: Policy | None, areas: Sequence[str]) -> Policy | None:
    """The policy itself. Raises BadOption for a limit of what is no area and no kind, or a limit that is not above 0."""
    if policy is None or callable(policy):
        return policy
    known = {name.casefold() for name in (*areas, "capability", "behaviour", _EVERY)}
    for name, points in policy.items():
        if name.casefold() not in known:
            raise BadOption(
                f"the policy limits {name!r}, which is no area here: give an area of {', '.join(areas)}, a kind (capability, "
                "behaviour) or '*'."
            )
        if not 0 < points <= 100:
            raise BadOption(f"the policy limits {name} at {points} points: give more than 0 and at most 100.")
    return policy


def breach_of(policy: Policy | None, look: Look, intended: Sequence[str], looks: int) -> str | None:
    """Why the look breaks the policy; None where it does not.

    A limit of an area goes before that of its kind, and that before `*`. It is broken where the area is affected, by as many
    points as the limit or more, for the worse (a capability) or either way (a behaviour), and its q-value is at most 5 % over
    `looks`, the number of looks that the training will get (Bonferroni): the same question is asked at each. What the
    training is for (`intended`) breaks nothing.
    """
    if policy is None:
        return None
    if callable(policy):
        return policy(look)
    limits = {name.casefold(): points for name, points in policy.items()}
    purpose = {name.casefold() for name in intended}
    for effect in look.effects:
        limit = next((limits[name] for name in (effect.area.casefold(), effect.kind, _EVERY) if name in limits), None)
        points = 100 * effect.magnitude.value
        if limit is None or effect.area.casefold() in purpose or (effect.kind == "capability" and points > 0):
            continue
        sure = effect.q_value is not None and effect.q_value <= FALSE_DISCOVERIES / max(looks, 1)
        if effect.finding == "affected" and sure and abs(points) >= limit:
            low, high = 100 * effect.magnitude.low, 100 * effect.magnitude.high
            return f"{effect.area} changed by {points:+.0f} points [{low:+.0f}, {high:+.0f}], the limit is {limit:g}"
    return None


class Budget(NamedTuple):
    """What looks cost and what they may."""

    tokens: int
    """Tokens a look may read."""
    looks: int
    """Looks that fit."""


def budget_for(
    share: float | None, training_seconds: float, token_seconds: float, tokens: int, wanted: int, least: int
) -> Budget:
    """Text and looks for a share of the expected training time; the base is read once beside the looks.

    All `wanted` looks at full text where they fit; else fewer looks, down to `FEWEST_LOOKS`; else less text, down to `least`
    tokens; else fewer looks again, down to none. `share` None: no limit.
    """
    if share is None or (1 + wanted) * tokens * token_seconds <= share * training_seconds:
        return Budget(tokens, wanted)
    affordable = share * training_seconds / token_seconds
    looks = min(wanted, max(FEWEST_LOOKS, math.floor(affordable / tokens) - 1))
    fitting = min(tokens, max(least, math.floor(affordable / (1 + looks))))
    return Budget(fitting, max(0, min(looks, math.floor(affordable / fitting) - 1)))


def is_due(step: int, every: int, last: int) -> bool:
    """Whether `every` steps have passed since the last look: on time, or late where the budget did not allow it on time."""
    return step // every > last // every
