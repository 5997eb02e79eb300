"""A tiny model that knows some texts, and those texts: what is to be forgotten and what has to stay."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mneme.models.architecture import find_parts
from mneme.models.fitting import Term
from mneme.text.documents import Documents
from mneme.text.pieces import cut_pieces
from mneme.unlearn.objective import plain_loss
from mneme.unlearn.training import minimise
from tests.conftest import WORDS, tiny_llama, word_tokenizer

HALF = len(WORDS) // 2


@dataclass(frozen=True)
class Known:
    """A model folder (2 layers, width 32), and two text files that the model knows by heart."""

    model: Path
    forget: Path
    retain: Path
    forget_texts: tuple[str, ...]
    retain_texts: tuple[str, ...]


def as_documents(texts: tuple[str, ...], source: str = "text") -> Documents:
    """Texts as if they were read from a file."""
    return Documents(texts, source, f"sha of {source}")


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """24 texts of each set, each of its own half of the words: a first word, and 7 that follow from it."""
    folder = tmp_path_factory.mktemp("known")
    generator = torch.Generator().manual_seed(4)

    def texts(words: list[str]) -> tuple[str, ...]:
        rows = [[first, *torch.randint(len(words), (7,), generator=generator).tolist()] for first in range(24)]
        return tuple(" ".join(words[i] for i in row) for row in rows)

    forget, retain = texts(WORDS[:HALF]), texts(WORDS[HALF:])
    model = tiny_llama(hidden_size=32, intermediate_size=64)
    parts, pieces = find_parts(model), cut_pieces(as_documents((*forget, *retain)), word_tokenizer(), 512)
    term = Term("plain", 1.0, plain_loss(parts, pieces, 24, 0))
    minimise([term], dict(model.named_parameters()), steps=150, learning_rate=1e-2)
    model.save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    (folder / "forget.txt").write_text("\n".join(forget))
    (folder / "retain.txt").write_text("\n".join(retain))
    return Known(folder / "model", folder / "forget.txt", folder / "retain.txt", forget, retain)
