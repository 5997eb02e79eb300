"""What an audit costs beside bare forward passes of both models over the same text without logits, and in memory.

    python benchmarks/audit_cost.py BASE TUNED CORPUS --tokens 65536 --threads 2 --dictionary none
    python benchmarks/audit_cost.py --random DIR TOKENIZER CORPUS --tokens 16384       # width 640, 18 blocks, 262,144 ids

CPU seconds and wall seconds of the audit, of the bare passes before and after it (the machine's speed moves), their ratio, the
plan's seconds and bytes, and the peak beside the weights of the models. `--random` makes the models first: a base of random
weights, a tuned one with every matrix but the vocabulary's changed by 5 % of its spread, with `--adapter` a LoRA of rank 16.
"""

import argparse
import json
import resource
import shutil
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3TextConfig

import mneme
from mneme.models.checkpoints import weight_files
from mneme.models.hooks import read_residuals
from mneme.models.pair import ModelPair, load_pair
from mneme.predict.item_reading import SIDES

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def random_models(folder: Path, tokenizer: Path, *, adapter: bool) -> tuple[Path, Path]:
    """The two folders, with the tokenizer that lies in `tokenizer`, which may have fewer ids."""
    config = Gemma3TextConfig(
        hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1,
        head_dim=256, vocab_size=262_144, max_position_embeddings=8192, sliding_window=512, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    base, tuned = folder / "base", folder / ("adapter" if adapter else "tuned")
    model.save_pretrained(base)
    if adapter:
        wrapped = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        wrapped.peft_config["default"].base_model_name_or_path = str(base)
        wrapped.save_pretrained(tuned)
    else:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 2 and "embed" not in name:
                    weight.add_(0.05 * weight.std() * torch.randn_like(weight))
        model.save_pretrained(tuned)
    for file in _TOKENIZER_FILES:
        for place in (base, tuned) if not adapter else (base,):
            if (tokenizer / file).is_file():
                shutil.copy(tokenizer / file, place / file)
    return base, tuned


def bare(pair: ModelPair, tokens: int) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of both models over random rows, up to the last block; the better of two halves, doubled."""
    ids = torch.randint(5, min(pair.vocab_size, 40_000), (max(2, tokens // 512), 256))
    times = []
    for _ in range(2):
        cpu, wall = time.process_time(), time.perf_counter()
        for part in torch.split(ids, 4):
            for side in SIDES:
                with pair.using(side) as parts:
                    read_residuals(parts, part, [pair.n_layers - 1])
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    scale = tokens / ids.numel()
    return min(cpu for cpu, _ in times) * scale, min(wall for _, wall in times) * scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a folder; with --random the folder that is made")
    parser.add_argument("tuned", help="a folder; with --random one that has a tokenizer")
    parser.add_argument("corpus")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--adapter", action="store_true")
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dictionary", default="none")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bare-tokens", type=int, default=4096, help="tokens that the bare passes are timed on")
    parser.add_argument("--out", type=Path, default=Path("runs/audit-cost"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base, tuned = options.base, options.tuned
    if options.random:
        base, tuned = map(str, random_models(Path(base), Path(tuned), adapter=options.adapter))
    before = bare(load_pair(base, tuned), options.bare_tokens)
    started = time.process_time(), time.perf_counter()
    mneme.audit(
        base, tuned, corpus=options.corpus, tokens=options.tokens, dictionary=options.dictionary, quick=options.quick,
        out=options.out, overwrite=True, machine=mneme.Machine(threads=options.threads),
    )  # fmt: skip
    cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    after = bare(load_pair(base, tuned), options.bare_tokens)
    plan = json.loads((options.out / "plan.json").read_text("utf-8"))
    tokens = plan["planned"]["tokens"]
    passes = [(before[i] + after[i]) / 2 / options.bare_tokens * tokens for i in range(2)]
    weights = sum(sum(file.stat().st_size for file in weight_files(Path(folder))) for folder in (base, tuned))
    found = {
        "tokens": tokens,
        "audit CPU s": cpu,
        "audit wall s": wall,
        "bare CPU s": passes[0],
        "bare wall s": passes[1],
        "CPU ratio": cpu / passes[0],
        "planned s": plan["planned"]["seconds"],
        "planned GB": plan["planned"]["peak_bytes"] / 1e9,
        "peak GB": peak / 1e9,
        "peak beside the weights GB": (peak - weights) / 1e9,
    }
    for name, value in found.items():
        print(f"{name}: {value:,.2f}")


if __name__ == "__main__":
    main()
