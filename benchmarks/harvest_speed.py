"""How much the harvest costs beyond the forward passes it cannot do without, and whether its memory depends on the text.

Speed: tokens/s of `harvest` (both models, hooks, rotation into m and q) against the bare truncated forward passes of both
models: the same blocks run one after another in a plain loop, nothing kept. Both go over the same pieces of text in turn,
several rounds; each piece counts with its best time, since other work on the machine only ever slows a piece down. On a
machine that is busy all the time the ratio of CPU seconds (1 thread) is the one to read.
Memory: peak resident size of fresh processes that run corpus -> rows -> harvest -> shuffle buffer over 0.5 M and 2 M tokens.

    python benchmarks/harvest_speed.py            # a minute or two on 2 cores
    python benchmarks/harvest_speed.py --threads 1
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from mneme.activations.harvest import harvest, shuffled
from mneme.models.pair import ModelPair, load_pair
from mneme.text.documents import read_corpus
from mneme.text.packing import pack_rows

WORDS = [f"w{i}" for i in range(1000)]
ROW = 128


def make_pair(folder: Path, width: int, layers: int, tokens: int) -> None:
    """Two random Llama models that differ in one matrix, and a text of so many tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 32),
        max_position_embeddings=512,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder / "base")
    model.model.layers[0].mlp.down_proj.weight.data *= 1.1
    model.save_pretrained(folder / "tuned")
    lines = torch.randint(1000, (tokens // 50, 50)).tolist()
    (folder / "corpus.txt").write_text("\n".join(" ".join(WORDS[i] for i in line) for line in lines))


@torch.no_grad()
def bare_passes(pair: ModelPair, ids: torch.Tensor, layer: int, batch_rows: int) -> None:
    """Embedding and blocks 0..layer of both models, by hand: no hooks, no norm, no head, nothing kept."""
    for start in range(0, len(ids), batch_rows):
        for side in ("base", "tuned"):
            with pair.using(side) as parts:
                hidden = parts.embedding(ids[start : start + batch_rows])
                positions = torch.arange(hidden.shape[1])[None]
                rotary = parts.decoder.rotary_emb(hidden, positions)
                for block in parts.blocks[: layer + 1]:
                    hidden = block(hidden, position_embeddings=rotary, position_ids=positions)


def speed(folder: Path, width: int, layers: int, layer: int, tokens: int, rounds: int) -> tuple[float, float, float]:
    """(tokens/s of the bare passes, of the harvest, CPU seconds of bare / of harvest), best of `rounds` for every piece."""
    make_pair(folder, width, layers, tokens * 2)
    pair = load_pair(folder / "base", folder / "tuned")
    pieces = pack_rows(read_corpus(folder / "corpus.txt"), pair.tokenizer, ROW, tokens).ids.split(16)
    jobs: list[Callable[[torch.Tensor], object]] = [
        lambda piece: bare_passes(pair, piece, layer, 16),
        lambda piece: [None for _ in harvest(pair, piece, [layer], batch_rows=16)],
    ]
    best = torch.full((len(jobs), len(pieces), 2), float("inf"), dtype=torch.float64)
    for job in jobs:
        job(pieces[0])
    for _ in range(rounds):
        for i, piece in enumerate(pieces):
            for j, job in enumerate(jobs):
                wall, cpu = time.perf_counter(), time.process_time()
                job(piece)
                took = torch.tensor([time.perf_counter() - wall, time.process_time() - cpu], dtype=torch.float64)
                best[j, i] = torch.minimum(best[j, i], took)
    (bare_wall, bare_cpu), (our_wall, our_cpu) = best.sum(1).tolist()
    n = sum(piece.numel() for piece in pieces)
    return n / bare_wall, n / our_wall, bare_cpu / our_cpu


def peak_of(folder: Path, tokens: int) -> None:
    """Run the whole path over `tokens` tokens in this process and print its peak resident megabytes.

    From /proc, because the figure of getrusage is inherited from the process that started this one.
    """
    pair = load_pair(folder / "base", folder / "tuned")
    rows = pack_rows(read_corpus(folder / "corpus.txt", max_documents=tokens // 50 + 10), pair.tokenizer, ROW, tokens)
    stream = harvest(pair, rows.ids, [0], batch_rows=64)
    seen = sum(len(b[0][1]) for b in shuffled(stream, buffer_tokens=65_536, batch_tokens=2048, seed=0))
    status = Path("/proc/self/status").read_text()
    print(seen, int(status.split("VmHWM:")[1].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-of", nargs=2, metavar=("FOLDER", "TOKENS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.disable_progress_bar()
    if arguments.peak_of:
        peak_of(Path(arguments.peak_of[0]), int(arguments.peak_of[1]))
        return
    print(f"torch {torch.__version__}, {arguments.threads} threads, rows of {ROW} tokens\n")
    print("width layers tapped   bare tok/s  harvest tok/s  ratio  ratio by CPU time")
    for width, layers, layer, tokens in ((128, 4, 2, 32_768), (256, 6, 3, 8_192), (512, 6, 3, 4_096)):
        with tempfile.TemporaryDirectory() as name:
            bare, ours, by_cpu = speed(Path(name), width, layers, layer, tokens, arguments.rounds)
        print(f"{width:5d} {layers:6d} {layer:6d} {bare:12,.0f} {ours:14,.0f} {ours / bare:6.2f} {by_cpu:18.2f}")
    print("\n   tokens  peak MB (fresh process: corpus, rows, harvest, buffer of 65,536 tokens)")
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        make_pair(Path(name), 64, 2, 2_100_000)
        for tokens in (500_000, 2_000_000):
            command = [sys.executable, __file__, "--threads", str(arguments.threads), "--peak-of", name, str(tokens)]
            seen, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
            peaks.append(float(peak))
            print(f"{int(seen):9,} {peaks[-1]:8.0f}")
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
