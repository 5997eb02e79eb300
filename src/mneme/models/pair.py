"""Two models that are compared: two checkpoints, or one resident base whose LoRA adapter is switched on and off."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mneme.errors import ModelMismatch, ModelNotFound, TemplateRefuses
from mneme.models.adapter_files import Attached, attach, named_base
from mneme.models.adapters import switched_off
from mneme.models.architecture import Parts, find_parts
from mneme.models.checkpoints import is_adapter, model_fingerprint, read_json, resolve_folder
from mneme.models.hooks import in_float32
from mneme.models.matching import matched_tensors, one_sided, shared_vocabulary
from mneme.models.merging import merged
from mneme.models.probing import probe_logits, rounding, same_logits
from mneme.models.quantized import quantization_of
from mneme.models.reading import read_model
from mneme.models.tokenizers import load_tokenizer, with_template
from mneme.models.vocabularies import bound_vocabulary, embedding_rows, require_same_meaning
from mneme.text.chat import render_chat

LOG = logging.getLogger("mneme")
Side = Literal["base", "tuned"]
Precision = Literal["float32", "bfloat16"]
"""float32: weights and everything computed. bfloat16: weights as they are stored, matrix products in bfloat16 (autocast), the
residual stream in float32, so that the difference of two of them is taken before anything of it is rounded."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class ModelPair:
    """Base and tuned model, proven to be a pair. `using` gives the parts of either."""

    tokenizer: PreTrainedTokenizerBase
    base_name: str
    tuned_name: str
    base_folder: Path
    tuned_folder: Path
    adapter: bool
    architecture: str
    n_layers: int
    width: int
    vocab_size: int
    """Ids that both models have: every softmax is over these."""
    n_parameters: int
    max_positions: int | None
    """Longest row the positions allow; None = the configuration does not bound it."""
    base_parts: Parts
    tuned_parts: Parts
    peft_model: Any = None
    """The switched adapter's wrapper around the resident base; None for two checkpoints."""
    own: tuple[tuple[str, Tensor], ...] = ()
    """The base's own tensors by their names before the adapter was put on; empty for two checkpoints."""
    precision: Precision = "float32"
    notes: tuple[str, ...] = ()
    """What was found odd in the files and how it was read, a sentence each."""
    template: str = ""
    """Whose chat template conversations are written with, in a sentence."""

    @contextmanager
    def using(self, side: Side, *, exact: bool = False) -> Iterator[Parts]:
        """The parts of one of the two models, with the adapter on or off meanwhile, and matrix products in bfloat16 where that
        is the pair's precision (`exact`: in float32 all the same). Gradients are the caller's choice."""
        off = self.adapter and side == "base"
        parts = self.base_parts if side == "base" else self.tuned_parts
        with switched_off(self.peft_model) if off else nullcontext():
            if self.precision == "float32":
                yield parts
            else:
                with in_float32(parts) if exact else torch.autocast(parts.device.type, torch.bfloat16):
                    yield parts

    @property
    def device(self) -> torch.device:
        """Where token ids go and activations come from."""
        return self.base_parts.device


@dataclass(frozen=True)
class LoadedModel:
    """One model with its tokenizer (None where its folder has none)."""

    parts: Parts
    tokenizer: PreTrainedTokenizerBase | None
    folder: Path
    notes: tuple[str, ...] = ()
    """What was found odd in the files and how it was read, a sentence each."""
    template: str = ""
    """Whose chat template conversations are written with, in a sentence."""


