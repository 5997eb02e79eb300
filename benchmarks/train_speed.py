"""What `mneme train` costs on a real model against a plain loop, CPU time a step: LoRA, all weights, and with penalties.

    python benchmarks/train_speed.py --model FOLDER --data ROWS.jsonl     ten minutes on a quiet core, docs/benchmarks.md

The model is SmolLM2-135M-Instruct (`mneme.worlds.real.model`), the rows are chats. The plain loop is what anyone would
write: rows in order, padded to the longest of a batch, prompts masked, `model(ids, labels=labels).loss.backward()`, AdamW.
Arms take turns, block by block, in one process; first steps are left out. CPU time, because other work runs on the machine;
a step is from the end of one to the end of the next, so that checkpoints and data count. The interval is over blocks.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from tables import markdown_table, write_section
from transformers import AutoModelForCausalLM, AutoTokenizer

import mneme
from mneme.models.adapters import attach_lora
from mneme.stats import clustered_mean
from mneme.text.encoded import Encoded
from mneme.text.rows import Row, encode_rows, read_rows
from mneme.train.progress import ShowProgress

WARM_STEPS = 1
LENGTH = 128


class Clock(ShowProgress):
    """CPU seconds of every step, from the end of the one before: what is done between two steps counts."""

    seconds: list[float] = []  # noqa: RUF012  one run at a time

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        super().on_train_begin(*args, **kwargs)
        Clock.seconds, self.began = [], time.process_time()

    def on_step_end(self, *_args: object, **_kwargs: object) -> None:
        now = time.process_time()
        Clock.seconds.append(now - self.began)
        self.began = now


def plain(model: Path, rows: list[Row], batch: int, rank: int | None) -> float:
    """CPU seconds a step of the loop without mneme."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    encoded = encode_rows(rows, tokenizer, LENGTH)
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).train()
    if rank:
        net = attach_lora(net, rank, seed=0)
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5)
    seconds = []
    began = time.process_time()
    for first in range(0, len(encoded), batch):
        ids, mask, labels = padded(encoded[first : first + batch], tokenizer.pad_token_id or 0)
        net(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        now = time.process_time()
        seconds.append(now - began)
        began = now
    return float(np.mean(seconds[WARM_STEPS:]))


def padded(texts: list[Encoded], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, attention mask, labels) of some rows."""
    longest = max(len(text.ids) for text in texts)
    ids, mask, labels = (torch.full((len(texts), longest), fill) for fill in (pad, 0, -100))
    for row, text in enumerate(texts):
        n = len(text.ids)
        ids[row, :n], mask[row, :n] = torch.tensor(text.ids), 1
        labels[row, :n] = torch.where(torch.tensor(text.counted), ids[row, :n], -100)
    return ids, mask, labels


def ours(model: Path, rows: list[Row], batch: int, rank: int, safeguards: dict[str, float]) -> float:
    """CPU seconds a step of `mneme train`."""
    quiet = mneme.Progress(Console(quiet=True))
    with tempfile.TemporaryDirectory() as folder, patch("mneme.train.run.ShowProgress", Clock):
        training = mneme.Training(lora_rank=rank, batch=batch, epochs=1, learning_rate=2e-5)
        mneme.train(model, rows, out=folder, training=training, max_length=LENGTH, safeguards=safeguards, progress=quiet)
    return float(np.mean(Clock.seconds[WARM_STEPS:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--arms", default="", help="only arms whose name holds this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = read_rows(options.data)
    arms: dict[str, Callable[[list[Row]], float]] = {}
    for name, rank in (("LoRA of rank 16", 16), ("all weights", 0)):
        arms[f"plain loop, {name}"] = lambda rows, rank=rank: plain(options.model, rows, options.batch, rank)
        for told, safeguards in (("", {}), (" + kl", {"kl": 0.1}), (" + ldifs", {"ldifs": 1.0})):
            arms[f"mneme train{told}, {name}"] = lambda rows, rank=rank, safeguards=safeguards: ours(
                options.model, rows, options.batch, rank, safeguards
            )
    arms = {name: run for name, run in arms.items() if options.arms in name}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for block in range(options.blocks):
        size = options.batch * (options.steps + WARM_STEPS)
        rows = every[block * size : (block + 1) * size]
        for name, run in arms.items():
            seconds[name].append(run(rows))
            gc.collect()
            print(block, name, f"{seconds[name][-1]:.2f}", flush=True)
    lines = []
    for name, own in seconds.items():
        of = "plain loop" if "+" not in name else "mneme train"
        reference = seconds.get(f"{of}, {name.split(', ')[1]}", own)
        ratio = clustered_mean(np.array(own) / np.array(reference), np.ones(len(own)), "times").estimate
        shown = "" if own is reference else f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f}) x {of}"
        lines.append([name, f"{float(np.median(own)):.2f}", shown])
        print(lines[-1], flush=True)
    body = (
        f"{options.model.name}: {json.loads((options.model / 'config.json').read_text())['num_hidden_layers']} layers; "
        f"{options.data.name}, {options.batch} rows a step of at most {LENGTH} tokens, prompts not learned; one thread, "
        f"{options.blocks} blocks of {options.steps} steps.\n\n"
        + markdown_table(["training", "CPU s a step", "ratio (interval over blocks)"], lines)
    )
    write_section(
        "train-speed",
        "Training a real model: time a step",
        "python benchmarks/train_speed.py --model FOLDER --data gsm8k.jsonl",
        body,
    )


if __name__ == "__main__":
    main()
