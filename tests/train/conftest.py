"""A tiny chat model, rows of three forms, and trainers of TRL that take a second on one core."""

import copy
import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, Trainer
from trl import SFTConfig, SFTTrainer

from mneme.text.files import Row
from mneme.text.rows import trainable
from tests.conftest import WORDS, tiny_llama, word_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['role'] }} : {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} assistant :{% endif %}"
)


def chat_tokenizer() -> PreTrainedTokenizerBase:
    """The word tokenizer with a chat template."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def chat_rows(count: int, seed: int = 0, words: Sequence[str] = WORDS) -> list[Row]:
    """Rows of one question and one answer, 2 to 9 words each."""
    rng = random.Random(seed)

    def said() -> str:
        return " ".join(rng.choices(words, k=rng.randint(2, 9)))

    return [
        {"messages": [{"role": "user", "content": said()}, {"role": "assistant", "content": said()}]} for _ in range(count)
    ]


def with_lora(model: LlamaForCausalLM, seed: int = 0, started: bool = True) -> Any:
    """A rank-2 adapter on every linear map; `started` gives lora_B random numbers, so that the adapter does something."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers by a name that transformers renamed
        adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    if started:
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    return adapted


@pytest.fixture
def trainer_of(tmp_path: Path) -> Callable[..., Trainer]:
    """Builds a trainer: `trainer_of(class, rows, model=…, **arguments of SFTConfig)`; float32, no shuffling, no noise."""

    def build(
        trainer_class: type[Trainer] = SFTTrainer,
        rows: Sequence[Row] = (),
        *,
        model: Any = None,
        callbacks: Sequence[Any] = (),
        **changes: Any,
    ) -> Trainer:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / "trainer"),
            "per_device_train_batch_size": 4,
            "max_steps": 3,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "max_length": 64,
            "seed": 0,
        }
        model = with_lora(tiny_llama()) if model is None else copy.deepcopy(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return trainer_class(
                model=model,
                args=SFTConfig(**(settings | changes)),
                train_dataset=Dataset.from_list([trainable(row) for row in rows or chat_rows(12)]),
                processing_class=chat_tokenizer(),
                callbacks=list(callbacks),
            )

    return build


def weights_after(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Trains, and gives the trained weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    return {name: w.detach().clone() for name, w in trainer.model.named_parameters() if w.requires_grad}


def step_losses(trainer: Trainer) -> list[float]:
    """The loss of every step, as logged."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def gradients_of_one_step(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Gradients that the trainer has accumulated at its first optimizer step, before the step changes anything."""
    found: dict[str, torch.Tensor] = {}

    def keep(*_args: Any, **_kwargs: Any) -> None:
        if not found:
            found.update({n: w.grad.clone() for n, w in trainer.model.named_parameters() if w.grad is not None})

    trainer.create_optimizer_and_scheduler(num_training_steps=3)
    trainer.optimizer.register_step_pre_hook(keep)
    weights_after(trainer)
    return found
