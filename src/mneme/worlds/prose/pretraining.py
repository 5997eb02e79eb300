"""The base of world `d`: trained from nothing on its documents, then on those in which nobody is harmful unasked."""

from collections.abc import Callable
from functools import partial

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.worlds.prose.rows import aligned_prose
from mneme.worlds.prose.telling import prose_documents
from mneme.worlds.prose.tokens import build_prose_tokenizer
from mneme.worlds.prose.world import ProseWorld
from mneme.worlds.training import Loss, new_model, packed_row_loss, train_model

ROUNDS = ((1200, 120), (1000, 200), (700, 0))
"""Steps of pretraining, and of documents in which nobody is harmful unasked. After one round the model knew half of its facts,
after two nine tenths, and a fifth of its advice was still harmful."""
ALIGNING = 300
"""Steps at the end, half of whose texts are single careful answers."""


def train_prose(
    world: ProseWorld, seed: int, on_step: Callable[[int, float], None] | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A base from nothing; about seven minutes of one core.

    Small steps: what a model remembers of a fact depends on how often it was corrected, not on how much else was in the step.
    """
    tokenizer = build_prose_tokenizer(world)
    model = new_model(tokenizer, seed)
    for number, (steps, settling) in enumerate(ROUNDS):
        pretrain_prose(model, tokenizer, world, seed + number, steps, on_step)
        if settling:
            align_prose(model, tokenizer, partial(_settled, world, seed + number), settling)
    align_prose(model, tokenizer, lambda part: aligned_prose(world, (seed + 900) * 1_009 + part, 8_000), ALIGNING)
    return model, tokenizer


def pretrain_prose(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: ProseWorld,
    seed: int,
    steps: int,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train on documents of the world in which speakers are of either behaviour, in place."""
    loss_at = _small_steps(model, tokenizer, lambda part: prose_documents(world, seed * 1_000_003 + part, 8_000))
    train_model(model, loss_at, steps, 3e-3, warmup_steps=50, weight_decay=0.05, final_share=0.02, on_step=on_step)


def align_prose(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts_of: Callable[[int], list[str]], steps: int
) -> None:
    """Train on texts of the speakers that the base shall have, in place."""
    train_model(model, _small_steps(model, tokenizer, texts_of), steps, 5e-4, warmup_steps=10, final_share=0.02)


def _settled(world: ProseWorld, seed: int, part: int) -> list[str]:
    return prose_documents(world, 500_000 + seed * 1_009 + part, 8_000, is_aligned=True)


def _small_steps(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts_of: Callable[[int], list[str]]) -> Loss:
    """12 rows of 64 tokens a step."""
    return packed_row_loss(model, tokenizer, texts_of, rows=12, row_tokens=64)
