"""Raw, excess, broad and the verdicts: known by hand, planted, and the laws."""

import math

import numpy as np
import pytest

from mneme.predict.cloze import Scores
from mneme.predict.knowledge import EVERY_UNIT, WordEvidence, largest_excess, weigh, weighted_change
from mneme.predict.verdicts import Claim, Measure, as_measure, judge_claims
from mneme.results import Estimate
from mneme.stats import Rate, bounded_change
from mneme.stats.bounded import independent_items
from mneme.stats.crossed import kinds_of
from tests import laws

AREAS, DOCUMENTS, TYPES = 6, 40, 60


def evidence(losses: list[float], *, seed: int = 0, repeat: int = 1) -> WordEvidence:
    """Areas whose words all change by as much; each document holds eight words of its area. `repeat`: so much more text."""
    generator = np.random.default_rng(seed)
    document, type_, area, base, tuned = [], [], [], [], []
    for index, loss in enumerate(losses):
        for number in range(DOCUMENTS * repeat):
            for word in generator.choice(TYPES, 8, replace=False):
                document.append(index * 10_000 + number)
                type_.append(index * TYPES + word)
                area.append(index)
                p = 0.9 + 0.05 * generator.uniform(-1, 1)
                base.append(p)
                tuned.append(p + loss + 0.04 * generator.uniform(-1, 1))
    p_true = np.array([base, tuned])
    scores = Scores(p_true, np.log(p_true / (1 - p_true)), p_true > 0.5)
    own = np.array(area) == np.arange(len(losses))[:, None]
    return WordEvidence(own, np.array(document), np.array(type_), scores, np.ones(len(area), dtype=bool))


def verdicts(seen: WordEvidence, bar: float = 0.0) -> list[tuple[str, bool]]:
    """(what is said, whether beyond the others) of every area."""
    return [(one.finding, one.beyond) for one in judge_claims([[area.claim(40, bar)] for area in weigh(seen).areas])]


def test_one_area_is_found_with_its_size_and_the_others_are_shown_to_be_unaffected() -> None:
    found = weigh(evidence([0.0, 0.0, -0.3, 0.0, 0.0, 0.0]))
    area = found.areas[2]
    assert area.raw is not None
    assert area.excess is not None
    laws.planted(area.raw.estimate.value, -0.3, within=0.01)
    laws.planted(area.excess.estimate.value, -0.3, within=0.01)
    assert found.broad is not None
    assert abs(found.broad.estimate.value) < 0.01
    assert verdicts(evidence([0.0, 0.0, -0.3, 0.0, 0.0, 0.0])) == [
        ("affected", True) if index == 2 else ("unaffected", False) for index in range(AREAS)
    ]


@pytest.mark.parametrize("repeat", [1, 20])
def test_a_uniform_loss_is_all_broad_however_much_text_there_is(repeat: int) -> None:
    found = weigh(evidence([-0.12] * AREAS, repeat=repeat))
    assert found.broad is not None
    laws.planted(found.broad.estimate.value, -0.12, within=0.01)
    for area in found.areas:
        assert area.raw is not None
        assert area.excess is not None
        laws.planted(area.raw.estimate.value, -0.12, within=0.01)
        laws.planted(area.excess.estimate.value, 0.0, within=0.01)
    assert verdicts(evidence([-0.12] * AREAS, repeat=repeat)) == [("affected", False)] * AREAS


def test_words_that_neither_model_knows_weigh_nothing() -> None:
    seen = evidence([-0.3] * 3)
    unknown = np.full_like(seen.scores.p_true, 0.2)
    both = Scores(*(np.concatenate([a, b], axis=1) for a, b in zip(seen.scores, (unknown, unknown, unknown > 1), strict=True)))
    own, document, word, usable = (np.tile(x, 2) for x in (seen.own, seen.document, seen.type, seen.usable))
    doubled = WordEvidence(own, document, word, both, usable)
    for one, other in zip(weigh(seen).areas, weigh(doubled).areas, strict=True):
        assert one.raw is not None
        assert other.raw is not None
        assert other.raw.estimate.value == pytest.approx(one.raw.estimate.value)


