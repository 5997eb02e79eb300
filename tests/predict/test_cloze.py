"""The cloze: scores known by hand, rivals that are told apart at a later piece, and the laws."""

import math

import numpy as np
import pytest

from mneme.predict.cloze import Pool, Scores, cloze, rival_pool
from mneme.predict.items import TokenisedText, WordTable, word_table
from tests import laws

PIECES = ["cob", "alt", "ble", "zinc", "nickel", "iron", "Gold"]
WORDS = {"cobalt": (0, 1), "cobble": (0, 2), "zinc": (3,), "nickel": (4,), "iron": (5,), "Gold": (6,)}


def table() -> WordTable:
    """One document that holds every word once."""
    spans, ids, place = [], [], 0
    for word, pieces in WORDS.items():
        inner = place
        for piece in pieces:
            spans.append((inner, inner + len(PIECES[piece])))
            ids.append(piece)
            inner += len(PIECES[piece])
        place += len(word) + 1
    return word_table([TokenisedText(ids, " ".join(WORDS), spans)], lambda _: False)


def asked(word: str, base: list[list[float]], tuned: list[list[float]]) -> tuple[Scores, np.ndarray]:
    """The cloze of one word under these probabilities of the pieces, one row a piece of the word."""
    known = table()
    pool = rival_pool(known, np.ones(len(known.types), dtype=bool))
    assert pool.ids.tolist() == list(range(7))
    with np.errstate(divide="ignore"):
        log_p = np.log(np.array([base, tuned]))
    return cloze(known, pool, np.array([known.forms.index(WORDS[word])]), log_p)


FLAT = [0.1] * 7


def test_by_hand_one_piece() -> None:
    base = [[0.10, 0.0, 0.0, 0.6, 0.2, 0.05, 0.05]]
    tuned = [[0.10, 0.0, 0.0, 0.1, 0.2, 0.30, 0.30]]
    scores, usable = asked("zinc", base, tuned)
    assert usable.all()
    # Gold has a capital: no rival. cob (two words that begin so), nickel and iron are.
    assert scores.p_true[:, 0] == pytest.approx([0.6 / 0.95, 0.1 / 0.7])
    assert scores.margin[:, 0] == pytest.approx([math.log(0.6 / 0.35), math.log(0.1 / 0.6)])
    assert scores.right[:, 0].tolist() == [True, False]
    assert scores.weight()[0] == pytest.approx((0.6 / 0.95 - 0.25) / 0.75)


def test_a_rival_with_the_same_beginning_is_told_apart_where_it_parts() -> None:
    first = [0.5, 0.0, 0.0, 0.3, 0.1, 0.02, 0.0]
    second = [0.0, 0.6, 0.2, 0.0, 0.0, 0.0, 0.0]
    scores, _ = asked("cobalt", [first, second], [first, second])
    # p(cob, ble) = 0.1 is a rival before iron, as likely as nickel; it is compared at its second piece, 0.2 : 0.6.
    gaps = [0.2 / 0.6, 0.3 / 0.5, 0.1 / 0.5]
    assert scores.p_true[0, 0] == pytest.approx(1 / (1 + sum(gaps)))


def test_fewer_than_three_rivals_is_no_item() -> None:
    scores, usable = asked("Gold", [FLAT], [FLAT])
    assert not usable.any()
    assert not scores.p_true.any()


def test_temperature_free_of_the_rest_of_the_vocabulary() -> None:
    """What goes to words outside the four moves nothing."""
    base = [[0.10, 0.0, 0.0, 0.6, 0.2, 0.05, 0.0]]
    scores, _ = asked("zinc", base, [[x / 50 for x in base[0]]])
    laws.identity(np.diff(np.round(scores.p_true, 12), axis=0))


def test_identity_and_antisymmetry() -> None:
    generator = np.random.default_rng(0)
    base, tuned = generator.dirichlet(np.ones(7), (2, 2)).tolist()
    same, _ = asked("cobalt", base, base)
    laws.identity({"p": np.diff(same.p_true, axis=0), "margin": np.diff(same.margin, axis=0)})
    one, _ = asked("cobalt", base, tuned)
    back, _ = asked("cobalt", tuned, base)
    laws.antisymmetry(np.diff(one.p_true, axis=0), np.diff(back.p_true, axis=0))
    laws.antisymmetry(np.diff(one.margin, axis=0), np.diff(back.margin, axis=0))
    assert np.array_equal(one.weight(), back.weight())


def by_loop(known: WordTable, pool: Pool, form: int, rows: np.ndarray) -> list[list[float]] | None:
    """Gaps of the three rivals [model rival]: every form asked in turn, as the module's docstring says."""
    true, rivals = known.forms[form], {}
    for number, pieces in enumerate(known.forms):
        shared = next((i for i, (a, b) in enumerate(zip(pieces, true, strict=False)) if a != b), None)
        if shared is None or known.kind[number] != known.kind[form] or known.form_type[number] == known.form_type[form]:
            continue
        own = {known.forms[one][0] for one in range(len(known.forms)) if known.form_type[one] == known.form_type[form]}
        if shared == 0 and pieces[0] in own:
            continue
        column, right = (int(np.searchsorted(pool.ids, ids[shared])) for ids in (pieces, true))
        before = sum(rows[:, depth, np.searchsorted(pool.ids, true[depth])] for depth in range(shared)) + np.zeros(2)
        both = np.logaddexp(*(before + rows[:, shared, column]))
        rivals[shared, column] = (both, *(rows[:, shared, column] - rows[:, shared, right]))
    best = sorted(rivals.values(), reverse=True)[:3]
    return np.array([gap for _, *gap in best]).T.tolist() if len(best) == 3 else None


@pytest.mark.parametrize("seed", range(4))
def test_many_items_at_once_are_those_of_a_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    known = table()
    pool = rival_pool(known, np.ones(len(known.types), dtype=bool))
    form = generator.integers(len(known.forms), size=40)
    lengths = [len(known.forms[one]) for one in form]
    log_p = np.log(generator.dirichlet(np.full(7, 0.3), (2, sum(lengths))))
    scores, usable = cloze(known, pool, form, log_p)
    start = np.concatenate([[0], np.cumsum(lengths)])
    for item, one in enumerate(form):
        gaps = by_loop(known, pool, int(one), log_p[:, start[item] : start[item + 1]])
        assert usable[item] == (gaps is not None)
        if gaps is not None:
            assert scores.p_true[:, item] == pytest.approx(1 / (1 + np.exp(gaps).sum(axis=1)))
            assert scores.right[:, item].tolist() == (np.array(gaps) < 0).all(axis=1).tolist()
