"""What cheap signals say of every cell, with and without knowing which text belongs to which area.

*Tagged*: the mean of KL(tuned||base), of the change in negative log-likelihood, or of |q|/|h| over the text of the area (of a
behaviour in an area: over the text of the behaviour's genre in it), as the audit itself matches text to areas. *Untagged*: the
mean over all text, the same for every cell of a pair. *Words*: the passages that changed most, their key words, and how many
of these are words of the area: what somebody does who looks at the most changed text.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from mneme.audit.evidence import AuditEvidence
from mneme.audit.reading import Reading
from mneme.audit.surveying import Survey
from mneme.describe.phrases import key_words
from mneme.predict.areas import Area, words_of
from mneme.results.bench import CellScore
from mneme.text.packing import PackedRows

Cell = tuple[str, str]
"""(kind, area) of a cell."""
_MOST_CHANGED = 0.05
_KEY_WORDS = 40


class SurveyedPair(NamedTuple):
    """The survey of a pair with the text read for its areas."""

    survey: Survey
    reading: Reading
    areas: tuple[Area, ...]
    rows: PackedRows
    evidence: AuditEvidence
    """What the audit reads its effects from."""


def signal_scores(seen: SurveyedPair) -> dict[str, dict[Cell, CellScore]]:
    """Predictor -> cell -> score, for each signal tagged and untagged, and for KL by words."""
    table, columns = seen.survey.table, seen.survey.columns
    signals = {
        "KL": columns.kl_tuned_to_base.reshape(-1).astype(np.float64),
        "NLL": table.nll_change(),
        "|q|": columns.relative_change[:, 1:].astype(np.float64).mean(axis=-1).reshape(-1),
    }
    found: dict[str, dict[Cell, CellScore]] = {}
    texts = cell_text(seen)
    for name, values in signals.items():
        total, count = table.per_passage(values), table.per_passage(np.ones(len(values)))
        tagged = {cell: float(total[member].sum() / count[member].sum()) for cell, member in texts.items()}
        whole = float(total.sum() / count.sum())
        found[f"{name}, tagged"] = {cell: _scored(name, cell, value) for cell, value in tagged.items()}
        found[f"{name}, untagged"] = {cell: _scored(name, cell, whole) for cell in texts}
    kl = table.per_passage(signals["KL"]) / np.maximum(table.per_passage(np.ones(len(table.token))), 1.0)
    found["KL, words"] = words_scores(seen, kl)
    return found


def _scored(name: str, cell: Cell, value: float) -> CellScore:
    """Likelihood that fell says worse or less; the other signals have no direction."""
    sign = int(-np.sign(value)) if name == "NLL" and cell[0] == "capability" else 0
    return CellScore(size=abs(value), sign=sign)  # type: ignore[arg-type]


def cell_text(seen: SurveyedPair) -> dict[Cell, Bool[ndarray, " passage"]]:
    """Passages of every cell that has predicted tokens; a behaviour's cell without text of its own has the behaviour's."""
    has_tokens = np.zeros(seen.survey.table.n_passages, dtype=bool)
    has_tokens[seen.survey.table.passage] = True
    texts: dict[Cell, Bool[ndarray, " passage"]] = {}
    member = seen.reading.membership.member
    genres = [behaviour.text.member | behaviour.text.other for behaviour in seen.reading.behaviours.values()]
    genre = genres[0] if genres else np.ones(len(has_tokens), dtype=bool)
    for index, area in enumerate(seen.areas):
        if area.kind != "capability":
            continue
        own = member[index] & has_tokens
        texts["capability", area.name] = own if own.any() else has_tokens
        inside = own & genre
        texts["behaviour", area.name] = inside if inside.any() else genre & has_tokens
    return texts


def words_scores(seen: SurveyedPair, change: Float[ndarray, " passage"]) -> dict[Cell, CellScore]:
    """Key words of the twentieth of all passages that changed most against the rest, matched to the areas."""
    texts = [passage.text for passage in seen.rows.passages]
    count = max(5, int(_MOST_CHANGED * len(texts)))
    order = np.argsort(-change, kind="stable")
    words = key_words([texts[i] for i in order[:count]], [texts[i] for i in order[count : 10 * count]], limit=_KEY_WORDS)
    return matched(seen.areas, [(1.0, [word for word, _ in words])])


def matched(areas: tuple[Area, ...], described: list[tuple[float, list[str]]]) -> dict[Cell, CellScore]:
    """Match weighted descriptions (lists of words) to areas by name and keywords: sum of weight x share of the words that
    are the area's. A behaviour's cells all take the behaviour's match: a description names no area within it."""
    scores = {}
    for area in areas:
        own = {stem for phrase in (area.name, *area.keywords) for stem in words_of(phrase)}
        scores[area.kind, area.name] = sum(
            weight * np.mean([bool(own & set(words_of(word))) for word in words]) for weight, words in described if words
        )
    behaviour = max((score for (kind, _), score in scores.items() if kind == "behaviour"), default=0.0)
    found: dict[Cell, CellScore] = {}
    for area in areas:
        if area.kind == "capability":
            found["capability", area.name] = CellScore(size=float(scores["capability", area.name]))
            found["behaviour", area.name] = CellScore(size=float(behaviour))
    return found
