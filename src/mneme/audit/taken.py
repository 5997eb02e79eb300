"""Passages that show what was taken for an area's text."""

from collections.abc import Sequence

import numpy as np

from mneme.predict.matching import Membership
from mneme.report.wording import cut
from mneme.text.packing import Passage

SHOWN = 3
"""Passages an area: enough for a person to see what was taken for it. Never varied."""
_LONGEST = 280
"""Characters of a passage that is shown: three lines."""


def examples_of(passages: Sequence[Passage], membership: Membership, area: int) -> list[str]:
    """Three passages of an area, by the log-odds that they are its text: the likeliest, the middle one and the least likely
    that was still taken, so that a reader sees how far the matching went. All of them where there are fewer."""
    member = np.flatnonzero(membership.member[area])
    order = member[np.argsort(-membership.log_odds[area, member], kind="stable")]
    picked = order[np.unique(np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int))] if len(order) else []
    return [cut(passages[int(one)].text, _LONGEST) for one in picked]
