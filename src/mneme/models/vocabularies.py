"""The ids of a pair: what each means in both models, and how many of them the two models share.

Text is tokenized by BASE. TUNED may have more ids at the end (chat tokens, a pad token, padding to a round number): these are
left out of every softmax and reported. A shared id that means something else is refused, whatever text would be read.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mneme.errors import BrokenWeights, ModelMismatch

PROBE_TEXT = (
    "The quick brown fox reads 3 books, doesn't it? In 1987 E=mc^2 was café talk;\n"
    "\tdef f(x): return x**2  # naïve 你好 🙂 the law of the sea"
)
"""Plain text of many kinds, on which the pieces of two tokenizers are compared where their settings differ."""
_OWN = 500
"""How many of a tokenizer's own tokens are added to that text."""


def as_written(tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[PreTrainedTokenizerBase, str | None]:
    """The tokenizer that a folder's own tokenizer.json describes, and a sentence where AutoTokenizer had built another one.

    Newer versions of transformers build some classes from the vocabulary alone and leave out how the file splits text.
    Raises BrokenWeights where tokenizer.json cannot be had as it is written.
    """
    file = folder / "tokenizer.json"
    if not file.is_file() or not hasattr(tokenizer, "backend_tokenizer"):
        return tokenizer, None
    own = Tokenizer.from_file(str(file))
    text = probe_text(tokenizer)
    expected = own.encode(text, add_special_tokens=False).ids
    if _plain_ids(tokenizer, text) == expected:
        return tokenizer, None
    plain = PreTrainedTokenizerFast.from_pretrained(folder)
    if _plain_ids(plain, text) != expected:
        raise BrokenWeights(
            f"the tokenizer in {folder} splits text otherwise than its own tokenizer.json says, however it is loaded. Give "
            "the tokenizer that the model was trained with."
        )
    return plain, (
        f"{folder}: transformers rebuilds its tokenizer as {type(tokenizer).__name__}, which splits text otherwise than "
        "tokenizer.json says; it is read as tokenizer.json says."
    )


def probe_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """`PROBE_TEXT` and some of the tokenizer's own tokens as text."""
    own = tokenizer.decode(range(0, len(tokenizer), max(1, len(tokenizer) // _OWN)), skip_special_tokens=True)
    return f"{PROBE_TEXT} {own}"


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def require_same_meaning(
    base: PreTrainedTokenizerBase, tuned: PreTrainedTokenizerBase, shared: int, base_name: str, tuned_name: str
) -> tuple[str, ...]:
    """Sentences about ids that only one tokenizer has, or that it has renamed. `shared`: ids below it are in both models.

    Raises ModelMismatch where an id below `shared` means another piece of text, or where the two split text otherwise.
    """
    first, second = base.get_vocab(), tuned.get_vocab()
    by_id = {index: token for token, index in first.items()}
    added = {index: token for token, index in second.items() if index not in by_id}
    other = {
        index: (by_id[index], token)
        for token, index in second.items()
        if index < shared and index in by_id and by_id[index] != token and first.get(token) != index
    }
    marks = set(base.get_added_vocab()) | set(base.all_special_tokens)
    renamed = {
        index: pair for index, pair in other.items() if pair[0] in marks and pair[0] not in second and pair[1] not in first
    }
    moved = sorted(other.keys() - renamed.keys())
    if moved:
        was, now = other[moved[0]]
        raise ModelMismatch(
            f"the tokenizers of {base_name} and {tuned_name} give {len(moved)} of their ids another meaning: id {moved[0]} is "
            f"{was!r} in the first and {now!r} in the second. Both models have to read the same ids: give a pair with one "
            "vocabulary (tokens added at its end do no harm)."
        )
    _require_same_pieces(base, tuned, base_name, tuned_name)
    notes = []
    if added:
        names = ", ".join(repr(added[index]) for index in sorted(added)[:3])
        notes.append(f"{tuned_name} has {len(added)} tokens that the tokenizer of {base_name} lacks ({names}).")
    if renamed:
        was, now = renamed[min(renamed)]
        notes.append(f"{tuned_name} has renamed {len(renamed)} special tokens ({was!r} is now {now!r}).")
    return tuple(notes)


def _require_same_pieces(
    base: PreTrainedTokenizerBase, tuned: PreTrainedTokenizerBase, base_name: str, tuned_name: str
) -> None:
    first, second = _settings(base), _settings(tuned)
    if first is not None and first == second:
        return
    merges = (part.get("model", {}).get("merges") if part else None for part in (first, second))
    text = probe_text(base)
    known = [token for token in tuned.get_added_vocab() if token not in base.get_vocab()]
    for token in known:  # the text is to be plain to both
        text = text.replace(token, " ")
    ids, others = _plain_ids(base, text), _plain_ids(tuned, text)
    at = next((i for i, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b), min(len(ids), len(others)))
    if len({json.dumps(part) for part in merges}) > 1 or ids != others:
        raise ModelMismatch(
            f"the tokenizers of {base_name} and {tuned_name} have one vocabulary but split text otherwise"
            + (f", first at token {at} ({ids[at : at + 3]} and {others[at : at + 3]})" if ids != others else " (other merges)")
            + ". Both models have to read the same ids: give a pair with one tokenizer."
        )


def _settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any] | None:
    """How text becomes ids, but for the list of added tokens and what is put around a text; None where it cannot be seen."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    whole = json.loads(backend.to_str())
    model = {key: value for key, value in whole["model"].items() if key != "vocab"}
    return {"model": model, "normalizer": whole["normalizer"], "pre_tokenizer": whole["pre_tokenizer"]}


def embedding_rows(model: nn.Module) -> int:
    """How many ids a model has: the rows of its embedding."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    return int(weight.shape[0])


def bound_vocabulary(head: nn.Module, vocab: int) -> None:
    """From now on `head` gives logits of the first `vocab` ids only: every softmax is over ids that both models have."""

    def shared(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output[..., :vocab]

    head.register_forward_hook(shared)
