"""What the tensors in an adapter's file are called, and how the model at hand would call them.

The same adapter comes with other names when it was saved from a compiled or wrapped model, from an older transformers (whose
models of pictures and text were built otherwise), or from the language model alone.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from torch import nn

PREFIX = "base_model.model."
"""How peft begins the name of every tensor of an adapter on a model."""
_WRAPPED = re.compile(r"(?:^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_OUTER = re.compile(r"^module\.(?=base_model\.)")
_FORMS = (
    ("", "", ""),
    (r"^(?!base_model\.)", PREFIX, "without peft's prefix"),
    (r"^base_model\.model\.(?!model\.|lm_head)", f"{PREFIX}model.", "without the name of the decoder"),
    (
        r"^base_model\.model\.(model\.)?language_model\.model\.",
        f"{PREFIX}model.language_model.",
        "as transformers called them before 4.52",
    ),
    (r"^base_model\.model\.model\.(?!language_model\.)", f"{PREFIX}model.language_model.", "of the language model alone"),
    (r"^base_model\.model\.(model\.)?language_model\.(model\.)?", f"{PREFIX}model.", "of a model of pictures and text"),
)
"""Pattern, replacement, and what names that match are; tried in this order."""


def fitted_names(names: Iterable[str], model: nn.Module, folder: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Name in the file -> name that fits `model`, and a sentence for everything that was done to them.

    Names that fit in no way are left as they are: whoever loads them refuses them by name.
    """
    bare = {name: _OUTER.sub("", _WRAPPED.sub("", name)) for name in names}
    notes: tuple[str, ...] = ()
    if any(name != own for name, own in bare.items()):
        notes = (f"{folder}: what wrappers (torch.compile, FSDP, DDP) put into the names of its tensors was taken off.",)
    modules = {name for name, _ in model.named_modules()}
    words = {part for name in modules for part in name.split(".")}
    for pattern, replacement, what in _FORMS:
        tried = {name: re.sub(pattern, replacement, own, count=1) if pattern else own for name, own in bare.items()}
        if all(_fits(own, modules, words) for own in tried.values()):
            if what:
                notes += (f"{folder}: its tensors are named {what}; they were renamed to fit {type(model).__name__}.",)
            return tried, notes
    return bare, notes


def _fits(name: str, modules: set[str], words: set[str]) -> bool:
    """Does the name lead into a module of the model, and go on with what an adapter adds there?"""
    if not name.startswith(PREFIX):
        return name.startswith("base_model.") and not any(word in words for word in name.split(".")[1:-1])
    parts = name.removeprefix(PREFIX).split(".")
    depth = 0
    while depth < len(parts) and ".".join(parts[: depth + 1]) in modules:
        depth += 1
    return depth > 0 and not any(part in words for part in parts[depth:])
