"""How an audit grows: time and memory against tokens, dictionary step against its size, processes, and plan against fact.

    python benchmarks/scale.py --tokens 131072 262144 524288 --write
    python benchmarks/scale.py --parts processes plan --write

Each audit is a process of its own, on one thread, with random-ish pairs of Llama shape: a model and the same with one matrix
a block disturbed. Growth exponents are least squares in log-log.
"""

import argparse
import json
import os
import platform
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tables import markdown_table, write_section
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from mneme.activations.harvest import harvest
from mneme.dictionaries.settings import Settings
from mneme.dictionaries.training import Trainer
from mneme.models.pair import load_pair
from mneme.worlds.catalogue import build_organism

SIZES = {"1 M": (128, 4), "5 M": (256, 6), "26 M": (512, 8)}
PROCESSES_TOKENS = 131_072
PLAN_TOKENS = 65_536


def write_pair(folder: Path, width: int, layers: int) -> tuple[Path, Path]:
    """A random model of that shape with the tokenizer of the built-in world, the same with a matrix of every block changed."""
    tokenizer = AutoTokenizer.from_pretrained(build_organism("identical").base)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=width // 32, max_position_embeddings=256, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    paths = folder / "base", folder / "tuned"
    for path in paths:
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        with torch.no_grad():
            for block in model.model.layers:
                weight = block.mlp.down_proj.weight
                weight += 0.3 * weight.std() * torch.randn(weight.shape)
    return paths


def text_of(folder: Path, copies: int) -> Path:
    """The built-in corpus, several times over."""
    path = folder / "text.txt"
    path.write_text(build_organism("identical").corpus.read_text("utf-8") * copies, "utf-8")
    return path


