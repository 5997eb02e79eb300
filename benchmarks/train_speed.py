"""What `mneme train` costs on a real model against a plain loop, CPU time a step: LoRA, all weights, and with penalties.

    python benchmarks/train_speed.py --model FOLDER --data ROWS.jsonl     five minutes on a quiet core, docs/benchmarks.md

The model is SmolLM2-135M-Instruct (`mneme.worlds.real.model`), the rows are chats. The plain loop is what anyone would
write: rows in order, padded to the longest of a batch, prompts masked, `model(ids, labels=labels).loss.backward()`, clipping,
AdamW. The other arms make the same step with the trainer of `mneme train`. All arms of a kind of weights are built first and
then take a step each on the same rows, in turn, in one process; CPU time, because other work runs on the machine. The first
round is left out; the interval is over rounds.
"""

import argparse
import gc
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trl
from datasets import Dataset, disable_progress_bars
from tables import markdown_table, write_section
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from mneme.models.adapters import attach_lora
from mneme.stats import TooFew, clustered_mean
from mneme.text.encoded import Encoded
from mneme.text.files import Row
from mneme.text.rows import encode_row, encode_rows, read_rows, trainable
from mneme.train.guarding import guard
from mneme.train.learned import lean
from mneme.train.penalties import Penalty, kl_tuned_to_base, ldifs

Step = Callable[[Sequence[int]], None]
"""Makes one optimizer step on some of the rows."""


def padded(texts: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """What a collator gives: ids, attention mask, labels."""
    longest = max(len(text.ids) for text in texts)
    ids, mask, labels = (torch.full((len(texts), longest), fill) for fill in (pad, 0, -100))
    for row, text in enumerate(texts):
        n = len(text.ids)
        ids[row, :n], mask[row, :n] = torch.tensor(text.ids), 1
        labels[row, :n] = torch.where(torch.tensor(text.counted), ids[row, :n], -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def network(folder: Path, rank: int) -> Any:
    """The model that is trained, in training mode."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return (attach_lora(model, rank, seed=0) if rank else model).train()


def finishing(model: Any) -> Callable[[], None]:
    """Clipping, AdamW, and no gradient left."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-5)

    def finish() -> None:
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return finish


def plain(folder: Path, encoded: list[Encoded], pad: int, rank: int) -> Step:
    """The loop without mneme."""
    model = network(folder, rank)
    finish = finishing(model)

    def step(which: Sequence[int]) -> None:
        model(**padded([encoded[i] for i in which], pad)).loss.backward()
        finish()

    return step


def trained(folder: Path, rows: list[Row], tokenizer: PreTrainedTokenizerBase, rank: int, penalties: list[Penalty]) -> Step:
    """The trainer of `mneme train`."""
    model = network(folder, rank)
    arguments = trl.SFTConfig(
        output_dir=tempfile.mkdtemp(),
        max_steps=1,
        max_length=LENGTH,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = guard(lean(trl.SFTTrainer), penalties)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([trainable(row) for row in rows]),
        processing_class=tokenizer,
    )
    finish = finishing(model)
    trainer.current_gradient_accumulation_steps = 1

    def step(which: Sequence[int]) -> None:
        batch = trainer.data_collator([trainer.train_dataset[i] for i in which])
        trainer.training_step(model, batch, int((batch["labels"][:, 1:] != -100).sum()))
        finish()

    return step


LENGTH = 128
PENALTIES: dict[str, list[Penalty]] = {"mneme train": [], "with kl": [kl_tuned_to_base(0.1)], "with ldifs": [ldifs(1.0)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--arms", nargs="*", default=list(PENALTIES), choices=list(PENALTIES), help="beside the plain loop")
    parser.add_argument("--ranks", type=int, nargs="*", default=[16, 0], help="of LoRA; 0: all weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    warnings.simplefilter("ignore")
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    every = read_rows(options.data).rows
    fitting = [row for row in every if len(encode_row(row, tokenizer).ids) <= LENGTH]
    rows = fitting[: options.batch * (options.rounds + 1)]
    encoded = encode_rows(rows, tokenizer, LENGTH)
    lines = []
    for rank in options.ranks:
        arms = {"plain loop": plain(options.model, encoded, tokenizer.pad_token_id or 0, rank)}
        for name in options.arms:
            arms[name] = trained(options.model, rows, tokenizer, rank, PENALTIES[name])
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(options.rounds + 1):
            which = range(turn * options.batch, (turn + 1) * options.batch)
            for name, step in arms.items():
                began = time.process_time()
                step(which)
                seconds[name].append(time.process_time() - began)
            print(rank, turn, {name: round(own[-1], 2) for name, own in seconds.items()}, flush=True)
        measured = {name: np.array(own[1:]) for name, own in seconds.items()}
        for name, own in measured.items():
            told = [
                _ratio(own, measured[of]) if name not in (of, "plain loop") and (of == "plain loop" or "with" in name) else ""
                for of in ("plain loop", "mneme train")
            ]
            lines.append([f"LoRA of rank {rank}" if rank else "all weights", name, f"{float(np.median(own)):.2f}", *told])
            print(lines[-1], flush=True)
        del arms
        gc.collect()
    layers = json.loads((options.model / "config.json").read_text())["num_hidden_layers"]
    body = (
        f"SmolLM2-135M-Instruct ({layers} layers), {options.data.name}, {options.batch} rows a step of at most {LENGTH} "
        f"tokens, prompts not learned; one thread, {options.rounds} rounds, TRL {trl.__version__}. Penalties on the training "
        "batch.\n\n" + markdown_table(["trained", "arm", "CPU s a step", "time / plain loop", "time / mneme train"], lines)
    )
    write_section(
        "train-speed",
        "Training a real model: time a step",
        "python benchmarks/train_speed.py --model … --data gsm8k.jsonl",
        body,
    )


def _ratio(own: np.ndarray, reference: np.ndarray) -> str:
    found = clustered_mean(own / reference, np.ones(len(own)), "times")
    if isinstance(found, TooFew):  # rounds, for an interval
        return f"{np.median(own / reference):.2f}"
    return f"{found.estimate.value:.2f} ({found.estimate.low:.2f}-{found.estimate.high:.2f})"


if __name__ == "__main__":
    main()
