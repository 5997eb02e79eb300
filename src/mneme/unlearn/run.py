"""`mneme unlearn`: checks what it is given, says what it will cost, trains, checks that something was forgotten, writes."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from jaxtyping import Bool
from numpy import ndarray
from transformers import PreTrainedTokenizerBase

from mneme.errors import BadCorpus, BadOption, UnlearningFailed
from mneme.models.adapter_files import whole_fingerprint
from mneme.models.checkpoints import is_adapter, resolve_folder
from mneme.models.fitting import Losses
from mneme.models.pair import LoadedModel, load_model
from mneme.models.threads import computing_threads
from mneme.models.tokenizers import require_tokenizer
from mneme.options import deciding, loading, stored, taking
from mneme.results import Estimate, TooFew
from mneme.results.unlearn import (
    StepLosses,
    TextChange,
    Unlearning,
    UnlearningEnvironment,
    UnlearningSettings,
    UnlearningText,
)
from mneme.runs import RunFolder, require_apart, require_room
from mneme.text.documents import read_corpus
from mneme.text.pieces import cut_pieces
from mneme.text.reading import SKIPPED_ROWS, skipped_rows
from mneme.text.templates import template_key
from mneme.unlearn.job import TextSet, UnlearnJob
from mneme.unlearn.options import UnlearnOptions
from mneme.unlearn.plan import disk_bytes, say_plan
from mneme.unlearn.recall import TokenReading, change_in_nats, kept, likelihood
from mneme.unlearn.settings import DEFAULTS, UnlearnSettings, settings_for
from mneme.version import __version__

STILL_RECALLED = 0.5
"""The forget set is still answered where more than so much of what was recalled of it is certainly kept."""


def run_unlearn(options: UnlearnOptions) -> Unlearning:
    """Makes `model` forget the text `forget` and keep the text `retain`; writes DIR/model and DIR/unlearn.json.

    `forget`, `retain`: txt, jsonl (`text` or `messages`), parquet, or a datasets name. `training.lora_rank`: rank of an
    adapter on every linear layer; None trains the weights. None elsewhere takes the default (`settings.DEFAULTS`).
    `relearn`: attack the result with so many texts of either set and measure again. The same call after a kill
    goes on at its last checkpoint and ends with the same bytes of unlearn.json.

    Errors: a `MnemeError` that says what is wrong; UnlearningFailed, and no model written, where training diverged, the
    weights did not change, or the forget set is still answered.
    """
    require_apart(options.out, {"MODEL": options.model, "--forget": options.forget, "--retain": options.retain})
    with computing_threads(options.machine.threads):
        return _unlearned(options)


unlearn = taking(UnlearnOptions, run_unlearn)


def _unlearned(options: UnlearnOptions) -> Unlearning:
    trust = options.machine.trust_remote_code
    folder = resolve_folder(options.model, trust_remote_code=trust)
    loaded, tokenizer = _loaded(folder, options)
    parts = loaded.parts
    texts = _texts(options, tokenizer)
    read = [note for text in texts for note in text.documents.notes]
    told = list(dict.fromkeys([loaded.template, *read] if read else []))
    options.progress.say_all(told)
    settings = settings_for(options, width=parts.width, n_layers=len(parts.blocks))
    require_room(Path(options.out), disk_bytes(parts, settings))
    options.progress.say(say_plan(parts, settings, *texts, options.relearn))
    command: dict[str, Any] = {
        "command": "unlearn",
        "version": __version__,
        "model": whole_fingerprint(folder, options.adapter_base),
        "forget": texts[0].documents.sha256,
        "retain": texts[1].documents.sha256,
        "settings": vars(settings) | {"layers": list(settings.layers)},
        **deciding(options),
        **template_key(options.chat_template),
    }
    outputs = ("model", "unlearn.json", "unlearn.html", SKIPPED_ROWS)
    opened = RunFolder(Path(options.out), command, options=stored(options), outputs=outputs, overwrite=options.overwrite)
    with opened as run, options.progress.bars() as track:
        job = UnlearnJob(
            parts=parts,
            tokenizer=tokenizer,
            folder=folder,
            name=str(options.model),
            settings=settings,
            forget=texts[0],
            retain=texts[1],
            relearn_documents=options.relearn,
            run=run,
            track=track,
            adapter_base=options.adapter_base,
        )
        before = job.read("before")
        losses = job.train()
        after, telling = job.read("after"), job.telling()
        _require_forgotten(before["forget"], after["forget"], telling["forget"], settings)
        attacks = job.attack(before["unseen"], after["unseen"]) if options.relearn else []
        weights = job.save(trust)
        result = Unlearning(
            model=str(options.model),
            fingerprint=command["model"],
            result="model",
            settings=_told(settings, options.max_tokens),
            forget_text=_text_record(texts[0]),
            retain_text=_text_record(texts[1]),
            weights=weights,
            forget=_change(before["forget"], after["forget"], telling["forget"], options.seed),
            retain=_change(before["retain"], after["retain"], telling["retain"], options.seed),
            relearning=attacks,
            losses=_steps(losses),
            environment=_environment(options.machine.device),
            notes=[*loaded.notes, *told],
        )
        run.finish({"unlearn.json": result.to_json().encode(), **skipped_rows(*(text.documents for text in texts))})
    return result


def _told(settings: UnlearnSettings, max_tokens: int) -> UnlearningSettings:
    asked: dict[str, Any] = vars(settings) | {"layers": list(settings.layers)}
    return UnlearningSettings(**asked, max_tokens=max_tokens, defaults=DEFAULTS[settings.method].source)


def _loaded(folder: Path, options: UnlearnOptions) -> tuple[LoadedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer, which it has to have; a model that is an adapter is merged, and cannot take another."""
    if options.training.lora_rank and is_adapter(folder):
        raise BadOption(
            f"{folder} is an adapter, and one on top of it would fit no base. Merge it first, or leave out --lora."
        )
    loaded = load_model(folder, **loading(options))
    return loaded, require_tokenizer(loaded.tokenizer, folder)


