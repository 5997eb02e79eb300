"""Step 8 of the audit: each chosen latent as a record with words, scores and examples from both models."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from mneme.audit.dictionary import LayerCodes, change_directions
from mneme.audit.latents import Firings, likelihood_change
from mneme.describe.description import Description, sample_firings
from mneme.describe.lens import promoted_tokens
from mneme.diff.survey import SurveyColumns
from mneme.models.pair import ModelPair
from mneme.predict.areas import Area
from mneme.predict.matching import Membership
from mneme.results import Estimate, Latent, TokenExample

BEFORE, AFTER = 20, 8
"""A context: so many tokens before and after the firing, within its passage; about a sentence. Round numbers that were never
varied."""
_CONTEXTS = 24
"""Contexts that a latent is described from, and as many to score on: with as many ordinary ones that is 5 requests to an
endpoint. A round number that was never varied."""
_BACKGROUND = 400
"""Ordinary contexts that words are compared with; 400 hold a word of 1 % four times. A round number that was never varied."""
_EXAMPLES = 6
"""Contexts of a latent on the page. A round number that was never varied."""
_FIRES_AT, _AREAS = 4, 3
"""Tokens on which it fires most often, and areas that it prefers, in its description. Round numbers that were never varied."""
_PREFERENCE, _LEAST_SHARE = 2, 0.1
"""A latent prefers an area that holds so many times its usual share of the latent's energy, and a tenth of it at least: a word
for readers, which decides nothing. Never varied."""
_DIGITS = 3
"""Of activations and changes in the examples: what a tooltip shows."""
_TINY = 1e-30
"""Far below the energy of any latent that fires: keeps 0 / 0 from being computed."""
_LABELS: tuple[tuple[float, "Label"], ...] = ((0.1, "base-only"), (0.4, "suppressed"), (0.6, "shared"), (0.9, "amplified"))
"""Upper bounds of the relative norm, above the last: tuned-only. 0.1, 0.4, 0.6 and 0.9 are the bounds of Minder et al. 2025
(arXiv
2504.02922) for latents of one model and shared ones; between them the names are ours."""

Label = Literal["shared", "amplified", "suppressed", "tuned-only", "base-only", "mean"]
Describe = Callable[[list[str], list[str], list[str], list[str], list[str], list[str]], Description]


class Text(NamedTuple):
    """Everything that turns positions into words."""

    ids: Int[ndarray, "row seq"]
    passage: Int[ndarray, "row seq"]
    tokenizer: PreTrainedTokenizerBase
    columns: SurveyColumns

    def span(self, row: int, place: int, before: int = BEFORE, after: int = AFTER) -> range:
        """Places of the context around `place`, within its passage and row."""
        inside = np.flatnonzero(self.passage[row] == self.passage[row, place])
        return range(max(int(inside[0]), place - before), min(int(inside[-1]), place + after) + 1)

    def words(self, row: int, place: int) -> str:
        """The context as text."""
        return str(self.tokenizer.decode(self.ids[row, list(self.span(row, place))], skip_special_tokens=True))

    def token(self, index: int) -> str:
        """One token as text."""
        return str(self.tokenizer.decode([index]))


class Chosen(NamedTuple):
    """A latent to report, with what its ablation showed."""

    latent: int
    causal: Estimate | None
    causal_q: float | None


class Context(NamedTuple):
    """What the context dictionary (rotated crosscoder) says of the nearest latent of both models; None where not fitted."""

    nu_error: Float[ndarray, " latent"]
    nu_reconstruction: Float[ndarray, " latent"]
    relative_norm: Float[ndarray, " latent"]


def background_contexts(text: Text, rows: Int[ndarray, " held_out"], seed: int) -> list[str]:
    """Contexts at random held-out places."""
    generator = np.random.default_rng(seed)
    seq = text.ids.shape[1]
    where = generator.integers(0, len(rows) * seq, size=_BACKGROUND)
    return [text.words(int(rows[i // seq]), int(i % seq)) for i in where]


def latent_id(layer: int, latent: int) -> str:
    """`L2.17`: latent 17 of the dictionary after block 2."""
    return f"L{layer}.{latent}"


def record_latent(
    pair: ModelPair,
    codes: LayerCodes,
    firings: Firings,
    text: Text,
    chosen: Chosen,
    areas: tuple[Area, ...],
    membership: Membership,
    background: list[str],
    context: Context | None,
    describe: Describe,
    *,
    seed: int,
) -> Latent:
    """One latent in words and numbers. Words and score come from disjoint passages."""
    own = np.flatnonzero(firings.latent == chosen.latent)
    shown, held_out = sample_firings(firings.value[own], firings.passage[own], limit=_CONTEXTS, seed=seed)
    places = [(int(firings.row[i]), int(firings.place[i])) for i in own]
    direction = change_directions(codes.dictionary)[chosen.latent]
    with pair.using("tuned") as parts:
        up, down = promoted_tokens(parts, direction.to(parts.device))
    promoted, suppressed = [text.token(i) for i in up], [text.token(i) for i in down]
    fires_at = _most_common([text.token(int(text.ids[places[i]])) for i in range(len(own))])
    said = describe(
        [text.words(*places[i]) for i in shown],
        [text.words(*places[i]) for i in held_out],
        background,
        promoted,
        suppressed,
        fires_at,
    )
    column = {name: float(values[chosen.latent]) for name, values in codes.scores.items()}
    nu_error, nu_reconstruction, norm = _scaling(column, context, chosen.latent)
    preferred = _preferred(firings, chosen.latent, areas, membership)
    return Latent(
        id=latent_id(codes.layer, chosen.latent),
        layer=codes.layer,
        description=(f"in text of {' and '.join(preferred)}: " if preferred else "") + said.text,
        change_energy=column["change_energy"],
        causal_share=chosen.causal,
        causal_q_value=chosen.causal_q,
        likelihood_change=likelihood_change(firings, chosen.latent, seed=seed),
        firing_rate=column["firing_rate"],
        relative_norm=norm,
        cosine=column["cosine"],
        nu_error=nu_error,
        nu_reconstruction=nu_reconstruction,
        label=label_of(norm),
        key_phrases=said.key_words,
        promoted=promoted,
        suppressed=suppressed,
        description_score=said.score,
        areas=preferred,
        examples=_examples(text, firings, own[np.concatenate([shown, held_out])[:_EXAMPLES]], chosen.latent),
    )


def _scaling(column: dict[str, float], context: Context | None, latent: int) -> tuple[float | None, float | None, float]:
    """nu and the norm that the label is read from: the dictionary's own, else those of the context dictionary."""
    if "nu_error" in column:
        return column["nu_error"], column["nu_reconstruction"], column["relative_norm"]
    if context is None:
        return None, None, column["relative_norm"]
    return (
        float(context.nu_error[latent]),
        float(context.nu_reconstruction[latent]),
        float(context.relative_norm[latent]),
    )


