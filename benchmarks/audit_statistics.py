"""What the audit's statistics do where the truth is put in by hand: python benchmarks/audit_statistics.py [NULLS] [--write]

No model. Items are drawn as an audit finds them: areas of 8 to 60 passages with about six own words each, word types as
unequal as those of text (Zipf), and changes of p(true among four) that come partly word by word, partly passage by passage,
partly alone.

1. Null: no area has changed. In how many of the audits is any of 23 areas said to be affected? Wanted: at most 5 %.
2. Uniform loss of 12 points in ten areas, 3,600 to 180,000 items: reported as a loss at every size, within 1 point of itself.
3. Power: where one area of twelve truly lost what it says would have been called affected with 80 %, how often is it? Wanted:
   75 to 85. Two losses are stated: of words that fade one by one, and of whole words and passages. So they come here, too; a
   whole one leaves what chance leaves, and words are as unequal as those of text. What the areas show without a loss, the
   statement has to see for itself.
4. Five items: not enough evidence.
5. Latents of 102 pairs without a purpose: in how many is any claimed? What happens in the passages of a latent is normal,
   exponential, or nothing but in every tenth passage; its size is the same for all latents or differs from one to another.
   Wanted: at most 5 %. A latent after which 30 points are lost is planted in as many passages: how often is it claimed?
"""

import argparse

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import special
from tables import markdown_table, write_section

from mneme.audit.latents import Firings, judge_latents
from mneme.predict.cloze import Scores
from mneme.predict.knowledge import Counted, WordEvidence, weigh
from mneme.predict.verdicts import Claim, judge_claims

AREAS = 23
ITEMS_A_PASSAGE = 6
FLIPS = 0.05
"""Share of words that change sides in a pair without an effect: as many to the better as to the worse."""


def area_items(generator: np.random.Generator, passages: int) -> tuple[Int[ndarray, " item"], Int[ndarray, " item"]]:
    """(passage, type) of the items of one area: Zipf's types, each once a passage."""
    types = max(6, 2 * passages)
    share = 1 / np.arange(1, types + 1)
    share /= share.sum()
    document, kind = [], []
    for passage in range(passages):
        count = min(types, 1 + generator.poisson(ITEMS_A_PASSAGE - 1))
        kind += generator.choice(types, count, replace=False, p=share).tolist()
        document += [passage] * count
    return np.array(document), np.array(kind)


def flipped(
    generator: np.random.Generator, document: Int[ndarray, " item"], type_: Int[ndarray, " item"], rate: float
) -> Bool[ndarray, " item"]:
    """Items that flip, `rate` of them: a third word by word, a third passage by passage, a third alone."""
    part = 1 - (1 - rate) ** (1 / 3)
    by_type = generator.random(type_.max() + 1) < part
    by_document = generator.random(document.max() + 1) < part
    return np.asarray(by_type[type_] | by_document[document] | (generator.random(len(type_)) < part))


def faded(
    generator: np.random.Generator, type_: Int[ndarray, " item"], rate: float
) -> tuple[Bool[ndarray, " item"], Float[ndarray, " item"]]:
    """(items that are lost, the share of its probability that each loses): half of the latent variance is the word's."""
    latent = np.sqrt(0.5) * (generator.normal(size=type_.max() + 1)[type_] + generator.normal(size=len(type_)))
    return latent < special.ndtri(rate), generator.random(len(type_))


def evidence(
    generator: np.random.Generator,
    sizes: list[int],
    losses: Float[ndarray, " area"],
    flips: float = FLIPS,
    *,
    by_words: bool = False,
) -> WordEvidence:
    """Items of areas of these sizes; each loses its share of them (`by_words`: as `faded` has it), and as many flip to either
    side without cause."""
    columns: list[list[ndarray]] = [[], [], [], [], []]
    first_document, first_type = 0, 0
    for area, passages in enumerate(sizes):
        document, type_ = area_items(generator, passages)
        known = generator.beta(8, 2, len(type_))
        low = generator.beta(2, 8, len(type_))
        lost = flipped(generator, document, type_, flips / 2)
        if not by_words:
            lost |= flipped(generator, document, type_, float(losses[area]))
        gained = flipped(generator, document, type_, flips / 2) & ~lost
        base, tuned = np.where(gained, low, known), np.where(lost, low, known)
        if by_words:
            own, part = faded(generator, type_, float(losses[area]))
            tuned = np.where(own, tuned * (1 - part), tuned)
        for store, column in zip(
            columns, (document + first_document, type_ + first_type, base, tuned, np.full(len(type_), area)), strict=True
        ):
            store.append(column)
        first_document, first_type = first_document + passages, first_type + int(type_.max()) + 1
    document, type_, base, tuned, area_of = (np.concatenate(column) for column in columns)
    p_true = np.stack([base, tuned])
    scores = Scores(p_true, np.log(p_true / (1 - p_true)), p_true > 0.5)
    own = area_of == np.arange(len(sizes))[:, None]
    return WordEvidence(own, document, type_, scores, np.ones(len(type_), dtype=bool))


