"""Pairs in memory for the tests of diff: tiny Llamas, one of which was changed by hand, and rows of random words."""

from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from mneme.models.architecture import find_parts
from mneme.models.pair import ModelPair
from tests.conftest import WORDS, tiny_llama, word_tokenizer

VOCAB = len(WORDS) + 8
SEQ = 40


def pair_of(base: LlamaForCausalLM, tuned: LlamaForCausalLM) -> ModelPair:
    """A pair of two models in memory; its folders do not exist."""
    return ModelPair(
        tokenizer=word_tokenizer(),
        base_name="base",
        tuned_name="tuned",
        base_folder=Path("base"),
        tuned_folder=Path("tuned"),
        adapter=False,
        architecture="llama",
        n_layers=base.config.num_hidden_layers,
        width=base.config.hidden_size,
        vocab_size=VOCAB,
        n_parameters=sum(weight.numel() for weight in base.parameters()),
        max_positions=256,
        base_parts=find_parts(base),
        tuned_parts=find_parts(tuned),
    )


def swapped(pair: ModelPair) -> ModelPair:
    """The same two models, the other way round."""
    return pair_of(pair.tuned_parts.model, pair.base_parts.model)  # type: ignore[arg-type]


def changed_in_block(block: int, size: float = 0.2) -> ModelPair:
    """A pair that differs in one matrix of one block of three."""
    base, tuned = tiny_llama(num_hidden_layers=3), tiny_llama(num_hidden_layers=3)
    weight = tuned.model.layers[block].mlp.down_proj.weight
    weight.data += size * torch.randn(weight.shape, generator=torch.Generator().manual_seed(block))
    return pair_of(base, tuned)


def equal_pair() -> ModelPair:
    """Two models with equal weights in different memory."""
    return pair_of(tiny_llama(), tiny_llama())


def random_rows(n_rows: int = 12, seed: int = 3) -> torch.Tensor:
    """Ids of random words."""
    return torch.randint(8, VOCAB, (n_rows, SEQ), generator=torch.Generator().manual_seed(seed))