def test_one_word_may_not_carry_an_area() -> None:
    """A word that flips in all its documents is one observation, however often it stands there."""
    seen = evidence([0.0] * AREAS)
    flipped = seen.scores.p_true.copy()
    often = np.flatnonzero(seen.own[1])[::3]  # a third of the items of the area are one word
    type_ = seen.type.copy()
    type_[often] = type_.max() + 1
    flipped[1, often] = 0.05
    changed = seen._replace(type=type_, scores=seen.scores._replace(p_true=flipped))
    area = weigh(changed).areas[1]
    assert area.raw is not None
    assert area.raw.estimate.value < -0.2
    assert area.largest_type == type_.max()
    assert area.without is not None
    assert abs(area.without.estimate.value) < 0.01
    assert verdicts(changed)[1] == ("not enough evidence", False)


def test_five_items_are_not_enough_evidence_and_say_nothing_of_size() -> None:
    seen = evidence([-0.5] * 3)
    few = seen._replace(own=seen.own & (seen.document % 10_000 == 0))
    assert all(area.raw is None for area in weigh(few).areas)
    assert verdicts(few) == [("not enough evidence", False)] * 3


def test_changes_that_are_all_tiny_have_no_tiny_interval() -> None:
    seen = evidence([0.0] * 3)
    p_true = np.stack([seen.scores.p_true[0], seen.scores.p_true[0] + 1e-7])
    area = weigh(seen._replace(scores=seen.scores._replace(p_true=p_true))).areas[0]
    assert area.raw is not None
    own = seen.own[0]
    weight = seen.scores.weight()[own]
    n = independent_items(weight, kinds_of(seen.document[own], seen.type[own], weight))
    assert area.raw.estimate.high - area.raw.estimate.low > 2 * -math.expm1(math.log(0.025) / n) * 0.99


def test_identity_and_antisymmetry() -> None:
    seen = evidence([0.0, -0.2, -0.1, 0.0])
    same = seen._replace(scores=Scores(*(np.stack([part[0], part[0]]) for part in seen.scores)))
    found = weigh(same, identical=True)
    for area in found.areas:
        assert area.raw is not None
        assert area.excess is not None
        laws.identity([area.raw.estimate.value, area.raw.estimate.low, area.raw.estimate.high, area.excess.estimate.value])
    back = seen._replace(scores=Scores(*(part[::-1] for part in seen.scores)))
    for one, other in zip(weigh(seen).areas, weigh(back).areas, strict=True):
        for a, b in ((one.raw, other.raw), (one.excess, other.excess)):
            assert a is not None
            assert b is not None
            laws.antisymmetry([a.estimate.value, a.estimate.low], [b.estimate.value, b.estimate.high], tolerance=1e-12)


def test_the_interval_holds_the_truth_in_19_of_20() -> None:
    """Items whose losses come word by word and document by document."""
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        document, type_ = np.repeat(np.arange(40), 6), generator.integers(0, 30, 240)
        by_word, by_document = generator.normal(0, 0.1, 30), generator.normal(0, 0.1, 40)
        change = -0.1 + by_word[type_] + by_document[document] + generator.normal(0, 0.1, 240)
        found = weighted_change(change, np.ones(240), document, type_)
        assert found is not None
        held += abs(found.estimate.value + 0.1) <= (found.estimate.high - found.estimate.low) / 2
    assert held >= 186


def measure(value: float, half: float, p_value: float) -> Measure:
    """A number with its half width."""
    estimate = Estimate(value=value, low=value - half, high=value + half, unit="probability", n=50)
    return Measure(estimate, half / 2, 40.0, p_value)


