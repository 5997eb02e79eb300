"""The models that are measured: labels, steps, one at a time in memory, loaded only where a stage is not finished."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mneme.errors import BadOption
from mneme.models.adapter_files import named_base, whole_fingerprint
from mneme.models.architecture import Parts
from mneme.models.checkpoints import is_adapter, resolve_folder
from mneme.models.pair import load_model, load_pair
from mneme.models.tokenizers import load_tokenizer, require_tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model ready to be asked."""

    parts: Parts
    tokenizer: PreTrainedTokenizerBase
    max_positions: int | None
    notes: tuple[str, ...] = ()
    """What was found odd in its files and how it was read, a sentence each."""


@dataclass
class Subject:
    """One model to be measured; `loaded()` loads it on first use, `release()` lets it go."""

    label: str
    source: str
    folder: Path
    is_base: bool
    load: Callable[[], Loaded] = field(repr=False)
    template: Callable[[], str] = field(repr=False)
    """Whose chat template it is asked with, in a sentence."""
    _loaded: Loaded | None = field(default=None, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of configuration, tokenizer and weights; of an adapter with those of the base that it names."""
        return whole_fingerprint(self.folder)

    @property
    def step(self) -> int | None:
        """Training step, from a folder called `checkpoint-N`."""
        found = re.fullmatch(r"checkpoint-(\d+)", self.folder.name)
        return int(found.group(1)) if found else None

    def loaded(self) -> Loaded:
        """The model, in memory from now on."""
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded

    def release(self) -> None:
        """Forgets the model, so that the next has room."""
        self._loaded = None


def subjects_of(
    base: str | Path,
    tuned: Sequence[str | Path],
    *,
    device: str = "cpu",
    trust_remote_code: bool = False,
    adapter_base: str | Path | None = None,
    chat_template: str | Path | None = None,
) -> list[Subject]:
    """Base and tuned models, checkpoints in the order of their steps. A tuned adapter is put on BASE and checked against it;
    BASE as an adapter is put on `adapter_base`, or on the base it names.

    Raises ModelNotFound where a folder is not there, BadOption where a model is named twice.
    """
    folders = [resolve_folder(source, trust_remote_code=trust_remote_code) for source in (base, *tuned)]
    sources = [str(base), *map(str, tuned)]
    for i, folder in enumerate(folders[1:], 1):
        if any(folder.resolve() == other.resolve() for other in folders[1:i]):
            raise BadOption(f"{sources[i]} is named twice among the tuned models. Name each once.")
    labels = _labels(sources, folders)

    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    options |= {"adapter_base": adapter_base, "chat_template": chat_template}

    def loader(index: int) -> Callable[[], Loaded]:
        return lambda: _load(folders, index, options)

    subjects = [
        Subject(
            label=labels[i],
            source=sources[i],
            folder=folders[i],
            is_base=i == 0,
            load=loader(i),
            template=partial(_asked_with, folders, i, options),
        )
        for i in range(len(folders))
    ]
    return [subjects[0], *sorted(subjects[1:], key=lambda subject: (subject.step is None, subject.step or 0))]


def _load(folders: Sequence[Path], index: int, options: Mapping[str, Any]) -> Loaded:
    folder, base = folders[index], folders[0]
    if index and is_adapter(folder) and not is_adapter(base):
        pair = load_pair(base, folder, **options)
        own = load_tokenizer(folder, options["trust_remote_code"])
        if options["chat_template"] is None and own is not None and own.chat_template:
            pair.tokenizer.chat_template = own.chat_template  # that it was trained in, as a full checkpoint is asked
        return Loaded(pair.tuned_parts, pair.tokenizer, pair.max_positions, pair.notes)
    model = load_model(folder, **options)
    tokenizer = model.tokenizer
    if tokenizer is None and index:
        tokenizer = load_model(base, **options).tokenizer
    positions = getattr(model.parts.model.config.get_text_config(), "max_position_embeddings", None)
    return Loaded(model.parts, require_tokenizer(tokenizer, folder), positions, model.notes)


def _asked_with(folders: Sequence[Path], index: int, options: Mapping[str, Any]) -> str:
    """Whose chat template a model is asked with, told from the tokenizers alone."""
    folder, base = folders[index], folders[0]
    if options["chat_template"] is not None:
        return f"{folder.name} is asked with the chat template in {options['chat_template']}."
    own = load_tokenizer(folder, options["trust_remote_code"])
    adapter = is_adapter(folder)
    whose, tokenizer = ("its own", own)
    if tokenizer is None or (adapter and not tokenizer.chat_template):
        below = base if index else Path(options["adapter_base"] or named_base(folder)) if adapter else folder
        whose, tokenizer = f"that of {below}", load_tokenizer(below, options["trust_remote_code"])
    if tokenizer is None or not tokenizer.chat_template:
        return f'{folder.name} has no chat template: it is asked in "role: content" lines.'
    return (
        f"{folder.name} is asked with {whose} chat template."
        if whose == "its own"
        else (f"{folder.name} has no chat template of its own and is asked with {whose}.")
    )


def _labels(sources: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Folder names; with the folder above where two are alike, with a number where that does not help."""
    names = [Path(source).name or folder.name for source, folder in zip(sources, folders, strict=True)]
    longer = [f"{folder.resolve().parent.name}/{folder.resolve().name}" for folder in folders]
    labels: list[str] = []
    for i, name in enumerate(names):
        label = name if names.count(name) == 1 else longer[i]
        labels.append(label if label not in labels and longer.count(label) <= 1 else f"{label} ({i})")
    return labels
