"""Harvest and dictionary at the sizes that users have: random weights in the shapes of Qwen2.5, with a LoRA adapter switched.

    python benchmarks/big_model.py --sizes 0.5B 1.5B --tokens 4096 --write            # on a CPU
    python benchmarks/big_model.py --sizes 0.5B 1.5B 7B --device cuda --tokens 262144 --write

Nothing is written to disk: the model is made in memory, every weight random, the adapter of rank 16 on every linear layer. Two
truncated forward passes (base, tuned) of every batch up to the middle layer, then steps of a change dictionary on what came
out. "Limit" is the rate of one matrix product of the model's own shape and precision, measured in the same run.
"""

import argparse
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tables import markdown_table, write_section
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from mneme.activations.harvest import harvest
from mneme.audit.forecast import Hardware, Shape, forecast
from mneme.dictionaries.crosscoder import input_statistics
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.models.architecture import find_parts
from mneme.models.pair import ModelPair, Precision, widen_stream

SIZES: dict[str, dict[str, Any]] = {
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True},
    "7B": {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False},
}  # fmt: skip
ROW, RANK = 256, 16


def random_pair(size: str, device: torch.device, precision: Precision) -> ModelPair:
    """A model of that shape with a LoRA adapter that changes it, both random."""
    config = Qwen2Config(**SIZES[size])
    torch.manual_seed(0)
    with torch.device(device):
        narrow = torch.bfloat16 if precision == "bfloat16" else torch.float32
        model = AutoModelForCausalLM.from_config(config, dtype=narrow).eval()
        wrapped: Any = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    wrapped.requires_grad_(False).eval()
    with wrapped.disable_adapter():
        parts = find_parts(wrapped.get_base_model())
    if precision == "bfloat16":
        widen_stream(parts.embedding)
    count = sum(weight.numel() for name, weight in wrapped.named_parameters() if "lora_" not in name)
    return ModelPair(
        tokenizer=PreTrainedTokenizerFast.__new__(PreTrainedTokenizerFast), base_name=size, tuned_name=size,
        base_folder=Path(), tuned_folder=Path(), adapter=True, architecture=type(model).__name__,
        n_layers=config.num_hidden_layers, width=config.hidden_size, vocab_size=config.vocab_size, n_parameters=count,
        max_positions=None, base_parts=parts, tuned_parts=parts, peft_model=wrapped, precision=precision,
    )  # fmt: skip


def clock(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run of `work`, everything on the device done."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def matmul_limit(width: int, hidden: int, device: torch.device, precision: Precision) -> float:
    """FLOP/s of [4096, width] @ [width, hidden], the best of five."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = torch.randn(4096, width, device=device, dtype=kind), torch.randn(width, hidden, device=device, dtype=kind)
    return 2.0 * 4096 * width * hidden / min(clock(lambda: a @ b, device) for _ in range(5))


def measure(size: str, tokens: int, batch_tokens: int, device: torch.device, precision: Precision) -> list[str]:
    """One row of the table."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    pair = random_pair(size, device, precision)
    config = pair.base_parts.model.config
    limit = matmul_limit(pair.width, config.intermediate_size, device, precision)
    layer = pair.n_layers // 2
    ids = torch.randint(0, pair.vocab_size, (max(2, tokens // ROW), ROW))
    rows = max(1, batch_tokens // ROW)
    next(iter(harvest(pair, ids[:1], [layer], batch_rows=1)))
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def read() -> None:
        for found in harvest(pair, ids, [layer], batch_rows=rows):
            if len(kept) < 4:
                kept.append((found.m[layer].flatten(0, 1), found.q[layer].flatten(0, 1)))

    seconds = clock(read, device)
    read_blocks = pair.base_parts.blocks[: layer + 1]
    blocks = sum(weight.numel() for name, weight in read_blocks.named_parameters() if "lora_" not in name)
    flops = 2 * 2.0 * blocks * ids.numel()
    m, q = (torch.cat(column)[:1024] for column in zip(*kept, strict=True))
    latents = min(16_384, 4 * pair.width)
    settings = Settings("change", pair.width, latents, (1.0,), (0,), 100, len(q))
    trainer = Trainer(settings, *input_statistics("change", m, q))
    trainer.step(m, q)
    step = min(clock(lambda: trainer.step(m, q), device) for _ in range(3))
    encoder = torch.randn(pair.width, latents, device=device)
    product = min(clock(lambda: q @ encoder, device) for _ in range(3))
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident
    cells = [size, f"{pair.n_parameters / 1e9:.2f} B", f"{ids.numel() / seconds:,.0f}", f"{flops / seconds / 1e9:,.0f}"]
    cells += [f"{limit / 1e9:,.0f}", f"{flops / seconds / limit:.0%}", f"{latents:,}", f"{len(q) / step:,.0f}"]
    return [*cells, f"{step / product:.2f}", f"{peak / 1e9:.1f}"]


def planned_minutes(size: str, tokens: int, machine: Hardware) -> float:
    """What `--plan` says of a whole audit of `tokens` tokens."""
    config = Qwen2Config(**SIZES[size])
    with torch.device("meta"):
        parameters = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    shape = Shape(config, parameters, config.hidden_size, config.num_hidden_layers, config.vocab_size, True)
    return forecast(shape, tokens, ROW, "change", machine=machine).seconds / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["0.5B"])
    parser.add_argument("--tokens", type=int, default=4096, help="tokens to harvest")
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], help="default: bfloat16 on a GPU")
    parser.add_argument("--plan-tokens", type=int, help="say also what an audit of so many tokens is planned to take")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    precision: Precision = options.precision or ("bfloat16" if device.type == "cuda" else "float32")
    head = ["shape", "parameters", "harvest tokens/s", "harvest GFLOP/s", "limit GFLOP/s", "share", "latents"]
    head += ["dictionary tokens/s", "step / its encoder product", "peak GB"]
    rows = []
    for size in options.sizes:
        rows.append(measure(size, options.tokens, options.batch_tokens, device, precision))
        if options.plan_tokens:
            rows[-1].append(f"{planned_minutes(size, options.plan_tokens, Hardware(str(device), precision)):,.0f}")
        print(dict(zip(head, rows[-1], strict=False)), flush=True)
    if options.plan_tokens:
        head.append(f"planned minutes, audit of {options.plan_tokens:,} tokens")
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads of a CPU"
    machine = f"{platform.machine()}, {where}, {precision}, torch {torch.__version__}."
    table = markdown_table(head, rows)
    print(table)
    if options.write:
        given = f"--sizes {' '.join(options.sizes)} --tokens {options.tokens} --device {options.device}"
        text = f"{machine} Harvest up to the middle layer, LoRA of rank {RANK} on every linear layer.\n\n{table}"
        command = f"python benchmarks/big_model.py {given} --write"
        write_section(f"big-model-{device.type}", f"Large shapes, {device.type}", command, text)


if __name__ == "__main__":
    main()