def audit(base: Path, tuned: Path, corpus: Path, out: Path, *options: str, start: str = "alone") -> dict[str, float]:
    """Seconds of the whole command, of CPU, peak bytes, and what was planned. `start`: alone, or two processes by torchrun or
    each by itself, as a scheduler starts them."""
    command = ["-m", "mneme", "audit", str(base), str(tuned), "--corpus", str(corpus), "--out", str(out), "--threads", "1"]
    command = [sys.executable, *command, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ranks: list[dict[str, str]] = [{}]
    if start == "torchrun":
        command[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    elif start == "direct":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    running = [
        subprocess.Popen(command, env=environment | rank, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for rank in ranks
    ]
    if any(process.wait() for process in running):
        raise SystemExit(f"{' '.join(command)} failed; run it by itself to see why.")
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    plan = json.loads((out / "plan.json").read_text())
    return {
        "seconds": seconds,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak": plan["measured"]["peak_bytes"],
        "measured": plan["measured"]["seconds"],
        "planned": plan["planned"]["seconds"],
        "flops": plan["planned"]["flops"],
        "planned_peak": plan["planned"]["peak_bytes"],
    }


def exponent(x: list[float], y: list[float]) -> float:
    """Slope of log y on log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def tokens_part(counts: list[int], folder: Path) -> str:
    """Time and memory against tokens."""
    base, tuned = write_pair(folder, 128, 4)
    corpus = text_of(folder, -(-max(counts) // 300_000))
    found = [audit(base, tuned, corpus, folder / f"t{n}", "--tokens", str(n)) for n in counts]
    rows = [
        [f"{n:,}", f"{f['cpu']:.0f}", f"{n / f['cpu']:,.0f}", f"{f['peak'] / 1e6:.0f}"]
        for n, f in zip(counts, found, strict=True)
    ]
    slope = exponent([float(n) for n in counts], [f["cpu"] for f in found])
    grown = found[-1]["peak"] / found[0]["peak"] - 1
    head = ["tokens", "CPU seconds", "tokens/s", "peak MB"]
    return markdown_table(head, rows) + f"\nExponent of time in tokens {slope:.2f}; memory {grown:+.1%} from least to most.\n"


def dictionary_part() -> str:
    """Step time against the number of latents, width 256, batch 1,024, k 32."""
    sizes, seconds = [1024, 2048, 4096, 8192, 16_384], []
    for latents in sizes:
        trainer = Trainer(Settings("change", 256, latents, (1.0,), (0,), 100, 1024), torch.zeros(256), torch.ones(256))
        x = torch.randn(1024, 256)
        trainer.step_normalised(x)
        times = []
        for _ in range(12):
            started = time.process_time()
            trainer.step_normalised(x)
            times.append(time.process_time() - started)
        seconds.append(float(np.median(times)))
    rows = [[f"{n:,}", f"{1e3 * s:.1f}"] for n, s in zip(sizes, seconds, strict=True)]
    slope = exponent([float(n) for n in sizes], seconds)
    return markdown_table(["latents", "CPU ms a step"], rows) + f"\nExponent of step time in latents {slope:.2f}.\n"


def processes_part(folder: Path) -> str:
    """One process against two, the built-in pair, one thread each, alternating."""
    organism = build_organism("unlearn-biology")
    names = {"alone": "1", "torchrun": "2, by torchrun", "direct": "2, each started by itself"}
    times: dict[str, list[float]] = {start: [] for start in names}
    options = ("--areas", str(organism.areas), "--tokens", str(PROCESSES_TOKENS))
    reports = set()
    for turn in range(2):
        for start in names:
            out = folder / f"{start}-{turn}"
            times[start].append(audit(organism.base, organism.tuned, organism.corpus, out, *options, start=start)["seconds"])
            reports.add((out / "report.json").read_bytes())
    rows = []
    for start, found in times.items():
        ratios = [alone / taken for alone, taken in zip(times["alone"], found, strict=True)]
        cells = " / ".join(f"{ratio:.2f}" for ratio in ratios)
        rows.append([names[start], " / ".join(f"{t:.1f}" for t in found), cells, f"{np.median(ratios):.2f}"])
    same = "The same bytes" if len(reports) == 1 else "DIFFERENT bytes"
    head = ["processes", "seconds", "times as fast as one", "median"]
    return markdown_table(head, rows) + f"\n{same} of report.json in all {2 * len(names)} runs.\n"


def matmul_limit() -> float:
    """FLOP/s of one thread on a square matrix product in float32, the best of five."""
    torch.set_num_threads(1)
    a, times = torch.randn(1024, 1024), []
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    return 2.0 * 1024**3 / min(times)


def plan_part(folder: Path) -> str:
    """Plan against fact on three sizes."""
    rows, parameters, seconds = [], [], []
    for name, (width, layers) in SIZES.items():
        here = folder / name.replace(" ", "")
        base, tuned = write_pair(here, width, layers)
        found = audit(base, tuned, text_of(here, 1), here / "run", "--tokens", str(PLAN_TOKENS))
        ratio, memory = found["planned"] / found["measured"], found["planned_peak"] / found["peak"]
        parameters.append(float(json.loads((here / "run" / "report.json").read_text())["pair"]["parameters"]))
        seconds.append(found["measured"])
        cells = [f"{found['planned']:.0f}", f"{found['measured']:.0f}", f"{ratio:.2f}"]
        cells += [f"{found['planned_peak'] / 1e6:.0f}", f"{found['peak'] / 1e6:.0f}", f"{memory:.2f}"]
        rows.append([f"{parameters[-1] / 1e6:.1f} M", *cells])
    head = ["parameters", "planned s", "measured s", "ratio", "planned MB", "measured MB", "ratio"]
    text = f"Audit of {PLAN_TOKENS:,} tokens. Exponent of time in parameters {exponent(parameters, seconds):.2f}."
    return f"{markdown_table(head, rows)}\n{text}\n"


def models_part(folder: Path) -> str:
    """Harvest against model size, beside the rate of a matrix product measured in the same run."""
    torch.set_num_threads(1)
    rows, parameters, seconds = [], [], []
    for name, (width, layers) in SIZES.items():
        pair = load_pair(*write_pair(folder / name.replace(" ", ""), width, layers))
        ids = torch.randint(0, pair.vocab_size, (64, 256))
        layer = layers - 1
        times, limits = [], []
        for _ in range(3):
            limits.append(matmul_limit())
            started = time.perf_counter()
            for _ in harvest(pair, ids, [layer], batch_rows=16):
                pass
            times.append(time.perf_counter() - started)
        blocks = sum(weight.numel() for weight in pair.base_parts.blocks.parameters())
        rate, limit = 2 * 2.0 * blocks * ids.numel() / min(times), max(limits)
        parameters.append(float(blocks))
        seconds.append(min(times))
        cells = [f"{ids.numel() / min(times):,.0f}", f"{rate / 1e9:.0f}", f"{limit / 1e9:.0f}", f"{rate / limit:.0%}"]
        rows.append([f"{blocks / 1e6:.1f} M", *cells])
    head = ["parameters of the blocks", "tokens/s", "GFLOP/s", "limit GFLOP/s", "share of the limit"]
    text = f"Both models, all blocks, one thread. Exponent of time in parameters {exponent(parameters, seconds):.2f}."
    return f"{markdown_table(head, rows)}\n{text}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["tokens", "dictionary", "models", "processes", "plan"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[131_072, 262_144, 524_288])
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    options = parser.parse_args()
    titles = {
        "tokens": "Growth with text",
        "dictionary": "Growth with latents",
        "processes": "Two processes",
        "plan": "Plan and fact",
        "models": "Growth with the model",
    }
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            made = {
                "tokens": lambda where: tokens_part(options.tokens, where),
                "dictionary": lambda _: dictionary_part(),
                "processes": processes_part,
                "plan": plan_part,
                "models": models_part,
            }[part](Path(folder))
        print(f"{titles[part]}\n{made}", flush=True)
        if options.write:
            given = f" --tokens {' '.join(map(str, options.tokens))}" if part == "tokens" else ""
            command = f"python benchmarks/scale.py --parts {part}{given} --write"
            machine = f"{platform.machine()}, {os.cpu_count()} cores, no GPU, torch {torch.__version__}."
            write_section(f"scale-{part}", titles[part], command, f"{machine}\n\n{made}")


if __name__ == "__main__":
    main()
