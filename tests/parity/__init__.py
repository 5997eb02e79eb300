"""Numbers of the authors' own code, and the inputs that they were computed on.

Every number in this folder was computed once by the code of a repository and commit that stands beside it (or, where no code
can be had, by hand from the paper's equation: it then says so); the code itself is not here. The inputs are given by a rule of
integers, so that they are the same on every machine and for every version of torch.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u")]
FLOAT32, FLOAT64 = 1e-5, 1e-10
"""Largest relative difference where a method is called equal."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def seeded(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers in [-1, 1): entry i is a 32-bit hash of i and the seed, over 2^31, minus 1; exact in float64."""
    mask = np.uint64(0xFFFFFFFF)
    h = (np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(1_000_003) * np.uint64(seed + 1)) & mask
    for _ in range(2):
        h ^= h >> np.uint64(16)
        h = (h * np.uint64(0x45D9F3B)) & mask
    h ^= h >> np.uint64(16)
    return torch.from_numpy(h.astype(np.float64) / 2**31 - 1).reshape(shape).to(dtype)


def chat_llama(layers: int = 3) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """A Llama of width 16 whose every weight is given by `seeded`, and a word tokenizer with a template that closes a turn
    with <|im_end|> and a newline, as Qwen's does."""
    tokens = ["<pad>", "<unk>", "<|im_start|>", "<|im_end|>", "\n", "system", "user", "assistant", *WORDS]
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    special = {name: AddedToken(name, special=True) for name in ("<|im_start|>", "<|im_end|>")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token=special["<|im_end|>"],
        additional_special_tokens=[special["<|im_start|>"]],
        chat_template=TEMPLATE,
    )
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=3,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = seeded(*weight.shape, seed=zlib.crc32(name.encode()) % 1000, dtype=torch.float32)
            weight.copy_(1 + 0.1 * drawn if "norm" in name else 0.5 * drawn)
    return model, tokenizer


def sentence(count: int, seed: int) -> str:
    """`count` words."""
    picks = ((seeded(count, seed=seed) + 1) / 2 * len(WORDS)).long().tolist()
    return " ".join(WORDS[i] for i in picks)


def some_pairs(count: int = 8) -> list[dict[str, Any]]:
    """Questions of 2 to 5 words with answers of 1 to 9 and 2 to 8 words; every second pair begins with the same two words."""
    pairs = []
    for i in range(count):
        alike = f"{sentence(2, 300 + i)} " if i % 2 else ""
        pairs.append(
            {
                "prompt": [{"role": "user", "content": sentence(2 + i % 4, i)}],
                "chosen": [{"role": "assistant", "content": alike + sentence(1 + (3 * i) % 9, 100 + i)}],
                "rejected": [{"role": "assistant", "content": alike + sentence(2 + (5 * i) % 7, 200 + i)}],
            }
        )
    return pairs


def some_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Questions of 2 to 4 words with answers of 3 to 14 words."""
    return [
        {
            "messages": [
                {"role": "user", "content": sentence(2 + i % 3, seed + i)},
                {"role": "assistant", "content": sentence(3 + (4 * i) % 12, seed + 50 + i)},
            ]
        }
        for i in range(count)
    ]


def furthest(found: Any, expected: Any) -> float:
    """The largest difference, over the largest number that was expected."""
    one, other = (torch.as_tensor(np.asarray(part), dtype=torch.float64) for part in (found, expected))
    assert one.shape == other.shape, f"{tuple(one.shape)} found, {tuple(other.shape)} expected"
    assert bool(torch.isfinite(one).all())
    return float((one - other).abs().max() / other.abs().max())


def authors_numbers(method: str) -> Any:
    """What the authors' code gave; repository, commit and function stand beside it in numbers.json."""
    found = json.loads((Path(__file__).parent / "numbers.json").read_text(encoding="utf-8"))
    return found[method]["numbers"]
