"""A pair of tiny models on disk, a LoRA adapter of the same base, and probe texts of two kinds of words."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.conftest import WORDS, tiny_llama, word_tokenizer


@dataclass(frozen=True)
class Repairable:
    """Folders of base, a fully changed model, an adapter of rank 2, and the two texts."""

    base: Path
    whole: Path
    adapter: Path
    target: Path
    retain: Path
    other: Path


def write_words(path: Path, words: list[str], seed: int, lines: int = 24) -> Path:
    """Lines of 12 words drawn from `words`."""
    picks = np.random.default_rng(seed).integers(0, len(words), (lines, 12))
    path.write_text("\n".join(" ".join(words[i] for i in line) for line in picks))
    return path


@pytest.fixture(scope="session")
def repairable(tmp_path_factory: pytest.TempPathFactory) -> Repairable:
    """Base and its two fine-tunes, changed at random."""
    folder = tmp_path_factory.mktemp("repair")
    tiny_llama().save_pretrained(folder / "base")
    word_tokenizer().save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(1)
    whole = tiny_llama()
    for weight in whole.parameters():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    whole.save_pretrained(folder / "whole")
    base = tiny_llama()
    base.config.name_or_path = str(folder / "base")
    base.name_or_path = str(folder / "base")
    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # peft asks for an attribute that transformers has renamed
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(base, config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data += 0.2 * torch.randn(weight.shape, generator=generator)
    adapted.save_pretrained(folder / "adapter")
    half = len(WORDS) // 2
    return Repairable(
        folder / "base",
        folder / "whole",
        folder / "adapter",
        write_words(folder / "target.txt", WORDS[:half], 2),
        write_words(folder / "retain.txt", WORDS[half:], 3),
        write_words(folder / "other.txt", WORDS, 4),
    )
