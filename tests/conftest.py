"""Fixtures that every test may use: no network, and a tiny pair of models with a corpus on disk."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.options import Machine, Progress, Training

torch.set_num_threads(1)

_TRAINING = {field.name for field in fields(Training)}
_MACHINE = {field.name for field in fields(Machine)}

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u", "an", "en")]


@dataclass(frozen=True)
class TinyPair:
    """Folders of two Llama models (2 layers, width 16, 93 tokens) and a text of about 6,000 words."""

    base: Path
    tuned: Path
    corpus: Path


def grouped(**named: Any) -> dict[str, Any]:
    """Keywords of a job, with what belongs to `training`, `machine` and `progress` given flat: `steps=4, threads=1`."""
    parts = {"training": {}, "machine": {}}
    for name in list(named):
        part = "training" if name in _TRAINING else "machine" if name in _MACHINE else None
        if part is not None:
            parts[part][name] = named.pop(name)
    if "console" in named:
        named["progress"] = Progress(named.pop("console"))
    made = {"training": lambda given: Training(**given), "machine": lambda given: Machine(**given)}
    return named | {name: made[name](given) for name, given in parts.items() if given}


def word_tokenizer(size: int | None = None) -> PreTrainedTokenizerFast:
    """One token a word, split at white space, `size` of them (default: all); no special token is added to a text."""
    words = ["<pad>", "<unk>", "<s>", "</s>", "user", "assistant", ":", ".", *WORDS][:size]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def tiny_llama(seed: int = 0, **changes: int) -> LlamaForCausalLM:
    """A random Llama that fits `word_tokenizer`."""
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(WORDS) + 8,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
    }
    config = LlamaConfig(**(sizes | changes), bos_token_id=2, eos_token_id=3, pad_token_id=0, initializer_range=0.2)
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def save_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that saves `tiny_llama(seed, **sizes)` with its tokenizer and gives the folder."""

    def save(seed: int = 0, *, tokenizer: bool = True, **changes: int) -> Path:
        folder = tmp_path_factory.mktemp("model")
        tiny_llama(seed, **changes).save_pretrained(folder)
        if tokenizer:
            word_tokenizer().save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> TinyPair:
    """A base, a copy with a small random change in block 1, and a corpus of 300 lines of 20 words."""
    folder = tmp_path_factory.mktemp("pair")
    model = tiny_llama()
    model.save_pretrained(folder / "base")
    word_tokenizer().save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(1)
    weight = model.model.layers[1].mlp.down_proj.weight
    weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(folder / "tuned")
    picks = torch.randint(len(WORDS), (300, 20), generator=generator)
    (folder / "corpus.txt").write_text("\n".join(" ".join(WORDS[i] for i in line) for line in picks.tolist()))
    return TinyPair(folder / "base", folder / "tuned", folder / "corpus.txt")


def keep_every(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Trainings keep their state every so many steps, whatever the clock says."""
    done = iter(range(1, 10**6))
    monkeypatch.setattr("mneme.models.keeping.Keeping.is_due", lambda _self: next(done) % steps == 0)