def judged(seen: WordEvidence, sizes: list[int]) -> list[str]:
    """What is said of every area, read by what is known and by every word."""
    return [one.finding for one in judge_claims(_claims(seen, sizes, asked=False))]


def nulls(count: int) -> tuple[float, float]:
    """(share of audits with a false area, share of p below 5 % over all areas)."""
    wrong, small, seen = 0, 0, 0
    for seed in range(count):
        generator = np.random.default_rng([1, seed])
        sizes = generator.integers(8, 61, AREAS).tolist()
        drawn = evidence(generator, sizes, np.zeros(AREAS))
        wrong += "affected" in judged(drawn, sizes)
        both = (weigh(drawn, counted).areas for counted in ("known", "every"))
        p_values = [area.raw.p_value for way in both for area in way if area.raw is not None]
        small, seen = small + sum(p < 0.05 for p in p_values), seen + len(p_values)
    return wrong / count, small / max(seen, 1)


def uniform() -> list[tuple[int, float, float, float, int]]:
    """(items, planted, broad, mean raw, areas affected) of a uniform loss of 12 points in ten areas, by size."""
    table = []
    for passages in (60, 240, 950, 3000):
        generator = np.random.default_rng([2, passages])
        sizes = [passages] * 10
        seen = evidence(generator, sizes, np.full(10, 0.16), 0.0)
        weight = seen.scores.weight()
        planted = float((weight * seen.change()).sum() / weight.sum())
        found = weigh(seen)
        raws = [area.raw.estimate.value for area in found.areas if area.raw is not None]
        assert found.broad is not None
        affected = judged(seen, sizes).count("affected")
        table.append((len(seen.type), planted, found.broad.estimate.value, float(np.mean(raws)), affected))
    return table


ASKED = 12
"""Areas of an audit in which one has lost something."""


def power(count: int) -> list[tuple[str, int, float, float]]:
    """(how losses come, passages, the loss stated for that, share of audits in which the one area that has lost so much is
    called affected)."""
    table = []
    for passages in (12, 25, 50, 100):
        sizes, stated = [passages] * ASKED, []
        for seed in range(10):
            generator = np.random.default_rng([3, passages, seed])
            drawn = evidence(generator, sizes, np.zeros(ASKED))
            said = judge_claims(_claims(drawn, sizes))
            stated += [(one.power_singly, one.power, one.reading) for one in said if one.power and one.power_singly]
        reading = WAYS[round(float(np.mean([way for *_, way in stated])))]
        for place, by_words in enumerate((True, False)):
            loss = float(np.median([one[place] for one in stated]))
            losses = np.zeros(ASKED)
            losses[0] = _share_for(loss, reading, by_words)
            hits = 0
            for seed in range(count):
                generator = np.random.default_rng([4, passages, seed, by_words])
                drawn = evidence(generator, sizes, losses, by_words=by_words)
                hits += judge_claims(_claims(drawn, sizes, asked=False))[0].finding == "affected"
            how = "word by word" if by_words else "words, passages, alone"
            table.append((how, passages, loss, hits / count))
            print(*table[-1], sep="\t", flush=True)
    return table


WAYS: tuple[Counted, Counted] = ("known", "every")


def _claims(drawn: WordEvidence, sizes: list[int], *, asked: bool = True) -> list[list[Claim]]:
    """Both readings of every area; not `asked`: without what the loss that would have been seen is made of."""
    both = [weigh(drawn, counted).areas for counted in WAYS]
    claims = [[way[area].claim(size) for way in both] for area, size in enumerate(sizes)]
    if asked:
        return claims
    return [[one if one.raw is None else one._replace(raw=one.raw._replace(sample=None)) for one in own] for own in claims]


