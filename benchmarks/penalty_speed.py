"""What a penalty costs in time a step, against plain SFT with LoRA: KL and LDIFS, on the training batch and on probe rows.

    python benchmarks/penalty_speed.py            about two minutes on one core, then docs/benchmarks.md

A random Llama of 6 layers, width 256 and 32,000 tokens of vocabulary; LoRA of rank 16 on every linear map; 8 rows of 64 tokens
a step, half of each row learned. TRL's trainer in all arms, in turn, block by block; CPU time, so that other work on the
machine does not count; first steps are left out. The interval is over blocks.
"""

import argparse
import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch
import trl
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from tables import markdown_table, write_section
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from mneme.stats import clustered_mean
from mneme.train.guarding import guard
from mneme.train.penalties import Penalty, Probes, kl_tuned_to_base, ldifs

VOCAB, LAYERS, WIDTH, ROWS, TOKENS, LIMIT = 32_000, 6, 256, 8, 64, 1.6
WARM_STEPS = 2


class Clock(TrainerCallback):  # type: ignore[misc]
    """CPU seconds of every step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.began = 0.0

    def on_step_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self.began = time.process_time()

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.seconds.append(time.process_time() - self.began)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word: w0, w1, …"""
    words = {"<pad>": 0, "<unk>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCAB)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Rows of TOKENS tokens, half prompt, half completion."""
    ids = np.random.default_rng(seed).integers(3, VOCAB, (count, TOKENS))
    half = TOKENS // 2
    return [
        {"prompt": " ".join(f"w{i}" for i in row[:half]) + " ", "completion": " ".join(f"w{i}" for i in row[half:])}
        for row in ids
    ]


def step_seconds(penalties: list[Penalty], steps: int, seed: int) -> float:
    """Median CPU seconds of a step."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        pad_token_id=0,
        eos_token_id=2,
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = trl.SFTConfig(
            output_dir=folder,
            max_steps=steps + WARM_STEPS,
            per_device_train_batch_size=ROWS,
            max_length=TOKENS,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1000,
        )
        trainer = guard(trl.SFTTrainer, penalties)(
            model=LlamaForCausalLM(config),
            args=arguments,
            train_dataset=Dataset.from_list(rows(ROWS * (steps + WARM_STEPS), seed)),
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return float(np.median(clock.seconds[WARM_STEPS:]))


def arms() -> dict[str, list[Penalty]]:
    """What is compared: the first is plain."""
    probes = Probes(rows(ROWS * 4, 99), batch_rows=ROWS // 4)
    return {
        "plain SFT": [],
        "kl on the training batch": [kl_tuned_to_base(0.1)],
        "kl on probe rows, a quarter of the batch": [kl_tuned_to_base(0.1, probes)],
        "ldifs on the training batch": [ldifs(1.0)],
        "ldifs on probe rows, a quarter of the batch": [ldifs(1.0, probes)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    seconds = {
        name: np.array([step_seconds(penalties, options.steps, block) for block in range(options.blocks)])
        for name, penalties in arms().items()
    }
    plain = seconds["plain SFT"]
    lines = []
    for name, own in seconds.items():
        ratio = clustered_mean(own / plain, np.ones(len(own)), "times").estimate
        there = "" if name == "plain SFT" else "yes" if ratio.value <= LIMIT else "no"
        shown = f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
        lines.append([name, f"{1000 * float(np.median(own)):.0f}", shown, there])
        print(lines[-1], flush=True)
    body = (
        f"Llama, {LAYERS} layers, width {WIDTH}, vocabulary {VOCAB:,}, LoRA rank 16; {ROWS} rows of {TOKENS} tokens a step, "
        f"half of them learned; TRL {trl.__version__}, one thread, {options.blocks} blocks of {options.steps} steps.\n\n"
        + markdown_table(["training", "CPU ms a step", "times plain", f"<= {LIMIT}"], lines)
    )
    write_section("penalty-speed", "Penalties: time a step", "python benchmarks/penalty_speed.py", body)


if __name__ == "__main__":
    main()
