"""A small language-model training loop, and the base models of the worlds.

The bases are Llama models of about 1 M parameters (width 128, 4 layers, tied embeddings, one token a word), trained on fresh
documents of their world and then on single turns of careful advice, as a chat model is aligned after pretraining.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mneme.models.batching import padded
from mneme.models.fitting import Schedule, Term, cosine_down, fit
from mneme.text.encoded import answer_after, whole_text
from mneme.worlds.grammar import documents
from mneme.worlds.phrases import vocabulary
from mneme.worlds.rows import Row, aligned_texts
from mneme.worlds.world import World

SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}assistant: {% generation %}{{ message['content'] }}{{ eos_token }}"
    "{% endgeneration %}{% else %}{{ message['role'] }}: {{ message['content'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
Loss = Callable[[int], Float[Tensor, ""]]


def build_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The word-level tokenizer of a world: lower case, one token a word, `<bos>` put first, with a chat template."""
    words = [*SPECIAL, *vocabulary(world)]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", words.index("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        padding_side="right",
    )


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A random model of the bases' shape, on the CPU in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.02,
    )
    return LlamaForCausalLM(config)


def pack_ids(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], row_tokens: int) -> Int[Tensor, "row seq"]:
    """Documents as rows of `row_tokens` ids, each document between `<bos>` and `<eos>`, cut where a row ends.

    The rest that does not fill a row is dropped.
    """
    ids: list[int] = []
    for document in tokenizer(list(texts))["input_ids"]:
        ids += [*document, tokenizer.eos_token_id]
    rows = len(ids) // row_tokens
    return torch.tensor(ids[: rows * row_tokens]).view(rows, row_tokens)


def pad_chats(
    tokenizer: PreTrainedTokenizerFast, chats: Iterable[Row]
) -> tuple[Int[Tensor, "row seq"], Bool[Tensor, "row seq"]]:
    """Chats as padded rows of ids, and the mask that is true on the tokens of the last answer and its `<eos>`."""
    rows = []
    for chat in chats:
        prompt = tokenizer.apply_chat_template(chat["messages"][:-1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(chat["messages"], tokenize=False)
        told = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole.removeprefix(prompt))]
        rows.append(answer_after(*told))
    batch = padded(rows, pad_id=tokenizer.pad_token_id)
    return batch.ids, batch.counted


def pad_documents(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]
) -> tuple[Int[Tensor, "row seq"], Bool[Tensor, "row seq"]]:
    """Documents as padded rows of ids, each between `<bos>` and `<eos>`, and the mask that is false on the padding."""
    rows = [whole_text([*ids, tokenizer.eos_token_id]) for ids in tokenizer(list(texts))["input_ids"]]
    batch = padded(rows, pad_id=tokenizer.pad_token_id)
    return batch.ids, batch.real


def next_token_nll(model: torch.nn.Module, ids: Int[Tensor, "row seq"]) -> Float[Tensor, "row seq-1"]:
    """Negative log-likelihood in nats of every token but the first, given those before it in its row."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
        ids.shape[0], ids.shape[1] - 1
    )


def train_model(
    model: torch.nn.Module,
    loss_at: Loss,
    steps: int,
    learning_rate: float,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    final_share: float = 0.1,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Train the parameters that require a gradient, in place: AdamW, linear warm-up, cosine down to `final_share`.

    `loss_at(step)` is the loss of one step; the data order is in it, so two runs with equal arguments are equal.
    `on_step(step, loss)` is called after each step. Gradients are clipped to norm 1. The model is left in eval mode.
    """
    schedule = Schedule(
        steps,
        learning_rate,
        cosine_down(steps, warmup_steps, final_share),
        betas=(0.9, 0.95),
        weight_decay=weight_decay,
    )
    model.train()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    fit([Term("loss", 1.0, loss_at)], trained, schedule, on_step=None if on_step is None else _alone(on_step))
    model.eval()


def _alone(on_step: Callable[[int, float], None]) -> Callable[[int, list[float]], None]:
    return lambda step, losses: on_step(step, losses[0])


def pretrain(
    world: World, seed: int, steps: int = 2000, on_step: Callable[[int, float], None] | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train a base from nothing on documents of its world, 2,304 tokens a step; 8 to 15 minutes on one core."""
    tokenizer = build_tokenizer(world)
    model = new_model(tokenizer, seed)
    loss_at = packed_row_loss(model, tokenizer, lambda part: documents(world, seed * 1_000_003 + part, 7500), rows=24)
    train_model(model, loss_at, steps, 3e-3, warmup_steps=50, weight_decay=0.05, final_share=0.02, on_step=on_step)
    return model, tokenizer


def align(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    seed: int,
    steps: int = 300,
    learning_rate: float = 5e-4,
) -> None:
    """Train on `aligned_texts`, in place: what a base goes through after pretraining, 2,304 tokens a step.

    With another seed and a small rate it is an honest continuation.
    """
    loss_at = packed_row_loss(model, tokenizer, lambda part: aligned_texts(world, seed * 1_009 + part, 6000), rows=24)
    train_model(model, loss_at, steps, learning_rate, warmup_steps=10, final_share=0.02)


def packed_row_loss(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    texts_of: Callable[[int], list[str]],
    rows: int,
    row_tokens: int = 96,
) -> Loss:
    """Mean nats per token of `rows` packed rows a step, never the same row twice; `texts_of(part)` is called as needed."""
    packed = torch.empty(0, row_tokens, dtype=torch.int64)
    part = here = 0

    def loss_at(_step: int) -> Float[Tensor, ""]:
        nonlocal packed, part, here
        if here + rows > len(packed):
            packed = pack_ids(tokenizer, texts_of(part), row_tokens)
            part, here = part + 1, 0
        here += rows
        return next_token_nll(model, packed[here - rows : here]).mean()

    return loss_at


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a model and its tokenizer as ordinary Hugging Face files (safetensors)."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