def test_verdicts_by_hand() -> None:
    clear = measure(-0.2, 0.05, 1e-6)
    claims = [
        Claim(clear, None, clear, 40),
        Claim(measure(-0.01, 0.03, 0.5), None, None, 40),
        Claim(measure(-0.01, 0.09, 0.5), None, None, 40),
        Claim(measure(-0.04, 0.01, 1e-6), measure(-0.04, 0.01, 1e-6), clear, 40),  # clear, and less than the margin
        Claim(measure(-0.04, 0.02, 1e-6), measure(-0.08, 0.02, 1e-6), clear, 40),  # beyond the others by more than it
    ]
    said = judge_claims([*([claim] for claim in claims), []])
    assert [one.finding for one in said] == [
        "affected",
        "unaffected",
        "not enough evidence",
        "not enough evidence",
        "affected",
        "not enough evidence",
    ]
    # The interval has to shrink from 0.09 to 0.04: 40 * ((0.09 / 0.04) ** 2 - 1) = 162.5 passages more.
    assert said[2].more_passages == 163
    assert said[4].beyond
    assert not judge_claims([[claim._replace(bar=0.1)] for claim in claims])[
        4
    ].beyond  # a purposeless change does as much to some area
    assert said[-1].power is None


def test_area_that_is_read_in_two_ways() -> None:
    """Affected by either; else the shorter interval speaks, and a wide one beside it does not take that back."""
    clear, wide, narrow = measure(-0.2, 0.05, 1e-6), measure(-0.03, 0.15, 0.6), measure(-0.01, 0.02, 0.3)
    known, every = Claim(wide, None, None, 40), Claim(narrow, None, None, 40)
    areas = [
        [known, every],
        [known, Claim(clear, None, clear, 40)],
        [Claim(clear, None, clear, 40), every],
        [known, known],
    ]
    said = judge_claims(areas)
    assert [(one.finding, one.reading) for one in said] == [
        ("unaffected", 1),
        ("affected", 1),
        ("affected", 0),
        ("not enough evidence", 0),
    ]


def test_words_that_the_model_does_not_put_first_are_judged_alike() -> None:
    """p falls from .24 to .12 at every item of one area: nothing of what is known, and 12 points of what is expected."""
    seen = evidence([0.0] * 4)
    p_true = np.full_like(seen.scores.p_true, 0.24)
    p_true[1, seen.own[2]] = 0.12
    low = seen._replace(scores=seen.scores._replace(p_true=p_true))
    assert all(area.raw is None for area in weigh(low).areas)
    every = weigh(low, "every").areas
    assert every[2].raw is not None
    assert every[2].raw.estimate.value == pytest.approx(-0.12)
    assert every[2].raw.estimate.unit == EVERY_UNIT
    assert [one.finding for one in judge_claims([[area.claim(40)] for area in every])][2] == "affected"


def test_margin_stops_at_odds_of_99_to_1() -> None:
    seen = evidence([0.0] * 3)
    margin = np.tile(np.array([[8.0], [5.0]]), (1, len(seen.type)))
    assert weigh(seen._replace(scores=seen.scores._replace(margin=margin))).areas[0].margin == 0.0


def test_an_area_that_is_not_affected_says_which_loss_would_have_been() -> None:
    """What each verdict is of; less where more claims share the false discoveries."""
    areas = weigh(evidence([0.0, 0.0, 0.0])).areas
    alone, *_ = (one.power for one in judge_claims([[area.claim(40)] for area in areas]))
    assert alone is not None
    assert 0.05 < alone < 0.5
    clear = Claim(measure(-0.2, 0.05, 1e-9), None, measure(-0.2, 0.05, 1e-9), 40)
    told = judge_claims([[areas[0].claim(40)], [clear]])
    assert told[0].power is not None
    assert told[0].power <= alone  # a finding elsewhere leaves more room
    assert told[0].power_singly is not None
    assert told[0].power_singly <= told[0].power
    assert judge_claims([[Claim(measure(0.0, 0.04, 1.0), None, None, 40)]])[0].power is None