def norm_difference(relative_norm: float) -> float:
    """1/2 (1 + (|d_tuned| - |d_base|) / the larger), of Minder et al. 2025 (arXiv 2504.02922), from |d_tuned| / (|d_base| +
    |d_tuned|): 0 base alone, 0.5 alike, 1 tuned alone."""
    smaller, larger = sorted((relative_norm, 1.0 - relative_norm))
    gap = 1.0 - smaller / larger
    return 0.5 * (1.0 + gap if relative_norm > 0.5 else 1.0 - gap)


def label_of(relative_norm: float) -> Label:
    """In words: the norm difference below 0.1 base-only, to 0.4 suppressed, to 0.6 shared, to 0.9 amplified, above tuned-only.

    The cuts for shared and exclusive latents are those of Minder et al. 2025, who make them on this quantity and not on the
    relative norm that is shown: 0.1 and 0.9 of it are 1/6 and 5/6 of the relative norm."""
    bounds: tuple[tuple[float, Label], ...] = ((0.1, "base-only"), (0.4, "suppressed"), (0.6, "shared"), (0.9, "amplified"))
    return next((name for bound, name in bounds if norm_difference(relative_norm) < bound), "tuned-only")


def _most_common(tokens: list[str]) -> list[str]:
    counts: dict[str, int] = {}
    for token in tokens:
        counts[token] = counts.get(token, 0) + 1
    return sorted(counts, key=lambda token: (-counts[token], token))[:_FIRES_AT]


def _preferred(firings: Firings, latent: int, areas: tuple[Area, ...], membership: Membership) -> list[str]:
    """Areas that hold at least twice their usual share of the latent's energy and at least a tenth of it."""
    own = firings.latent == latent
    energy = firings.value[own] ** 2
    found = []
    for index, area in enumerate(areas):
        member: Bool[ndarray, " passage"] = membership.member[index]
        share = float((energy * member[firings.passage[own]]).sum() / max(energy.sum(), _TINY))
        if share >= max(_LEAST_SHARE, _PREFERENCE * float(member.mean())):
            found.append((share / max(float(member.mean()), _TINY), area.name))
    return [name for _, name in sorted(found, reverse=True)[:_AREAS]]


def _examples(text: Text, firings: Firings, which: Int[ndarray, " example"], latent: int) -> list[TokenExample]:
    """Token-highlighted contexts, strongest first."""
    code = {}
    for i in np.flatnonzero((firings.latent == latent) & np.isin(firings.row, firings.row[which])):
        code[(int(firings.row[i]), int(firings.place[i]))] = float(firings.value[i])
    order = which[np.argsort(-firings.value[which], kind="stable")]
    return [_example(text, code, int(firings.row[i]), int(firings.place[i])) for i in order]


def _example(text: Text, code: dict[tuple[int, int], float], row: int, place: int) -> TokenExample:
    span = text.span(row, place)
    columns = text.columns
    gain = [0.0 if at == 0 else float(columns.logp_tuned[row, at - 1] - columns.logp_base[row, at - 1]) for at in span]
    last = min(place, columns.choice_base.shape[1] - 1)
    return TokenExample(
        tokens=[text.token(int(text.ids[row, at])) for at in span],
        activations=[round(code.get((row, at), 0.0), _DIGITS) for at in span],
        likelihood_change=[round(value, _DIGITS) for value in gain],
        base_prediction=text.token(int(columns.choice_base[row, last])),
        tuned_prediction=text.token(int(columns.choice_tuned[row, last])),
    )
