"""What both models said, put together as the evidence that effects are made of."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.audit.asking import Answered
from mneme.audit.evidence import AuditEvidence, BehaviourSeen, SampledTokens
from mneme.audit.reading import Reading, Shown
from mneme.audit.words import WordReading


def evidence_of(
    words: WordReading,
    reading: Reading,
    shown: Shown,
    answered: Mapping[int, Answered],
    continued: Mapping[int, Float[ndarray, "model cut"]],
) -> AuditEvidence:
    """The evidence; `null` is added where it was read. Types and documents are numbered anew, in their order, so that only
    those are named that an item is of."""
    layout, read, found = words.layout, words.read, words.evidence()
    types, type_ = np.unique(found.type, return_inverse=True)
    behaviours = {}
    for number, (index, behaviour) in enumerate(reading.behaviours.items()):
        where = np.searchsorted(shown.place, behaviour.place)
        behaviours[index] = BehaviourSeen(
            passage=behaviour.passage,
            mass=shown.mass[:, where, 2 * number : 2 * number + 2],
            text=behaviour.text.member | behaviour.text.other,
        )
    return AuditEvidence(
        words=found._replace(type=type_, document=np.unique(found.document, return_inverse=True)[1]),
        types=tuple(layout.plan.table.types[one] for one in types),
        sampled=SampledTokens(
            passage=layout.place_passage,
            document=layout.plan.sample[:, 0],
            seen=read["seen"],
            kl_tuned_to_base=read["kl_tuned_to_base"],
            kl_base_to_tuned=read["kl_base_to_tuned"],
            nll=read["nll"],
            relative=read["relative"],
        ),
        member=reading.membership.member,
        seeds=reading.membership.seeds,
        chance=reading.membership.chance,
        behaviours=behaviours,
        silent=dict(reading.silent),
        answered={index: one.shown for index, one in answered.items() if one.follows},
        unfollowed=frozenset(index for index, one in answered.items() if not one.follows),
        continued=dict(continued),
    )