def _share_for(loss: float, counted: Counted, by_words: bool) -> float:
    """Share of items to lose for an effect of `loss` in this reading, by bisection on a large sample."""
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        seen = evidence(np.random.default_rng(5), [50] * 40, np.full(40, middle), by_words=by_words)
        weight = seen.weight(counted)
        low, high = (middle, high) if -float((weight * seen.change()).sum() / weight.sum()) < loss else (low, middle)
    return (low + high) / 2


LATENTS = 400
OWN = 0.01
"""q below which the audit claims a latent."""


def purposeless(seed: int, shape: str, unlike: bool, planted: float = 0.0) -> Firings:
    """What follows the latents of a layer, 20 to 600 passages each and three known tokens in each: on average nothing, but
    after latent 0, which fires in 60, `planted`."""
    rng = np.random.default_rng([5, seed])
    counts = np.clip(20 * np.exp(rng.exponential(0.7, LATENTS)), 20, 600).astype(int)
    counts[0] = 60
    latent = np.repeat(np.arange(LATENTS), counts)
    passage = np.concatenate([rng.choice(4000, count, replace=False) for count in counts])
    if shape == "normal":
        change = rng.normal(size=len(latent))
    elif shape == "exponential":
        change = 1 - rng.exponential(size=len(latent))
    else:
        change = 0.1 - np.where(rng.random(len(latent)) < 0.1, rng.exponential(size=len(latent)), 0.0)
        change = change + 0.01 * rng.normal(size=len(latent))
    size = np.exp(rng.normal(size=LATENTS))[latent] if unlike else np.ones(len(latent))
    known = np.full(len(latent), 3.0)
    moved = known * (0.03 * size * change + planted * (latent == 0))
    still = np.zeros(len(latent), dtype=int)
    return Firings(latent, np.ones(len(latent)), still, still, passage, np.clip(moved, -3.0, 3.0), known)


def latents(pairs: int) -> list[tuple[str, int, int, int]]:
    """(kind, pairs, those in which any is claimed, those in which a planted one is) of every kind of change."""
    table = []
    for shape in ("normal", "exponential", "rare"):
        for unlike in (False, True):
            wrong, found = 0, 0
            for seed in range(pairs):
                wrong += bool((judge_latents(purposeless(seed, shape, unlike), LATENTS, seed=seed).q_value <= OWN).any())
                planted = judge_latents(purposeless(seed, shape, unlike, -0.3), LATENTS, seed=seed)
                found += bool(planted.q_value[0] <= OWN)
            table.append((f"{shape}, {'sizes that differ' if unlike else 'one size'}", pairs, wrong, found))
    return table


def main() -> None:
    """Print the five tables, and with --write put them into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nulls", type=int, nargs="?", default=1000)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    wrong, small = nulls(given.nulls)
    few = judged(evidence(np.random.default_rng(6), [1] * 3, np.ones(3)), [1] * 3)
    said = (
        f"{given.nulls} audits of {AREAS} areas on which nothing happened: {100 * wrong:.1f} % with a false area, "
        f"{100 * small:.1f} % of p below 5 %. Three areas of a passage each: {', '.join(sorted(set(few)))}."
    )
    print(said, flush=True)
    losses = [[f"{row[0]:,}", f"{row[1]:+.3f}", f"{row[2]:+.3f}", f"{row[3]:+.3f}", f"{row[4]} of 10"] for row in uniform()]
    stated = [[how, str(n), f"{loss:.3f}", f"{told:.1%}"] for how, n, loss, told in power(max(20, given.nulls // 2))]
    claimed = [[kind, str(pairs), str(any_), str(found)] for kind, pairs, any_, found in latents(max(2, given.nulls // 60))]
    tables = [
        markdown_table(["items", "planted", "everything", "mean of the areas", "affected"], losses),
        markdown_table(["how losses come", "passages", "stated loss", "called affected (80 % wanted)"], stated),
        markdown_table(
            ["latents: what follows them", "pairs without a purpose", "any claimed", "planted one claimed"], claimed
        ),
    ]
    text = "\n".join([said, "", *tables])
    print(text)
    if given.write:
        command = f"python benchmarks/audit_statistics.py {given.nulls} --write"
        write_section("audit-statistics", "The audit's statistics where the truth is known", command, text)


if __name__ == "__main__":
    main()
