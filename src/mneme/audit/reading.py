"""What the text alone says before any model has read it: words, passages of every area, and where behaviours show."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mneme.errors import EmptyMask
from mneme.predict.areas import Area, Words, count_words
from mneme.predict.behaviour import BehaviourText, behaviour_places, behaviour_text
from mneme.predict.matching import Membership, area_keywords, match_areas
from mneme.text.packing import PackedRows, document_pieces


class Behaviour(NamedTuple):
    """A behaviour's text, and where it shows."""

    text: BehaviourText
    place: Int[ndarray, " place"]
    """Index in the packed text of the first token of every passage that shows the behaviour or its opposite, ascending."""
    passage: Int[ndarray, " place"]


class Shown(NamedTuple):
    """What the models expect where behaviours show, each document read alone."""

    place: Int[ndarray, " place"]
    """Places of all behaviours, ascending, each once."""
    mass: Float[ndarray, "model place watched"]
    """Probability of each watched set of token types (`Reading.watched`)."""


class Reading(NamedTuple):
    """The text, read for all areas."""

    words: Words
    membership: Membership
    behaviours: dict[int, Behaviour]
    """Index of a behaviour among the areas -> its text."""
    silent: dict[int, str]
    """Index of a behaviour -> why the text says nothing about it."""
    pieces: Int[ndarray, "piece 2"]
    """Documents in the packed text (`document_pieces`), none longer than a row."""
    whole: tuple[Words, Membership] | None = None
    """The same of all passages of the source, where more was looked at than is read."""

    def without(self, asked: Collection[int]) -> "Reading":
        """The same where the text of these behaviours is not read, because they are asked about by paired answers."""
        kept = {index: behaviour for index, behaviour in self.behaviours.items() if index not in asked}
        return self._replace(behaviours=kept)

    def watched(self) -> list[Int[ndarray, " type"]]:
        """Token types whose probability the survey keeps: indicators and opposite indicators of every behaviour, in order."""
        return [
            types for behaviour in self.behaviours.values() for types in (behaviour.text.indicators, behaviour.text.opposite)
        ]

    def places(self) -> Int[ndarray, " place"]:
        """Places of all behaviours, ascending, each once."""
        every = [behaviour.place for behaviour in self.behaviours.values()]
        return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *every]))


def read_text(rows: PackedRows, areas: tuple[Area, ...], beside: Sequence[str] = (), *, shown: bool = True) -> Reading:
    """Count the words, match the areas, find where the behaviours among them show (only with `shown`). `beside`: more passages
    of the same source, which no model reads; the areas are matched in all."""
    n = len(rows.passages)
    words = count_words([*(passage.text for passage in rows.passages), *beside])
    membership = match_areas(words, areas)
    whole = (words, membership) if beside else None
    words, membership = words.among(n), membership.among(n)
    token = rows.ids.long().numpy().reshape(-1)
    passage = rows.passage.long().numpy().reshape(-1)
    pieces = document_pieces(rows, rows.ids.shape[1])
    predicted = np.ones(len(token), dtype=bool)
    predicted[pieces[:, 0]] = False
    behaviours: dict[int, Behaviour] = {}
    silent: dict[int, str] = {}
    for index, area in enumerate(areas):
        if area.kind != "behaviour" or not shown:
            continue
        try:
            text = behaviour_text(token, passage, words, membership.member[index], area_keywords(words, area))
        except EmptyMask as reason:
            silent[index] = str(reason)
            continue
        place = behaviour_places(text, token, passage, predicted)
        behaviours[index] = Behaviour(text, place, passage[place])
    return Reading(words=words, membership=membership, behaviours=behaviours, silent=silent, pieces=pieces, whole=whole)