def _texts(options: UnlearnOptions, tokenizer: PreTrainedTokenizerBase) -> tuple[TextSet, TextSet]:
    """Both sets, proven to be two."""
    forget, retain, relearn_documents = options.forget, options.retain, options.relearn
    sets = [read_corpus(source, tokenizer=tokenizer) for source in (forget, retain)]
    if sets[0].sha256 == sets[1].sha256:
        raise BadCorpus(
            f"--forget {forget} and --retain {retain} are the same text. What is to be forgotten cannot also be kept: "
            "give text of what has to stay as --retain."
        )
    both = [text for text in sets[0].texts if text in set(sets[1].texts)]
    if both:
        raise BadCorpus(
            f"{len(both)} of {len(sets[0].texts)} texts of --forget are also in --retain, first {both[0][:60]!r}. "
            "Take them out of one of the two."
        )
    first, second = (TextSet(documents, cut_pieces(documents, tokenizer, options.max_tokens)) for documents in sets)
    n_forget, n_retain = (len(np.unique(text.pieces.document)) for text in (first, second))
    if relearn_documents and (relearn_documents >= n_forget or relearn_documents > n_retain):
        raise BadOption(
            f"--relearn {relearn_documents} needs more texts than that to forget (some have to stay unseen) and as many to "
            f"retain; there are {n_forget} and {n_retain}. Give more text or a smaller number."
        )
    return first, second


def _require_forgotten(
    before: TokenReading, after: TokenReading, telling: Bool[ndarray, " type"], settings: UnlearnSettings
) -> None:
    """Raises UnlearningFailed where the forget text is as likely as before, or most of what was recalled of it is kept."""
    change = change_in_nats(before, after, seed=settings.seed)
    share = kept(before, after, telling)
    # With too few texts for an interval the plain figure decides, so that forgetting a single text still gets an answer.
    grown, left = change.plain, 0.0 if share is None else share.plain
    says = f"{grown:+.3f} nats per token [{change.told()}]" if isinstance(change, TooFew) else ""
    if isinstance(change, Estimate):
        grown, says = change.low, f"{change.value:+.3f} nats per token [{change.low:.3f}, {change.high:.3f}]"
    if isinstance(share, Estimate):
        left = share.low
        says += f"; of the tokens it knew, {share.value:.0%} are still its first choice [{share.low:.0%}, {share.high:.0%}]"
    elif share is not None:
        says += f"; of the tokens it knew, {share.plain:.0%} are still its first choice [{share.told()}]"
    if grown <= 0 or left > STILL_RECALLED:
        raise UnlearningFailed(
            f"the forget set is still answered after {settings.steps} steps of {settings.method}: {says}. No model was "
            "written. Give more --steps, a higher --lr, or another --method."
        )


def _change(before: TokenReading, after: TokenReading, telling: Bool[ndarray, " type"], seed: int) -> TextChange:
    return TextChange(
        nll_before=likelihood(before, seed=seed),
        nll_after=likelihood(after, seed=seed),
        change=change_in_nats(before, after, seed=seed),
        kept=kept(before, after, telling),
        measured_documents=len(np.unique(before.document)),
    )


def _text_record(text: TextSet) -> UnlearningText:
    return UnlearningText(
        source=text.documents.source,
        sha256=text.documents.sha256,
        documents=len(text.documents.texts),
        tokens=text.pieces.tokens,
    )


def _steps(losses: Losses) -> list[StepLosses]:
    numbers = [[None if np.isnan(loss) else loss for loss in row] for row in losses.tolist()]
    return [StepLosses(step=step, forget=forget, retain=retain) for step, (forget, retain) in enumerate(numbers, start=1)]


def _environment(device: str) -> UnlearningEnvironment:
    return UnlearningEnvironment(
        mneme=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
        peft=peft.__version__,
        device=device,
        threads=torch.get_num_threads(),
    )
