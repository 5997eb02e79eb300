"""Keywords dealt out to other areas' names: whether text is still found for areas that are not there (row h of the audit).

    python benchmarks/dealt_areas.py CORPUS.jsonl [--areas AREAS.yaml] [--deals 4]

CORPUS: lines with `text`, several subjects together, each line a passage. Every deal gives each capability as many keywords as
it has, all of them other areas' keywords, under a name that no text holds. No model is read. Prints the areas that are found
with their own keywords, and how many of the dealt ones get 5 passages or more (below which nothing is said of an area).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from mneme.audit.evidence import FEW
from mneme.predict.areas import Area, Words, count_words, default_areas, read_areas
from mneme.predict.matching import match_areas


def deal(areas: list[Area], seed: int) -> tuple[Area, ...]:
    """Every keyword to another area, at random, the emptiest hand first."""
    draw = np.random.default_rng(seed)
    pool = [(keyword, owner) for owner, area in enumerate(areas) for keyword in area.keywords]
    hands: list[list[str]] = [[] for _ in areas]
    for place in draw.permutation(len(pool)):
        keyword, owner = pool[place]
        free = [i for i, area in enumerate(areas) if i != owner and len(hands[i]) < len(area.keywords)]
        if free:
            hands[min(free, key=lambda i: (len(hands[i]) / len(areas[i].keywords), draw.random()))].append(keyword)
    return tuple(Area(name=f"zq{number}", keywords=tuple(hand)) for number, hand in enumerate(hands) if hand)


def found(words: Words, areas: tuple[Area, ...]) -> dict[str, int]:
    """Passages of every area of which something would be said."""
    count = match_areas(words, areas).member.sum(axis=1)
    return {area.name: int(n) for area, n in zip(areas, count, strict=True) if n >= FEW}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--areas", type=Path)
    parser.add_argument("--deals", type=int, default=4)
    options = parser.parse_args()
    words = count_words([json.loads(line)["text"] for line in options.corpus.read_text("utf-8").splitlines()])
    every = read_areas(options.areas) if options.areas else default_areas()
    areas = [area for area in every if area.kind == "capability" and area.keywords]
    print(f"{words.n_passages} passages; with their own keywords: {found(words, tuple(areas))}")
    dealt = [found(words, deal(areas, seed)) for seed in range(options.deals)]
    print(f"dealt: {sum(map(len, dealt))} of {options.deals * len(areas)} areas found: {dealt}")


if __name__ == "__main__":
    main()
