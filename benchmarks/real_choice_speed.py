"""Tokens a second of choices on the real model, against the bare forward pass: python benchmarks/real_choice_speed.py.

The questions of `mneme.bench.real.asked`, as many of each group as `--questions`. A token counts once: those of the prompt,
and those of each choice that are read behind it. The bare pass is the decoder without the head, 512 tokens at a time. Both by
the clock of the process, which a busy machine changes least, and by the wall.
"""

import argparse
import time

import torch

from mneme.bench.real.asked import GROUPS, asked
from mneme.measure.likelihood import score_choices
from mneme.models.pair import LoadedModel, load_model
from mneme.worlds.real.data import data_folder
from mneme.worlds.real.model import real_base


def bare(model: LoadedModel, tokens: int, length: int) -> tuple[float, float]:
    """Tokens a second (wall, process) of the decoder on rows of `length`."""
    rows = max(1, 512 // length)
    ids = torch.randint(0, 40_000, (rows, length), generator=torch.Generator().manual_seed(0))
    started, used = time.perf_counter(), time.process_time()
    repeats = max(1, tokens // (rows * length))
    with torch.no_grad():
        for _ in range(repeats):
            model.parts.decoder(input_ids=ids, use_cache=False)
    done = repeats * rows * length
    return done / (time.perf_counter() - started), done / (time.process_time() - used)


def main() -> None:
    """Print one line a group."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--groups", nargs="*", default=["knowledge", "behaviours"], choices=GROUPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(real_base())
    assert model.tokenizer is not None
    for group in given.groups:
        questions = asked(group, 0, data_folder(), model.tokenizer)
        questions = questions[:: max(1, len(questions) // given.questions)]
        prompts = [list(model.tokenizer(one.prompt)["input_ids"]) for one in questions]
        bare(model, 512, 64)
        plain = bare(model, 2000, 64)
        started, used = time.perf_counter(), time.process_time()
        found = score_choices(model.parts, model.tokenizer, questions)
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        tokens = sum(map(len, prompts)) + sum(len(ids) - 1 for choices in found.ids for ids in choices)
        told = f"{group}: {len(questions)} questions, {tokens} tokens"
        print(
            f"{told}; {tokens / cpu:.0f} tokens a CPU second, bare {plain[1]:.0f}, ratio {tokens / cpu / plain[1]:.2f}", end=""
        )
        print(f"; by the wall {tokens / wall:.0f}, bare {plain[0]:.0f}, ratio {tokens / wall / plain[0]:.2f}", flush=True)


if __name__ == "__main__":
    main()
