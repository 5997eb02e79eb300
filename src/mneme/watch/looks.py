"""What a look at a model in training says, when a policy is broken, and how many looks a share of the training pays for."""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mneme.errors import BadPolicy
from mneme.gate.areas import GatedRun, gated_area
from mneme.gate.checks import checked, waived
from mneme.gate.policy import Policy, policy_of, read_policy
from mneme.results import Effect

FEWEST_LOOKS = 6
"""Looks that a training has room for at least, before more text is read at each: with fewer, two of them before the middle
leave no time to stop. Never varied."""


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
        losses = [100 * -effect.magnitude.value for effect in self.effects if effect.kind == "capability"]
        found["side_effects/affected"] = float(sum(effect.finding == "affected" for effect in self.effects))
        found["side_effects/largest_loss"] = max([0.0, *losses])
        found["side_effects/broken"] = float(self.breach is not None)
        found["side_effects/seconds"] = self.seconds
        if self.chosen_change is not None and self.displaced is not None:
            found |= {"side_effects/chosen_change": self.chosen_change, "side_effects/displaced": self.displaced}
        return found


Judge = Policy | Callable[[Look], str | None]
"""A policy of `mneme gate`, or a function that says in a sentence why a look breaks it, or None."""


def judge_of(policy: object) -> Judge | None:
    """The policy that was given: a file, what stands in one, a `Policy`, a function, or None.

    Raises BadPolicy for what is none of these, or has a baseline: a training has no approved run to stand beside.
    """
    if policy is None or isinstance(policy, Policy):
        found = policy
    elif isinstance(policy, str | Path):
        found = read_policy(Path(policy))[0]
    elif isinstance(policy, Mapping):
        found = policy_of(policy, "policy=")
    elif callable(policy):
        return policy
    else:
        raise BadPolicy(
            f"policy= is a {type(policy).__name__}: give a policy file, what stands in one, or a function of a look."
        )
    if found is not None and found.baseline is not None:
        raise BadPolicy("The policy has a baseline, which a training is not compared with: give one without, or base=.")
    return found


def breach_of(judge: Judge | None, look: Look, areas: Sequence[str], intended: Sequence[str], looks: int) -> str | None:
    """Why the look breaks the policy; None where it does not.

    The limits and what breaks them are those of `mneme gate`, with one difference: an area's false-discovery rate has to hold
    over `looks`, the number of looks that the training will get (Bonferroni), as the same question is asked at each. What is
    not told breaks nothing, nor does what the training is for (`intended`) unless a rule names it. `areas`: all that are asked
    about.

    Raises BadPolicy where a rule names an area that there is not.
    """
    if judge is None:
        return None
    if not isinstance(judge, Policy):
        return judge(look)
    purpose = {name.casefold() for name in intended}
    said = {effect.area for effect in look.effects}
    subjects = []
    for effect in look.effects:
        area = gated_area(effect)
        sure = None if area.p_value is None else min(1.0, area.p_value * max(looks, 1))
        subjects.append(replace(area, p_value=sure, intended=area.area.casefold() in purpose))
    run = GatedRun(areas=tuple(subjects), absent={area: "nothing was read of it" for area in areas if area not in said})
    checks, _ = waived(checked(judge, run), judge.waivers, datetime.date.today())
    broken = [check for check in checks if check.outcome == "fail"]
    return f"{broken[0].area}: {broken[0].reason.rstrip('.')}, allowed: {broken[0].allowed}" if broken else None


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


def told_of(budget: Budget, share: float | None, wanted: int, tokens: int) -> str | None:
    """What a user is told where there is less than the `wanted` looks at `tokens` tokens; None where there is not."""
    if share is None or (budget.looks >= wanted and budget.tokens >= tokens):
        return None
    if budget.looks == 0:
        return (
            f"Nothing is looked at: in {share:.0%} of the time that this training is expected to take not one look fits. "
            "Give mneme.SideEffects a larger share=, or share=None for no limit."
        )
    return (
        f"Looks keep to {share:.0%} of the training time: {budget.looks} of the {wanted} that were asked for, "
        f"of {budget.tokens:,} of {tokens:,} tokens each. share=None sets no limit."
    )


def is_due(step: int, every: int, last: int) -> bool:
    """Whether `every` steps have passed since the last look: on time, or late where the budget did not allow it on time."""
    return step // every > last // every