def load_model(
    source: str | Path,
    *,
    adapter_base: str | Path | None = None,
    device: str = "cpu",
    dtype: torch.dtype | Literal["auto"] = torch.float32,
    attention: str | None = None,
    trust_remote_code: bool = False,
    chat_template: str | Path | None = None,
) -> LoadedModel:
    """One causal language model, in eval mode, its parts proven; an adapter folder is merged into `adapter_base`, or
    into the base it names, and computes what peft computes with it. A GGUF file or a quantized folder becomes plain weights.

    `device`: a torch device, or `auto`, which spreads a model over all GPUs (accelerate). `dtype`: `auto` keeps that stored.
    `attention`: transformers' `attn_implementation`; None leaves the choice to it. `chat_template`: a file whose template
    takes the place of the model's own. What was found odd is logged.
    Raises ModelNotFound, UnsafeWeights, BrokenWeights, LibraryMissing, UnsupportedArchitecture, or BadOption (attention).
    """
    options: dict[str, Any] = {"device": device, "dtype": dtype, "attention": attention}
    options["trust_remote_code"] = trust_remote_code
    folder = resolve_folder(source, trust_remote_code=trust_remote_code)
    if is_adapter(folder):
        found, said = _base_of(folder, adapter_base, trust_remote_code)
        plain = load_model(found, **options)
        attached = attach(plain.parts.model, folder)
        _say(attached.notes)
        model = merged(attached.wrapped, attached.live, folder)
        own = load_tokenizer(folder)
        whose = folder if own is not None else plain.folder
        if own is not None and plain.tokenizer is not None and not own.chat_template:
            own.chat_template, whose = plain.tokenizer.chat_template, plain.folder
        tokenizer, template = with_template(own or plain.tokenizer, chat_template, str(whose))
        notes = plain.notes + said + attached.notes + attached.told
        return LoadedModel(find_parts(model), tokenizer, folder, notes, template=template)
    model, notes = read_model(folder, **options)
    _say(notes)
    tokenizer, template = with_template(load_tokenizer(folder, trust_remote_code), chat_template, str(folder))
    return LoadedModel(find_parts(model), tokenizer, folder, notes, template=template)


def _base_of(adapter: Path, given: str | Path | None, trust_remote_code: bool) -> tuple[str | Path, tuple[str, ...]]:
    """The base that was given for an adapter, else the one that it names and that is at hand; what is said about it."""
    if given is not None:
        base = resolve_folder(given, trust_remote_code=trust_remote_code)
        notes = _about_named_base(adapter, base, str(given), asked=True)
        _say(notes)
        return given, notes
    named = named_base(adapter)
    try:
        resolve_folder(named, trust_remote_code=trust_remote_code)
    except ModelNotFound as error:
        raise ModelNotFound(
            f"{adapter} is an adapter of {named}, which is not at hand: {error} Or give the base yourself, with --base, or as "
            "BASE and the adapter as TUNED."
        ) from error
    return named, ()


def _say(notes: tuple[str, ...]) -> None:
    for note in notes:
        LOG.warning(note)


def load_pair(
    base: str | Path,
    tuned: str | Path,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    attention: str | None = None,
    trust_remote_code: bool = False,
    adapter_base: str | Path | None = None,
    chat_template: str | Path | None = None,
) -> ModelPair:
    """Load and check BASE and TUNED, each a folder, a GGUF file, a hub name or an adapter folder.

    TUNED as an adapter of BASE keeps one resident base where switching it off gives BASE again (proven on a probe); an adapter
    that changes the base while it loads (PiSSA, a saved embedding) is merged into a second copy instead. TUNED = BASE keeps
    one model. BASE as an adapter is merged into the base it names, and TUNED is then loaded on its own. TUNED without a
    tokenizer uses BASE's. Vocabularies may differ at the end: both models then say logits of the ids that they share.
    `device`, `attention`, `chat_template` and `adapter_base` (for adapters not put on BASE) are those of `load_model`.
    Conversations are written with BASE's chat template, or TUNED's where BASE has none.
    Raises, beside the errors of `load_model`, ModelMismatch: adapter of another base, other token ids, other shapes.
    """
    options: dict[str, Any] = {"device": device, "attention": attention, "trust_remote_code": trust_remote_code}
    options |= {"adapter_base": adapter_base, "chat_template": chat_template}
    options["dtype"] = torch.float32 if precision == "float32" else "auto"
    base_folder = resolve_folder(base, trust_remote_code=trust_remote_code)
    tuned_folder = resolve_folder(tuned, trust_remote_code=trust_remote_code)
    first = load_model(base_folder, **options)
    n_parameters = sum(p.numel() for p in first.parts.model.parameters())
    vocab = embedding_rows(first.parts.model)
    peft_model: Any = None
    own: _Named = ()
    notes: tuple[str, ...] = ()
    if is_adapter(tuned_folder) and not is_adapter(base_folder):
        notes = _about_named_base(tuned_folder, base_folder, str(base), asked=_is_same(adapter_base, base_folder))
        first, second, peft_model, own = _adapted(first, tuned_folder, options)
    elif base_folder.resolve() == tuned_folder.resolve():
        second = first
    else:
        second = load_model(tuned_folder, **options)
    if second.parts.model is not first.parts.model:
        matched_tensors(first.parts, second.parts)  # or raises
        notes += one_sided(first.parts, second.parts)
        vocab = shared_vocabulary(first.parts, second.parts)
    notes += _bound(first.parts, second.parts, vocab)
    tokenizer, about = _shared_tokenizer(first, second, str(base), str(tuned), vocab)
    tokenizer, differs, template = _shared_template(tokenizer, first, second, chat_template)
    notes += about + differs
    _say(notes)
    if precision == "bfloat16":
        for embedding in {first.parts.embedding, second.parts.embedding}:
            widen_stream(embedding)
    model = first.parts.model
    config = model.config.get_text_config()
    return ModelPair(
        tokenizer=tokenizer,
        base_name=str(base),
        tuned_name=str(tuned),
        base_folder=base_folder,
        tuned_folder=tuned_folder,
        adapter=peft_model is not None,
        architecture=type(model).__name__,
        n_layers=len(first.parts.blocks),
        width=first.parts.width,
        vocab_size=vocab,
        n_parameters=n_parameters,
        max_positions=getattr(config, "max_position_embeddings", None),
        base_parts=first.parts,
        tuned_parts=second.parts,
        peft_model=peft_model,
        own=own,
        precision=precision,
        notes=tuple(dict.fromkeys((*first.notes, *second.notes, *notes))),
        template=template,
    )