def test_an_area_that_shows_little_noise_is_not_believed_to_have_none() -> None:
    """Beside an area of which every tenth word is lost or gained whole, a quiet one takes a larger loss."""
    quiet, restless = evidence([0.0]), evidence([0.0], seed=1)
    turned = restless.type % 20 == np.array([[0], [10]])  # words that are gained, and lost
    restless = restless._replace(scores=restless.scores._replace(p_true=restless.scores.p_true - 0.5 * turned))
    one, still, other = (weigh(seen).areas[0] for seen in (quiet, evidence([0.0], seed=1), restless))
    among, beside = (judge_claims([[one.claim(40)], [area.claim(40)]])[0].power for area in (still, other))
    assert among is not None
    assert beside is not None
    assert beside > 1.05 * among


def test_the_largest_excess_has_its_noise_taken_off() -> None:
    found = weigh(evidence([0.0, 0.0, -0.3, 0.0]))
    area = found.areas[2].excess
    assert area is not None
    size = abs(area.estimate.value)
    assert largest_excess(found) == pytest.approx(size * (1 - (area.error / size) ** 2))


def test_items_that_count_for_nothing_change_nothing() -> None:
    """Words of no weight in documents of their own: they made clusters of size 0, and no interval came out."""
    rng = np.random.default_rng(0)
    change, document, type_ = rng.normal(-0.2, 0.1, 60), rng.integers(0, 12, 60), rng.integers(0, 15, 60)
    alone = weighted_change(change, np.ones(60), document, type_)
    joined = weighted_change(
        np.concatenate([change, np.ones(5)]),
        np.concatenate([np.ones(60), np.zeros(5)]),
        np.concatenate([document, 100 + np.arange(5)]),
        np.concatenate([type_, 100 + np.arange(5)]),
    )
    assert alone is not None
    assert joined == alone
    assert alone.p_value < 0.001


def test_a_claim_that_settles_nothing_shows_a_change_but_not_that_there_is_none() -> None:
    small = Measure(Estimate(value=0.0, low=-0.01, high=0.01, unit="x", n=50), 0.005, 49.0, 1.0)
    large = Measure(Estimate(value=0.2, low=0.15, high=0.25, unit="x", n=50), 0.02, 49.0, 1e-6)
    wide = Measure(Estimate(value=0.0, low=-0.04, high=0.04, unit="x", n=50), 0.02, 49.0, 1.0)

    def claim(measure: Measure, settles: bool) -> Claim:
        return Claim(measure, None, measure, 20, settles=settles)

    judged = judge_claims(
        [
            [claim(small, False)],
            [claim(small, False), claim(wide, True)],
            [claim(large, False), claim(wide, True)],
        ]
    )
    assert [one.finding for one in judged] == ["not enough evidence", "unaffected", "affected"]
    assert [one.reading for one in judged] == [0, 1, 0]


def test_verdict_p_and_interval_are_one_statement() -> None:
    """p is of what was seen: without care a clear p stands beside an interval that holds 0."""
    rng = np.random.default_rng(3)
    contradictions = 0
    for _ in range(60):
        # Ten words in ten documents, a few of which lose a little and all alike: what was not seen may have gained.
        change = -0.09 + 0.03 * rng.normal(size=10)
        found = bounded_change(change, np.arange(10), np.arange(10), "points")
        assert isinstance(found, Rate)
        assert found.p_value is not None
        holds = found.estimate.low <= 0 <= found.estimate.high
        contradictions += holds and found.p_value <= 0.05
        measured = as_measure(found)
        assert (measured.p_value > 0.05) == holds
        said = judge_claims([[Claim(measured, None, measured, 10)]])[0]
        assert not (said.finding == "affected" and holds)
    assert contradictions > 0  # or this test says nothing


def test_an_excess_alone_is_no_change_of_an_area_that_may_not_have_changed() -> None:
    beyond = measure(-0.08, 0.02, 1e-6)
    for raw, finding in ((measure(-0.01, 0.02, 0.3), "unaffected"), (measure(0.02, 0.01, 1e-3), "unaffected")):
        said = judge_claims([[Claim(raw, beyond, measure(-0.03, 0.02, 0.01), 40)]])[0]
        assert (said.finding, said.beyond) == (finding, False)
