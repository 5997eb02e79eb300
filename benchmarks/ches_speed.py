"""CHES of preference pairs: the batched scorer against a loop of one pair at a time with all hidden states and full logits.

6 layers, width 256, vocabulary 32,000, random weights; 2,000 pairs of random ids (no two answers begin alike): prompts of 16
to 128, and of 16 to 256 tokens, answers of 8 to 64. The loop is what the published code does: two forward passes a pair. It
runs on every `--every`-th pair, half before and half after the batched scorer, so that other programs slow both, and is
multiplied up. The tokenizer's padding side is checked by padding a batch of whole rows on both sides.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable

import torch
from tables import markdown_table, write_section
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mneme.models.architecture import Parts, find_parts
from mneme.screen.ches import ches, ln_ches, masked_sums, pair_sums
from mneme.text.pairs import EncodedPair

TARGET_RATIO, TARGET_DIFFERENCE = 4.0, 1e-5
VOCAB = 32_000


def some_pairs(n: int, longest_prompt: int, seed: int) -> list[EncodedPair]:
    """Random ids in prompts of 16 to `longest_prompt` and answers of 8 to 64 tokens."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(VOCAB) for _ in range(rng.randint(low, high)))

    return [EncodedPair(ids(16, longest_prompt), ids(8, 64), ids(8, 64)) for _ in range(n)]


@torch.no_grad()
def one_at_a_time(parts: Parts, pairs: list[EncodedPair]) -> Tensor:
    """[score pair]: CHES and ln-CHES by two forward passes a pair, every hidden state and logit kept."""
    found = []
    for pair in pairs:
        sums = []
        for answer in (pair.chosen, pair.rejected):
            ids = torch.tensor([[*pair.prompt, *answer]])
            hidden = parts.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
            sums.append(hidden[len(pair.prompt) - 1 : -1].sum(0))
        lengths = [torch.tensor(len(answer)) for answer in (pair.chosen, pair.rejected)]
        found.append(torch.stack([ches(*sums), ln_ches(*sums, *lengths)]))
    return torch.stack(found, 1)


def batched(parts: Parts, pairs: list[EncodedPair]) -> Tensor:
    """[score pair]: the same by `pair_sums`."""
    sums = pair_sums(parts, pairs)
    return torch.stack(
        [ches(sums.chosen, sums.rejected), ln_ches(sums.chosen, sums.rejected, sums.chosen_tokens, sums.rejected_tokens)]
    )


@torch.no_grad()
def by_padding(parts: Parts, pairs: list[EncodedPair], side: str) -> Tensor:
    """[score pair]: from one batch of whole rows, padded on `side`."""
    sums = []
    for answers in ([p.chosen for p in pairs], [p.rejected for p in pairs]):
        rows = [[*pair.prompt, *answer] for pair, answer in zip(pairs, answers, strict=True)]
        width = max(map(len, rows))
        ids, real = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
        predicts = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
            first = width - len(row) if side == "left" else 0
            ids[i, first : first + len(row)], real[i, first : first + len(row)] = torch.tensor(row), 1
            predicts[i, first + len(pair.prompt) - 1 : first + len(row) - 1] = True
        out = parts.decoder(input_ids=ids, attention_mask=real, position_ids=(real.cumsum(1) - 1).clamp_min(0))
        sums.append(masked_sums(out.last_hidden_state, predicts))
    lengths = [torch.tensor([len(a) for a in side]) for side in ([p.chosen for p in pairs], [p.rejected for p in pairs])]
    return torch.stack([ches(*sums), ln_ches(*sums, *lengths)])


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """(result, wall seconds, CPU seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def relative(found: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the root mean square of each score."""
    return float(((found - truth).abs().amax(1) / truth.square().mean(1).sqrt()).max())


def compare(parts: Parts, longest_prompt: int, options: argparse.Namespace) -> tuple[list[str], float, float]:
    """(row of the table, the smaller ratio, largest relative difference) of one mix of lengths."""
    pairs = some_pairs(options.pairs, longest_prompt, seed=0)
    sample = pairs[:: options.every]
    half = len(sample) // 2
    batched(parts, pairs[:32]), one_at_a_time(parts, pairs[:2])
    first, *before = timed(lambda: one_at_a_time(parts, sample[:half]))
    found, *quick = timed(lambda: batched(parts, pairs))
    second, *after = timed(lambda: one_at_a_time(parts, sample[half:]))
    slow = [(a + b) * len(pairs) / len(sample) for a, b in zip(before, after, strict=True)]
    difference = relative(found[:, :: options.every], torch.cat([first, second], 1))
    few = pairs[:24]
    sides = max(relative(by_padding(parts, few, side), batched(parts, few)) for side in ("left", "right"))
    ratios = [a / b for a, b in zip(slow, quick, strict=True)]
    cells = [f"16 to {longest_prompt}", f"{slow[0]:.0f} ({slow[1]:.0f})", f"{quick[0]:.0f} ({quick[1]:.0f})"]
    cells += [f"{ratios[0]:.2f} ({ratios[1]:.2f})", f"{difference:.1e}", f"{sides:.1e}"]
    return cells, ratios[1], max(difference, sides)


def main() -> int:
    """Prints times, ratios and largest differences, writes the table; exit status 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--every", type=int, default=10, help="the loop runs on every so-many-th pair")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    parts = find_parts(LlamaForCausalLM(config).eval())
    results = [compare(parts, longest, options) for longest in (128, 256)]
    head = [
        "prompt tokens",
        "loop, s (CPU s)",
        "batched, s (CPU s)",
        "times faster",
        "largest difference",
        "padded left or right",
    ]
    table = markdown_table(head, [cells for cells, _, _ in results])
    note = (
        f"{options.pairs} pairs, {options.threads} thread(s) on a shared machine; the loop timed on every "
        f"{options.every}th pair and multiplied up. Differences are relative to the root mean square of the score."
    )
    print(table, note, sep="\n")
    command = f"python benchmarks/ches_speed.py --every {options.every} --threads {options.threads}"
    write_section("ches-speed", "CHES: speed", command, f"{note}\n\n{table}")
    missed = [ratio < TARGET_RATIO or difference > TARGET_DIFFERENCE for _, ratio, difference in results]
    return int(any(missed))


if __name__ == "__main__":
    sys.exit(main())
