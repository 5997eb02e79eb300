"""The work of `mneme unlearn` between checked inputs and written results: train, read before and after, attack, save."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from mneme.errors import BadRun, UnlearningFailed, one_line
from mneme.models.architecture import Parts
from mneme.models.fitting import Losses
from mneme.models.pair import load_pair
from mneme.models.weights import weight_changes
from mneme.options import Track
from mneme.results.unlearn import Relearning, WeightChange
from mneme.runs import RunFolder
from mneme.text.documents import Documents
from mneme.text.pieces import Pieces
from mneme.unlearn.objective import freeze, objective
from mneme.unlearn.recall import TokenReading, change_in_nats, kept, read_pieces, telling_types
from mneme.unlearn.relearning import STEPS, relearn
from mneme.unlearn.settings import DEFAULT_WIDTH, DEFAULTS, UnlearnSettings
from mneme.unlearn.training import minimise, prepare, signature

MEASURED_TOKENS = 2048
"""Before and after are read on a sample of so many tokens of each set, and told with an interval over texts. Twice as many
were 45 of the 64 CPU seconds before the first step for a model of 135 M parameters (docs/log.md, work that is kept)."""
_FEWEST_DOCUMENTS = 16
"""An interval over fewer texts says little, so that long ones are read past `MEASURED_TOKENS`."""


class TextSet(NamedTuple):
    """One of the two sets, as text and as pieces."""

    documents: Documents
    pieces: Pieces


class Attack(NamedTuple):
    """One relearning attack: what it trains on."""

    kind: Literal["related", "unrelated"]
    pieces: Pieces


def some(pieces: Pieces, documents: Int[ndarray, " document"]) -> Pieces:
    """The pieces of these documents."""
    return pieces.select(np.flatnonzero(np.isin(pieces.document, documents)))


def measured(pieces: Pieces, seed: int) -> Pieces:
    """A sample of documents drawn by `seed`, one piece of each and then, where tokens are left, another."""
    documents, counts = np.unique(pieces.document, return_counts=True)
    rng = np.random.default_rng([seed, 4])
    place = dict(zip(documents.tolist(), rng.permutation(len(documents)).tolist(), strict=True))
    turns = np.concatenate([rng.permutation(int(count)) for count in counts])  # pieces lie document after document
    order = sorted(range(len(pieces)), key=lambda i: (int(turns[i]), place[int(pieces.document[i])]))
    tokens = np.cumsum([len(pieces.texts[i].ids) for i in order])
    enough = max(int(np.searchsorted(tokens, MEASURED_TOKENS)) + 1, _FEWEST_DOCUMENTS)
    return pieces.select(np.sort(order[:enough]))


def plan_attacks(forget: Pieces, retain: Pieces, documents: int, seed: int) -> tuple[list[Attack], Pieces]:
    """Attacks with `documents` texts of either set, drawn at random, and the forget texts that neither sees."""
    own = np.random.default_rng([seed, 2]).permutation(np.unique(forget.document))
    others = np.random.default_rng([seed, 3]).permutation(np.unique(retain.document))
    attacks = [
        Attack("related", some(forget, own[:documents])),
        Attack("unrelated", some(retain, others[:documents])),
    ]
    return attacks, some(forget, own[documents:])


@dataclass
class UnlearnJob:
    """One unlearning run in progress."""

    parts: Parts
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    """Of the model as it was."""
    name: str
    """As the caller named it."""
    settings: UnlearnSettings
    forget: TextSet
    retain: TextSet
    relearn_documents: int
    """Texts of each relearning attack; 0 = none."""
    run: RunFolder
    track: Track
    adapter_base: str | Path | None = None
    """Of a model that is an adapter."""
    adapter: Any = None
    """peft's wrapper around the model, once it is there."""

    def telling(self) -> dict[str, Bool[ndarray, " type"]]:
        """Of the sets that `read` reads, the token types that tell of the one and not of the other."""
        size = int(self.parts.model.config.get_text_config().vocab_size)
        forget, retain = (
            np.array([token for text in each.pieces.texts for token in text.ids]) for each in (self.forget, self.retain)
        )
        own = telling_types(forget, retain, size)
        return {"forget": own, "retain": telling_types(retain, forget, size), "unseen": own}

    def read(self, when: str) -> dict[str, TokenReading]:
        """The measured texts under the model as it is now, from their stages where they are finished: `forget`, `retain`,
        and, where relearning is asked for, `unseen`."""
        texts = {
            "forget": measured(self.forget.pieces, self.settings.seed),
            "retain": measured(self.retain.pieces, self.settings.seed),
        }
        if self.relearn_documents:
            texts["unseen"] = measured(self._attacks()[1], self.settings.seed)
        advance = self.track(f"reading {when} (tokens)", sum(pieces.tokens for pieces in texts.values()))
        return {name: self._reading(f"{when}-{name}", self.parts, pieces, advance) for name, pieces in texts.items()}

    def train(self) -> Losses:
        """Trains the model in place, from the last checkpoint where there is one.

        Errors: UnlearningFailed where training diverges, or where every weight is what it was.
        """
        settings = self.settings
        tunable = prepare(self.parts, settings)
        self.adapter = tunable.adapter
        before = signature(tunable.parameters)
        frozen = freeze(self.parts, tunable.adapter, settings)
        terms = objective(settings, self.parts, frozen, self.forget.pieces, self.retain.pieces)
        advance = self.track("unlearning (steps)", settings.steps)
        losses = minimise(
            terms,
            tunable.parameters,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            checkpoint=self.run.workspace("training") / "training.safetensors",
            on_step=lambda _step, _losses: advance(1),
        )
        self.parts.model.requires_grad_(False)
        if np.array_equal(before, signature(tunable.parameters)):
            raise UnlearningFailed(
                f"the weights did not change in {settings.steps} steps of {settings.method} at a learning rate of "
                f"{settings.learning_rate:g}; nothing was written. Give a higher --lr, or a weight above 0 to a loss."
            )
        return losses

    def attack(self, before: TokenReading, after: TokenReading) -> list[Relearning]:
        """What comes back of the unseen forget texts; `before`, `after`: those texts under the model as it was and as it
        is."""
        attacks, unseen = self._attacks()
        return [self._attacked(attack, measured(unseen, self.settings.seed), before, after) for attack in attacks]

    def save(self, trust_remote_code: bool) -> WeightChange:
        """Writes the model or adapter, reads it back beside the model as it was, and puts it in place as a whole.

        Errors: BadRun where the folder cannot be written.
        """
        self.run.clear_workspace("model")
        draft = self.run.workspace("model")
        try:
            self._write(draft)
            pair = load_pair(self.folder, draft, adapter_base=self.adapter_base, trust_remote_code=trust_remote_code)
            changes = weight_changes(pair, rank_limit=0)
            self.run.adopt(draft, "model")
        except (OSError, SafetensorError) as error:
            raise BadRun(
                f"Cannot write the model to {self.run.folder / 'model'} ({one_line(error)}). Free some space and give the "
                "same command again: training is kept."
            ) from error
        return WeightChange(changed_tensors=changes.changed, total_tensors=changes.total, relative=changes.relative_change)

    def _write(self, folder: Path) -> None:
        """The adapter, or the model with its tokenizer, as Hugging Face files."""
        if self.adapter is not None:
            self.adapter.peft_config[self.adapter.active_adapter].base_model_name_or_path = _reachable(self.name)
            self.adapter.save_pretrained(folder)
            return
        shows_bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self.parts.model.save_pretrained(folder, safe_serialization=True)
        finally:
            if shows_bars:
                logging.enable_progress_bar()
        self.tokenizer.save_pretrained(folder)

    def _attacks(self) -> tuple[list[Attack], Pieces]:
        return plan_attacks(self.forget.pieces, self.retain.pieces, self.relearn_documents, self.settings.seed)

    def _attacked(self, attack: Attack, unseen: Pieces, before: TokenReading, after: TokenReading) -> Relearning:
        seed = self.settings.seed
        # The rate of likelihood-based full fine-tuning, whatever unlearned the model.
        rate = DEFAULTS["npo"].learning_rate * DEFAULT_WIDTH / self.parts.width
        telling = self.telling()["unseen"]
        advance = self.track(f"relearning, {attack.kind} (steps)", STEPS)

        def compute() -> TokenReading:
            relearnt = relearn(
                self.parts,
                attack.pieces,
                learning_rate=rate,
                seed=seed,
                adapter=self.adapter,
                checkpoint=self.run.workspace("relearning") / f"{attack.kind}.safetensors",
                on_step=lambda _step, _losses: advance(1),
            )
            return read_pieces(relearnt, unseen)

        reading = self._stage(f"relearning-{attack.kind}", compute)
        return Relearning(
            kind=attack.kind,
            documents=self.relearn_documents,
            steps=STEPS,
            learning_rate=rate,
            kept_before=kept(before, after, telling),
            kept_after=kept(before, reading, telling),
            change=change_in_nats(after, reading, seed=seed),
        )

    def _reading(self, name: str, parts: Parts, pieces: Pieces, advance: Callable[[int], None]) -> TokenReading:
        return self._stage(name, lambda: read_pieces(parts, pieces, advance))

    def _stage(self, name: str, compute: Callable[[], TokenReading]) -> TokenReading:
        arrays = self.run.stage(name, lambda: compute().arrays())
        return TokenReading(arrays["document"], arrays["token"], arrays["nll"], arrays["right"])


def _reachable(name: str) -> str:
    """How an adapter names its base: a hub name as it is, a folder by its whole path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
