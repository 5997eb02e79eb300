"""What is read of one model while it trains, and the effects that two such readings make: an audit whose base is read once.

An audit reads both models at every place. Here the places are laid out once (`plan_look`), the base is read once and kept as
numbers (`read_side`), and every look reads the live model alone: half the cost of a quick audit, and no second model in
memory.
Effects, intervals and findings are those of the audit (`mneme.audit.effects`), without the purposeless changes, which
would overwrite the weights that train, and without continuations of cut texts, which cost more than all the rest.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from mneme.audit.asking import Answered
from mneme.audit.choosing import text_to_read
from mneme.audit.effects import area_effects, findings_of, ranked
from mneme.audit.gathering import evidence_of
from mneme.audit.inputs import check_intended
from mneme.audit.reading import Reading
from mneme.audit.surveying import behaviour_stages, behaviour_texts, read_behaviour_stage, shown_of
from mneme.audit.words import WordReading
from mneme.audit.work import LaidOut, find_layout
from mneme.models.architecture import Parts
from mneme.models.pair import ModelPair
from mneme.predict.areas import Area, default_areas, read_areas
from mneme.predict.calibration import shipped_calibration
from mneme.predict.item_reading import item_log_p, items_alone, join_batches, read_items
from mneme.predict.probes import probability_shown, read_asked, shares_beginnings
from mneme.predict.understood import follows_prompts, strangers
from mneme.results import Effect
from mneme.text.documents import read_corpus
from mneme.text.packing import PackedRows

Arrays = dict[str, np.ndarray]
_NO_PLACE: Arrays = {
    "seen": np.zeros(0, dtype=bool),
    "kl_tuned_to_base": np.zeros(0),
    "kl_base_to_tuned": np.zeros(0),
    "nll": np.zeros((2, 0)),
    "relative": np.zeros(0),
}
"""Of the sampled tokens, of which a look reads none."""
LEFT_OUT = "it did not fit into the share of training time that looks may take"


class LookPlan(NamedTuple):
    """What every look reads."""

    areas: tuple[Area, ...]
    rows: PackedRows
    laid: LaidOut
    longest: int | None

    def word_tokens(self) -> int:
        """Tokens of text that are read for own words."""
        return self.laid.layout.plan.all_tokens()

    def behaviour_tokens(self) -> dict[int, int]:
        """Index of a behaviour -> tokens that are read for it; text of several behaviours is counted for each."""
        asked = {index: sum(len(one.ids) for one in group) for index, group in self.laid.asked.items()}
        reading = self.laid.reading
        for index in reading.behaviours:
            asked[index] = int(behaviour_texts(_only(reading, {index})).length.sum())
        return asked

    def tokens(self) -> int:
        """Tokens that one look reads."""
        asked = sum(len(one.ids) for group in self.laid.asked.values() for one in group)
        reading = self.laid.reading
        shown = int(behaviour_texts(reading).length.sum()) if reading.behaviours and len(reading.places()) else 0
        return self.word_tokens() + asked + shown


def plan_look(
    corpus: str | Path,
    areas: str | Path | None,
    intended: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    longest: int | None,
    tokens: int,
    seed: int,
) -> LookPlan:
    """Lay out own words in at most `tokens` tokens of the text, and eight paired answers a behaviour, as `mneme audit --quick`
    does. `longest`: positions that the model allows.

    Errors: those of `mneme.audit` about text and areas.
    """
    known = read_areas(Path(areas)) if areas else default_areas()
    check_intended(intended, known)
    documents = read_corpus(corpus, tokenizer=tokenizer)
    documents, rows = text_to_read(documents, tokenizer, known, longest, tokens)
    laid = find_layout(documents, rows, known, tokenizer, longest=longest, seed=seed, quick=True)
    return LookPlan(known, rows, _items_only(laid, tokens, longest), longest)


def within(plan: LookPlan, tokens: int) -> LookPlan:
    """The same in at most about `tokens` tokens a look: behaviours in the order of the list as far as they fit into half of
    that, then text. Documents and behaviours are left out whole; one document is always read."""
    if plan.tokens() <= tokens:
        return plan
    kept: set[int] = set()
    spent = 0
    for index, cost in plan.behaviour_tokens().items():
        if spent + cost <= tokens // 2:
            kept.add(index)
            spent += cost
    asked = {index: group for index, group in plan.laid.asked.items() if index in kept}
    laid = plan.laid._replace(asked=asked, reading=_only(plan.laid.reading, kept))
    return plan._replace(laid=_items_only(laid, max(tokens - spent, 1), plan.longest))


def _only(reading: Reading, kept: set[int]) -> Reading:
    """The reading with the text of these behaviours alone; of the others it is said why they are silent."""
    silent = {index: LEFT_OUT for index in reading.behaviours if index not in kept}
    inside = {index: own for index, own in reading.behaviours.items() if index in kept}
    return reading._replace(behaviours=inside, silent=silent | reading.silent)


def _items_only(laid: LaidOut, tokens: int, longest: int | None) -> LaidOut:
    """Own words without the sampled tokens of passages, which verdicts do not need."""
    items, some = items_alone(laid.layout.plan, laid.layout.items, tokens, longest)
    nowhere = np.zeros(0, dtype=np.int64)
    return laid._replace(layout=laid.layout._replace(plan=some, items=items, place_passage=nowhere))


class SideRead(NamedTuple):
    """What one model says at every place of a plan."""

    words: tuple[Float[np.ndarray, "row column"], ...]
    """`item_log_p` of every batch."""
    answers: dict[int, Arrays]
    shown: tuple[Arrays, ...]
    reading: Reading
    """The text of behaviours that was read."""
    followed: frozenset[int]
    """Areas whose prompts the base follows."""
    seconds: float


def as_pair(parts: Parts, tokenizer: PreTrainedTokenizerBase) -> ModelPair:
    """One model where readers take a pair: they are told to read one side."""
    model: Any = parts.model
    config = model.config.get_text_config()
    return ModelPair(
        tokenizer=tokenizer,
        base_name="",
        tuned_name="",
        base_folder=Path(),
        tuned_folder=Path(),
        adapter=False,
        architecture=type(model).__name__,
        n_layers=len(parts.blocks),
        width=parts.width,
        vocab_size=int(model.get_output_embeddings().weight.shape[0]),
        n_parameters=sum(weight.numel() for weight in model.parameters()),
        max_positions=getattr(config, "max_position_embeddings", None),
        base_parts=parts,
        tuned_parts=parts,
    )


@torch.no_grad()
def read_side(pair: ModelPair, plan: LookPlan, base: SideRead | None = None) -> SideRead:
    """One model (`as_pair`, in eval mode) at every place of the plan. Without `base` it is the base: it is also asked behind
    other prompts, which says whether it follows them; text of behaviours that it can be asked about is not read."""
    started = time.monotonic()
    laid, reading = plan.laid, plan.laid.reading if base is None else base.reading
    words = tuple(item_log_p(pair, laid.layout.plan, batch, "tuned") for batch in range(len(laid.layout.plan.batches)))
    forest = shares_beginnings(pair, [one for group in laid.asked.values() for one in group])
    answers, follows = {}, set[int]()
    for index, group in laid.asked.items():
        answers[index] = read_asked(pair, group, forest=forest, sides=("tuned",))
        if base is None:
            own, moved = zip(*strangers(group), strict=True)
            elsewhere = read_asked(pair, moved, forest=forest, sides=("tuned",))["log_p"][0]
            if follows_prompts(answers[index]["log_p"][0][list(own)], elsewhere, [one.probe for one in moved]):
                follows.add(index)
    if base is None:
        reading = reading.without(sorted(follows))
    stages = behaviour_stages(reading)
    shown = tuple(read_behaviour_stage(pair, plan.rows, reading, texts, ("tuned",)) for texts in stages)
    followed = frozenset(follows) if base is None else base.followed
    spent = time.monotonic() - started
    return SideRead(words=words, answers=answers, shown=shown, reading=reading, followed=followed, seconds=spent)


def effects_between(plan: LookPlan, base: SideRead, tuned: SideRead) -> list[Effect]:
    """Every area about which something can be said, as an audit finds it, most probable first.

    Law *identity*: a model and itself change nothing. *Antisymmetry*: swapped, the signs flip.
    """
    laid = plan.laid
    batches = (
        read_items(laid.layout.plan, number, *both) for number, both in enumerate(zip(base.words, tuned.words, strict=True))
    )
    read = join_batches(batches, len(laid.layout.plan.item_word), 0)
    words = WordReading(laid.layout, _NO_PLACE | read)
    answered = {}
    for index, group in laid.asked.items():
        one, other = base.answers[index], tuned.answers[index]
        read = {"log_p": np.concatenate([one["log_p"], other["log_p"]]), "length": one["length"]}
        answered[index] = Answered(probability_shown(group, read)[0], index in base.followed)
    stages = [
        {"place": one["place"], "mass": np.concatenate([one["mass"], other["mass"]])}
        for one, other in zip(base.shown, tuned.shown, strict=True)
    ]
    evidence = evidence_of(words, base.reading, shown_of(base.reading, stages), answered, {})
    return ranked(findings_of(area_effects(evidence, plan.areas, shipped_calibration()), []))
