"""What `mneme.SideEffects` costs inside three trainers on a real model, and whether its metrics are in TensorBoard files.

    python benchmarks/watch_cost.py MODEL CORPUS [--trainer sft|dpo|plain] [--steps 60] [--tokens 256] [--every N]

Prints one JSON line a trainer: looks, their seconds, the seconds of training without them, the share, and the tags found. CPU
seconds stand beside wall seconds, because on a machine with other work only they say anything.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainingArguments

import mneme
from mneme.models.adapters import lora_config
from mneme.text.documents import read_corpus


class Timed(mneme.SideEffects):
    """Counts the CPU seconds of its own calls beside their wall seconds."""

    cpu_seconds = 0.0

    def __getattribute__(self, name: str) -> Any:
        """What trainers call, timed."""
        found = super().__getattribute__(name)
        if not name.startswith("on_"):
            return found

        def timed(*args: Any, **given: Any) -> Any:
            started = time.process_time()
            try:
                return found(*args, **given)
            finally:
                self.cpu_seconds += time.process_time() - started

        return timed


def trainer_of(kind: str, model: Any, tokenizer: Any, texts: list[str], settings: dict[str, Any], tokens: int) -> Trainer:
    """One of the three, on rows of the text."""
    if kind == "sft":
        from trl import SFTConfig, SFTTrainer

        rows = Dataset.from_list([{"text": text} for text in texts])
        args = SFTConfig(**settings, max_length=tokens)
        return SFTTrainer(model, args, train_dataset=rows, processing_class=tokenizer, peft_config=lora_config(8))
    if kind == "dpo":
        from trl import DPOConfig, DPOTrainer

        words = [text.split() for text in texts if len(text.split()) > 90]
        pairs = itertools.pairwise(words)
        rows = Dataset.from_list(
            [
                {"prompt": " ".join(a[:30]), "chosen": " " + " ".join(a[30:80]), "rejected": " " + " ".join(b[30:80])}
                for a, b in pairs
            ]
        )
        args = DPOConfig(**settings, max_length=tokens)
        return DPOTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer, peft_config=lora_config(8))
    rows = Dataset.from_list([{"input_ids": tokenizer(text)["input_ids"][:tokens]} for text in texts])
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return Trainer(
        model, TrainingArguments(**settings), train_dataset=rows, data_collator=collator, processing_class=tokenizer
    )


def main() -> None:
    """Train and say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--trainer", choices=["sft", "dpo", "plain"], default="sft")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--every", type=int, default=None)
    given = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    texts = list(read_corpus(given.corpus, tokenizer=tokenizer).texts[:2000])
    watch = Timed(corpus=given.corpus, every=given.every)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "output_dir": folder,
            "per_device_train_batch_size": 2,
            "max_steps": given.steps,
            "learning_rate": 1e-4,
            "report_to": ["tensorboard"],
            "save_strategy": "no",
            "use_cpu": True,
            "logging_steps": 10,
            "disable_tqdm": True,
        }
        model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
        trainer = trainer_of(given.trainer, model, tokenizer, texts, settings, given.tokens)
        trainer.add_callback(watch)
        started, cpu = time.monotonic(), time.process_time()
        trainer.train()
        wall, cpu = time.monotonic() - started, time.process_time() - cpu
        tags = set()
        for path in Path(folder).rglob("events.out.tfevents*"):
            events = EventAccumulator(str(path))
            events.Reload()
            tags |= {tag for tag in events.Tags()["scalars"] if "side_effects" in tag}
    found = {
        "trainer": given.trainer,
        "steps": given.steps,
        "looks": [(look.step, round(look.seconds, 1), len(look.effects)) for look in watch.looks],
        "tokens_a_look": watch.tokens_read,
        "training_seconds": round(wall - watch.seconds, 1),
        "watching_seconds": round(watch.seconds, 1),
        "share": round(watch.seconds / (wall - watch.seconds), 4),
        "cpu_seconds": round(cpu - watch.cpu_seconds, 1),
        "watching_cpu_seconds": round(watch.cpu_seconds, 1),
        "cpu_share": round(watch.cpu_seconds / (cpu - watch.cpu_seconds), 4),
        "tags": len(tags),
        "displaced": watch.looks[-1].displaced if watch.looks else None,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
