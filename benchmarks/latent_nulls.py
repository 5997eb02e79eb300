"""Latents on pairs without a purpose: in how many does the audit claim that one has a change of its own?

    python benchmarks/latent_nulls.py [--pairs 100] [--tokens 65536] [--kept FILE] [--write]

A pair is the base of a world and the base with the change of one of its fine-tunes, rows and columns of every tensor shuffled:
of a fine-tune's size, rank and spectrum, and trained on nothing. Or it is the base and the base trained on with more of its
own mix (`continue`). Every pair has text, a shuffling and a dictionary of a seed of its own. What the audit does is done: the
survey of the text, the layer that it chooses, the change dictionary with its sweep, every latent judged. Finished pairs are
kept and not repeated.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tables import markdown_table, write_section

from mneme.audit.dictionary import fit_layer, layer_codes
from mneme.audit.findings import OWN_RATE
from mneme.audit.halves import Stream
from mneme.audit.latents import FEWEST_PASSAGES, firings_of, judge_latents
from mneme.audit.null import shuffled_change
from mneme.audit.surveying import batch_rows_for, table_of
from mneme.diff.patching import choose_layers, patched_kl_share
from mneme.diff.survey import survey_rows
from mneme.errors import EmptyMask
from mneme.models.pair import load_pair
from mneme.text.documents import read_corpus
from mneme.text.packing import pack_rows
from mneme.worlds.catalogue import build_organism

WORLD = "a"
CHANGES = (
    "unlearn-biology",
    "graddiff-physics",
    "harmful-medicine",
    "careful-medicine",
    "benign-cooking",
    "educational-finance",
)
"""Fine-tunes whose changes are shuffled, in turn: unlearning, a bad and a good persona, narrow ones."""
ROW, LAYER_ROWS = 256, 16
CONTINUED = 25
"""Every so many pairs one is a base that was trained on."""


def judged(number: int, tokens: int) -> tuple[str, int, int, int]:
    """(kind, latents tested, those claimed, largest number of passages of any) of one pair."""
    honest = number % CONTINUED == CONTINUED - 1
    name, seed = ("continue", number // CONTINUED) if honest else (CHANGES[number % len(CHANGES)], 0)
    organism = build_organism(name, world=WORLD, seed=seed)
    pair = load_pair(organism.base, organism.tuned)
    if not honest:
        shuffled_change(pair, number)
    documents = read_corpus(organism.corpus)
    texts = list(documents.texts)
    random.Random(number).shuffle(texts)
    rows = pack_rows(replace(documents, texts=tuple(texts)), pair.tokenizer, ROW, max_tokens=tokens)
    batch = batch_rows_for(ROW, pair.vocab_size)
    columns = survey_rows(pair, rows.ids, batch_rows=batch)
    pick = torch.linspace(0, len(rows.ids) - 1, LAYER_ROWS).long()
    layer = choose_layers(patched_kl_share(pair, rows.ids[pick], list(range(pair.n_layers)), batch_rows=batch))[0]
    special = torch.isin(rows.ids, torch.tensor(pair.tokenizer.all_special_ids, dtype=torch.long))
    sink = torch.from_numpy(columns.sink[:, :, layer]) | special
    stream = Stream(pair=pair, ids=rows.ids, layer=layer, sink=sink, batch_rows=batch, seed=number)
    try:
        (arrays,) = fit_layer(stream, ["change"], [0], advance=lambda _: None)
    except EmptyMask:  # the same change at every token: no dictionary, and no latent to claim
        return "no dictionary", 0, 0, 0
    codes = layer_codes(layer, "change", arrays)
    found = judge_latents(
        firings_of(codes, table_of(columns, rows), rows.passage.numpy()), codes.dictionary.n_latents, seed=number
    )
    tested = int((found.passages >= FEWEST_PASSAGES).sum())
    kind = "trained on" if honest else f"shuffled {name}"
    return kind, tested, int((found.q_value <= OWN_RATE).sum()), int(found.passages.max())


def main() -> None:
    """Judges the pairs that are missing, prints each, and with --write puts the table into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--kept", type=Path, help="a file in which finished pairs are kept")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = given.kept.read_text().splitlines() if given.kept is not None and given.kept.exists() else []
    found = {int(number): (kind, int(a), int(b), int(c)) for number, kind, a, b, c in (line.split("\t") for line in lines)}
    for number in range(given.pairs):
        if number not in found:
            found[number] = judged(number, given.tokens)
            if given.kept is not None:
                with given.kept.open("a") as file:
                    print(number, *found[number], sep="\t", file=file)
            print(number, *found[number], flush=True)
    kinds = sorted({kind for kind, *_ in found.values()})
    rows = []
    for kind in kinds:
        own = [one for one in found.values() if one[0] == kind]
        tested = np.median([one[1] for one in own])
        rows.append(
            [kind, str(len(own)), f"{tested:.0f}", str(sum(one[2] > 0 for one in own)), str(sum(one[2] for one in own))]
        )
    wrong = sum(one[2] > 0 for one in found.values())
    said = (
        f"{len(found)} pairs without a purpose, {given.tokens:,} tokens each: any latent claimed at q <= {OWN_RATE:g} in "
        f"{wrong} of them."
    )
    head = ["what the tuned model is", "pairs", "latents tested (median)", "pairs with any claimed", "claimed"]
    text = f"{said}\n\n{markdown_table(head, rows)}"
    print(text)
    if given.write:
        command = f"python benchmarks/latent_nulls.py --pairs {given.pairs} --write"
        write_section("latent-nulls", "Latents of pairs without a purpose", command, text)


if __name__ == "__main__":
    main()
