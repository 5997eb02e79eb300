"""Build the real fine-tunes one after another and measure them: python benchmarks/real_queue.py [NAME …] (all, in order).

One thread. Whatever is finished is kept: fine-tunes in the cache, what was measured as JSON in benchmarks/real/. One line is
printed for each step. Text and questions: $MNEME_REAL_DATA. In the background:

    nohup nice -n 10 python benchmarks/real_queue.py >> queue.log 2>&1 &
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer

from mneme.bench.real.asked import SLICES
from mneme.bench.real.measured import ALL_GROUPS, Kept, items_of, measure_group, read_kept, write_kept
from mneme.bench.real.signals import passages, read_signals
from mneme.models.pair import LoadedModel, load_model, load_pair
from mneme.worlds.real.build import build_real
from mneme.worlds.real.data import data_folder
from mneme.worlds.real.model import real_base
from mneme.worlds.real.recipes import RECIPES

KEPT = Path(__file__).parent / "real"
PASSES = (
    (("knowledge", 0), ("relations", 0), ("refusals", 0), ("behaviours", 0)),
    (("books", 0),),
    *(tuple((group, part) for group in ALL_GROUPS) for part in range(1, SLICES)),
)
"""What is measured of one fine-tune before the next; a pass goes through all fine-tunes before the next pass."""


def main() -> None:
    """Build and measure what is missing of the named fine-tunes, or of all; the base comes first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--groups", nargs="*", default=[*ALL_GROUPS, "signals"])
    parser.add_argument("--passes", type=int, default=len(PASSES))
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [recipe.name for recipe in RECIPES if not given.names or recipe.name in given.names]
    items = _items(given.kept)
    for groups in PASSES[: given.passes]:
        chosen = tuple((group, part) for group, part in groups if group in given.groups)
        _measure(given.kept / "measured" / "base.json", real_base(), chosen, items)
        for name in wanted:
            started = time.perf_counter()
            folder = build_real(name)
            if time.perf_counter() - started > 1:
                _say(f"{name}: built in {time.perf_counter() - started:.0f} s")
            _measure(given.kept / "measured" / f"{name}-seed0.json", folder, chosen, items)
            if "signals" in given.groups and groups == PASSES[0]:
                _signals(given.kept / "signals" / f"{name}-seed0.json", folder)


def _items(kept: Path) -> Kept:
    """What is asked, written where it is kept."""
    tokenizer = AutoTokenizer.from_pretrained(real_base())
    places = [place for groups in PASSES for place in groups]
    items = {f"{group}/{part}": items_of(group, part, tokenizer, data_folder()) for group, part in places}
    write_kept(kept / "items.json", items)
    return items


def _measure(file: Path, folder: Path, groups: tuple[tuple[str, int], ...], items: Kept) -> None:
    loaded: LoadedModel | None = None
    for group, part in groups:
        kept = read_kept(file, items)
        place = f"{group}/{part}"
        if place in kept:
            continue
        loaded = loaded or load_model(folder)
        assert loaded.tokenizer is not None
        kept[place] = measure_group(group, part, loaded.parts, loaded.tokenizer, data_folder())
        write_kept(file, kept)
        _say(f"{file.stem}: {place} measured in {kept[place]['seconds']:.0f} s")


def _signals(file: Path, folder: Path) -> None:
    """The cheap signals that predictors are compared with."""
    if not file.is_file():
        pair = load_pair(real_base(), folder)
        found = read_signals(pair, passages(data_folder(), pair.tokenizer))
        write_kept(file, found)
        _say(f"{file.stem}: signals read in {found['seconds']:.0f} s")


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    main()