def widen_stream(embedding: nn.Module) -> None:
    """From now on the embedding's output is float32: all that blocks add to it then stays in float32 too."""

    def widened(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output.float()

    embedding.register_forward_hook(widened)


_Named = tuple[tuple[str, Tensor], ...]
_SWITCHED_SUMS = 256
"""Switching an adapter off runs the same sums; some kinds take a detour through a product with zero."""


def _adapted(first: LoadedModel, adapter: Path, options: dict[str, Any]) -> tuple[LoadedModel, LoadedModel, Any, _Named]:
    """BASE, TUNED, and where one resident base serves both peft's wrapper and the base's own tensors."""
    model, rows = first.parts.model, embedding_rows(first.parts.model)
    before = probe_logits(model, rows)
    attached = attach(model, adapter)
    _say(attached.notes)
    wrapped = attached.wrapped
    tokenizer, _ = with_template(load_tokenizer(adapter, options["trust_remote_code"]), options["chat_template"], str(adapter))
    if not attached.edits:
        with switched_off(wrapped):
            off = probe_logits(wrapped.get_base_model(), rows)
            if same_logits(off, before, eps=rounding(model, _SWITCHED_SUMS)):
                parts = find_parts(wrapped.get_base_model())
                both = LoadedModel(parts, first.tokenizer, first.folder, first.notes, template=first.template)
                return both, LoadedModel(parts, tokenizer, adapter, attached.notes + attached.told), wrapped, attached.own
    note = _why_two(attached, adapter)
    _say((note,))
    second = LoadedModel(
        find_parts(merged(wrapped, attached.live, adapter)), tokenizer, adapter, (*attached.notes, note, *attached.told)
    )
    return load_model(first.folder, **options), second, None, ()


def _why_two(attached: Attached, adapter: Path) -> str:
    what = "changes its base while it loads (PiSSA, OLoRA and kin do)"
    if attached.edits:
        what = f"holds {len(attached.edits)} tensors of the base itself ({', '.join(attached.edits[:2])})"
    return f"{adapter}: the adapter {what}, so switching it off does not give BASE; two models are held in memory."


def _bound(base: Parts, tuned: Parts, vocab: int) -> tuple[str, ...]:
    """Let both models say logits of the first `vocab` ids only, where one of them has more; and a sentence about that."""
    more = {side: embedding_rows(parts.model) - vocab for side, parts in (("BASE", base), ("TUNED", tuned))}
    for head in {base.head, tuned.head} if any(more.values()) else ():
        bound_vocabulary(head, vocab)
    if base.model is tuned.model:
        more["BASE"] = 0
    return tuple(
        f"{side} has {extra} rows of vocabulary more than the other model; both are read on the {vocab:,} shared ids."
        for side, extra in more.items()
        if extra
    )


def _is_same(given: str | Path | None, folder: Path) -> bool:
    return given is not None and Path(given).exists() and Path(given).resolve() == folder.resolve()


def _about_named_base(adapter: Path, base: Path, base_name: str, *, asked: bool) -> tuple[str, ...]:
    """A sentence where an adapter names another base than the one given: shapes are checked when it is put on.

    Raises ModelMismatch where the base that it names is at hand, plain, and another model, unless the base was `asked` for.
    """
    named = read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not named or named in {base_name, str(base)}:
        return ()
    folder = Path(str(named))
    if folder.is_dir() and (folder / "config.json").is_file():
        other = quantization_of(folder) is None and model_fingerprint(folder) != model_fingerprint(base)
        if other and asked:
            return (
                f"{adapter} was trained on {named}, which is at hand with other weights; it is put on {base_name}, as asked.",
            )
        if other:
            raise ModelMismatch(
                f"the adapter in {adapter} was trained on {named}, not on {base_name}. Give that base, or "
                f"--base {base_name} as well where it is to be put on this one all the same."
            )
        if quantization_of(folder) is None:
            return ()
    return (f"{adapter} says that it was trained on {named}; it is put on {base_name}, which its tensors fit.",)


def _shared_template(
    tokenizer: PreTrainedTokenizerBase, base: LoadedModel, tuned: LoadedModel, given: str | Path | None
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...], str]:
    """The tokenizer with the template that conversations are written with, a sentence where the two models' differ, and one
    about whose is used: BASE's, or TUNED's where BASE has none."""
    templates = [one.tokenizer.chat_template if one.tokenizer is not None else None for one in (base, tuned)]
    if given is not None:
        return tokenizer, (), f"Conversations are written with the chat template in {given}."
    if not templates[0] and templates[1]:
        tokenizer.chat_template = templates[1]
        return tokenizer, (), "Conversations are written with the chat template of TUNED; BASE has none."
    if not templates[0]:
        return tokenizer, (), 'Neither model has a chat template: conversations are written as "role: content" lines.'
    told = "Conversations are written with the chat template of BASE"
    if tuned.tokenizer is None or tuned.tokenizer is base.tokenizer or not templates[1]:
        return tokenizer, (), f"{told}; TUNED has none of its own."
    if templates[0] == templates[1]:
        return tokenizer, (), f"{told}, which is that of TUNED."
    return tokenizer, (_how_templates_differ(base.tokenizer, tuned.tokenizer),), f"{told}; that of TUNED is another."


