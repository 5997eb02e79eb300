"""What the text alone says before any model has read it: words, passages of every area, and where manners show."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mneme.activations.corpus import Rows
from mneme.diff.screen import Screened
from mneme.errors import EmptyMask
from mneme.predict.areas import Area, Membership, Words, area_keywords, count_words, match_areas
from mneme.predict.manner import MannerText, manner_change, manner_places, manner_text
from mneme.results import Estimate

FEW = 5
"""Passages below which an area, or a manner in an area, is absent."""


class Manner(NamedTuple):
    """A behaviour's text, and where it shows."""

    text: MannerText
    place: Int[ndarray, " place"]
    """Index of every predicted token that shows the manner or its opposite."""
    passage: Int[ndarray, " place"]


class Reading(NamedTuple):
    """The text, read for all areas."""

    words: Words
    membership: Membership
    manners: dict[int, Manner]
    """Index of a behaviour among the areas -> its text."""
    silent: dict[int, str]
    """Index of a behaviour -> why the text says nothing about it."""

    def watched(self) -> list[Int[ndarray, " type"]]:
        """Token types whose probability the screen keeps: marks and opposite marks of every manner, in order."""
        return [types for manner in self.manners.values() for types in (manner.text.marks, manner.text.opposite)]

    def change(
        self, screened: Screened, index: int, within: Bool[ndarray, " passage"] | None = None, *, seed: int
    ) -> Estimate:
        """Change of one behaviour, over all its places or over those in the passages `within`.

        Errors: EmptyMask where fewer than 5 of them show the manner or its opposite.
        """
        manner = self.manners[index]
        inside = np.ones(len(manner.place), dtype=bool) if within is None else within[manner.passage]
        place, passage = manner.place[inside], manner.passage[inside]
        first = 2 * list(self.manners).index(index)
        columns = slice(first, first + 2)
        base, tuned = (_places(side, place, columns) for side in (screened.watched_base, screened.watched_tuned))
        found = manner_change(base, tuned, passage, seed=seed)
        if found.n < FEW:
            raise EmptyMask(f"{found.n} passages show the manner or its opposite, at least {FEW} are needed")
        return found


def read_text(rows: Rows, areas: tuple[Area, ...]) -> Reading:
    """Count the words, match the areas, find where the behaviours among them show."""
    words = count_words([passage.text for passage in rows.passages])
    membership = match_areas(words, areas)
    token = rows.ids[:, 1:].long().numpy().reshape(-1)
    passage = rows.passage[:, 1:].long().numpy().reshape(-1)
    manners: dict[int, Manner] = {}
    silent: dict[int, str] = {}
    for index, area in enumerate(areas):
        if area.kind != "behaviour":
            continue
        try:
            text = manner_text(token, passage, words, membership.member[index], area_keywords(words, area))
        except EmptyMask as reason:
            silent[index] = str(reason)
            continue
        place = manner_places(text, token, passage)
        manners[index] = Manner(text, place, passage[place])
    return Reading(words, membership, manners, silent)


def _places(watched: Float[ndarray, "row prediction watched"], place: Int[ndarray, " place"], columns: slice) -> ndarray:
    return np.asarray(watched.reshape(-1, watched.shape[-1])[place, columns], dtype=np.float64)