def _how_templates_differ(base: Any, tuned: Any) -> str:
    """A sentence with what the two write of one question."""
    texts, asked = [], [{"role": "user", "content": "hello"}]
    for tokenizer in (base, tuned):
        try:
            texts.append(repr(render_chat(asked, tokenizer, add_generation_prompt=True)[-120:]))
        except TemplateRefuses:
            texts.append("a refusal")
    if texts[0] == texts[1]:
        return "TUNED has another chat template than BASE, which writes a plain question alike."
    return (
        f"TUNED has another chat template than BASE: a question is {texts[0]} to BASE and {texts[1]} to TUNED. Who trained it "
        "asked in that form; --chat-template FILE reads both models in it."
    )


def _shared_tokenizer(
    base: LoadedModel, tuned: LoadedModel, base_name: str, tuned_name: str, vocab: int
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """The tokenizer that text is read with, and sentences about how TUNED's differs."""
    tokenizer = base.tokenizer or tuned.tokenizer
    if tokenizer is None:
        raise ModelNotFound(
            f"neither {base_name} nor {tuned_name} has a tokenizer. Save the base's tokenizer into its folder "
            "(tokenizer.save_pretrained)."
        )
    notes: tuple[str, ...] = ()
    if base.tokenizer is not None and tuned.tokenizer is not None and tuned.tokenizer is not base.tokenizer:
        notes = require_same_meaning(base.tokenizer, tuned.tokenizer, vocab, base_name, tuned_name)
    added = tokenizer.get_added_vocab()
    highest = max((index for token, index in tokenizer.get_vocab().items() if token not in added), default=0)
    if highest >= vocab:
        raise ModelMismatch(
            f"the tokenizer of {base_name} gives id {highest}, but the models share {vocab} embeddings. "
            "Expected the tokenizer that belongs to the model."
        )
    return copy.deepcopy(tokenizer), notes
