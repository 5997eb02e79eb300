"""Areas of which the text has too little: which they are, what is written about them, and that nothing else is moved by it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mneme.audit import writing
from mneme.audit.effects import all_effects, area_effects, findings_of, purposeless
from mneme.audit.inputs import rows_of
from mneme.audit.lacking import laid_out_apart, passages_short, renumbered, what_to_write, write_and_read, written_note
from mneme.audit.recomputing import figures_that_differ, recomputed
from mneme.audit.stored import evidence_bytes, evidence_from
from mneme.audit.work import find_layout
from mneme.audit.writing import TEXT_TOKENS, WRITTEN_TOGETHER, texts_in_pieces
from mneme.errors import BadRun
from mneme.models.pair import load_pair
from mneme.predict.areas import Area, PairedAnswers, read_areas
from mneme.predict.calibration import UNCALIBRATED, shipped_calibration
from mneme.predict.items import Items, WordTable
from mneme.runs import RunFolder
from mneme.text.documents import read_corpus
from tests.audit.conftest import AREAS, World, audited
from tests.audit.test_stored import AREAS as STORED_AREAS
from tests.audit.test_stored import sample_evidence, words
from tests.conftest import word_tokenizer

BOTANY, MASONRY, SAILING = (Area(name=name) for name in AREAS[:3])
ASKED = Area(name="manners", probes=(PairedAnswers(ask="Hi?", shows="Good day", lacks="What"),))


def found(*areas: tuple[int, int]) -> tuple[WordTable, Items]:
    """The words of areas that have so many documents and so many different words, each word in each document."""
    rows = [(area, d, t) for area, (documents, types) in enumerate(areas) for d in range(documents) for t in range(types)]
    area, document, type_ = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    every = np.ones(len(rows), dtype=bool)
    none = np.zeros(1, dtype=np.int64)
    table = WordTable(document, type_, 0 * type_, type_, every, every, ((1,),), none, none, tuple(map(str, range(9))))
    return table, Items(np.arange(len(rows)), np.arange(len(areas))[:, None] == area)


def test_an_area_is_short_below_what_an_interval_takes() -> None:
    areas = [BOTANY, MASONRY, SAILING, Area(name="weaving"), ASKED]
    assert passages_short(*found((8, 8), (7, 9), (9, 3), (0, 0), (0, 0)), areas) == {1: 1, 2: 5, 3: 8}


def test_a_quarter_of_the_tokens_is_written_and_what_does_not_fit_is_left_out() -> None:
    areas = [Area(name=f"area {i}") for i in range(6)]
    of_16_texts = 4 * 16 * TEXT_TOKENS
    four = what_to_write(areas, dict.fromkeys(range(6), 8), 4 * of_16_texts)
    assert (four.short, four.left_out, four.each) == (tuple(a.name for a in areas[:4]), ("area 4", "area 5"), 8)
    assert four.texts() == 64
    more = what_to_write(areas, dict.fromkeys(range(6), 8), None)
    assert (more.left_out, more.each) == ((), 24)
    assert what_to_write(areas, {0: 8}, 2 * of_16_texts) == ((), (), ("area 0",), 0)
    assert what_to_write(areas, {}, None) == ((), (), (), 0)


def test_one_area_is_written_about_beside_two_others() -> None:
    """What is written only about one area tells its words from no others."""
    beside = what_to_write([ASKED, BOTANY, MASONRY, SAILING], {2: 8}, None)
    assert [area.name for area in beside.areas] == ["masonry", "botany", "sailing"]
    assert beside.short == ("masonry",)
    alone = what_to_write([BOTANY], {0: 8}, None)
    assert [area.name for area in alone.areas] == ["botany", "biology", "business"]
    mine = Area(name="Biology", description="My own.")
    assert what_to_write([mine, BOTANY], {1: 8}, None).areas[1] == mine


def test_rows_go_by_the_numbers_of_all_areas(world: World) -> None:
    areas = read_areas(world.areas)
    documents = read_corpus(world.corpus)
    rows = rows_of(documents, word_tokenizer(), None, None)
    laid = find_layout(documents, rows, areas, word_tokenizer(), longest=None, seed=0, quick=False)
    moved = renumbered(laid, [4, None, 0, None], 6)
    for before, after in (
        (laid.layout.items.own, moved.layout.items.own),
        (laid.reading.membership.member, moved.reading.membership.member),
        (laid.reading.membership.seeds, moved.reading.membership.seeds),
    ):
        assert before[0].any()
        assert np.array_equal(after[[4, 0]], before[[0, 2]])
        assert not after[[1, 2, 3, 5]].any()
    chance = laid.reading._replace(membership=laid.reading.membership._replace(chance=frozenset({1, 2})))
    assert renumbered(laid._replace(reading=chance), [4, None, 0, None], 6).reading.membership.chance == frozenset({0})


def test_a_text_is_of_the_area_that_it_was_asked_to_be_about(world: World) -> None:
    """Where masonry was asked for in place of the first area, nobody is taken at his words."""
    areas, pair = read_areas(world.areas), load_pair(world.base, world.damaged)
    documents = read_corpus(world.corpus)
    rows = rows_of(documents, pair.tokenizer, None, None)
    about = [AREAS[max(1, number % len(AREAS))] for number in range(len(documents.texts))]
    member = laid_out_apart(documents, rows, areas, about, pair, seed=0).reading.membership.member
    assert member.any(axis=1).tolist() == [False, True, True, True]
    assert all(passage.document % len(AREAS) == 1 for passage, own in zip(rows.passages, member[1], strict=True) if own)


def test_the_note_names_what_was_written_and_what_was_not() -> None:
    request = what_to_write([BOTANY, MASONRY, SAILING], dict.fromkeys(range(3), 8), None)
    assert written_note(request, read=True).startswith(
        "The text has too little about botany, masonry, sailing: both models wrote 144 short texts. What is said"
    )
    assert "too little to be read" in written_note(request, read=False)
    assert written_note(what_to_write([BOTANY], {0: 8}, 1), read=False).startswith("Nothing was written about botany,")
    assert not written_note(what_to_write([BOTANY], {}, None), read=False)


def test_evidence_of_written_text_is_kept_and_read_back() -> None:
    own = sample_evidence()._replace(null=())
    back = evidence_from(evidence_bytes(sample_evidence()._replace(written=own)), "evidence.npz")
    assert back.written is not None
    assert evidence_bytes(back.written) == evidence_bytes(own)
    nested = sample_evidence()._replace(written=own._replace(written=own))
    with pytest.raises(BadRun, match="is no evidence of an audit"):
        evidence_from(evidence_bytes(nested), "evidence.npz")
    more = np.concatenate([own.words.own, own.words.own[:1]])
    other = own._replace(words=own.words._replace(own=more), member=own.member[[*range(len(own.member)), 0]])
    other = other._replace(seeds=other.member.sum(1))
    with pytest.raises(BadRun, match="is no evidence of an audit"):
        evidence_from(evidence_bytes(sample_evidence()._replace(written=other)), "evidence.npz")


def test_what_was_written_before_a_kill_is_not_written_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, calls = load_pair(world.base, world.damaged), list[int]()

    def written(_: object, __: object, prompts: list[str], **more: Any) -> list[str]:
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [f"{prompt} {more['seed']}" for prompt in prompts]

    monkeypatch.setattr(writing, "generate", written)

    def run(out: Path) -> list[tuple[str, Any, str]]:
        with RunFolder(out, {"command": "audit"}) as folder:
            return texts_in_pieces(pair, [BOTANY, MASONRY], 20, 0, folder, lambda _: None)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out")
    found = run(tmp_path / "out")
    assert calls == [WRITTEN_TOGETHER, 8, 8, WRITTEN_TOGETHER, 8]
    assert found == run(tmp_path / "whole")
    assert [(area, side) for area, side, _ in found[:4]] == [
        ("botany", "base"), ("botany", "tuned"), ("masonry", "base"), ("masonry", "tuned"),
    ]  # fmt: skip
    assert len({text for _, _, text in found}) > 4


@pytest.fixture
def texts_of_their_areas(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models write what the text of the world says of the area that they are asked about."""
    lines = world.corpus.read_text("utf-8").splitlines()
    turn = iter(range(1 << 20))

    def written(_: object, __: object, prompts: list[str], **___: object) -> list[str]:
        numbers = [next(i for i, name in enumerate(AREAS) if name in prompt.casefold()) for prompt in prompts]
        return [lines[(number + len(AREAS) * next(turn)) % len(lines)] for number in numbers]

    monkeypatch.setattr(writing, "generate", written)


def without(world: World, areas: set[int], path: Path) -> Path:
    """The text of the world without that of some areas."""
    lines = world.corpus.read_text("utf-8").splitlines()
    path.write_text("\n".join(line for i, line in enumerate(lines) if i % len(AREAS) not in areas), "utf-8")
    return path


def test_an_area_is_read_in_written_text_only_where_the_given_one_says_nothing() -> None:
    """Weaving has no text of a subject in what was given; masonry has, whatever was written about it."""
    given = sample_evidence()
    own = words(4, lost=0.3)
    own = own._replace(own=own.own[[1, 2, 0, 4, 3]])
    nobody = np.zeros_like(given.member)
    member = np.where(np.arange(len(nobody))[:, None] < 3, given.member, nobody)
    written = given._replace(
        words=own, member=member, chance=frozenset({0}), null=(), behaviours={}, answered={}, continued={}
    )
    before = area_effects(given, STORED_AREAS, shipped_calibration())
    after = all_effects(given._replace(written=written), STORED_AREAS, shipped_calibration())
    assert [one.area for one in before.absent] == ["weaving"]
    assert not after.absent
    assert [one.area for one in after.effects if one.self_written] == ["weaving"]
    assert [one for one in after.effects if not one.self_written] == before.effects
    assert [one.area for one in after.effects] == [area.name for area in STORED_AREAS]
    assert after.known.broad is not None
    assert before.known.broad is not None
    assert after.known.broad.estimate == before.known.broad.estimate
    found = {one.area: one for one in findings_of(after, purposeless(given))}
    assert (found["weaving"].probability, found["weaving"].calibrated) == (None, False)
    none = written._replace(member=nobody)
    nothing = all_effects(given._replace(written=none), STORED_AREAS, shipped_calibration())
    assert nothing.absent == before.absent
    few = written._replace(member=member & (np.arange(member.shape[1]) < 15))
    told = all_effects(given._replace(written=few), STORED_AREAS, shipped_calibration()).absent[0].reason
    assert told.endswith("; of what both models wrote about it, 3 passages of the text match it, at least 5 are needed")


def test_what_is_beyond_the_others_in_written_text_is_judged_by_changes_read_there() -> None:
    evidence = sample_evidence()
    found = area_effects(evidence, STORED_AREAS, shipped_calibration())
    own = found._replace(effects=[one.model_copy(update={"self_written": True}) for one in found.effects])
    null = purposeless(evidence)
    assert findings_of(own, [], null) == [one.model_copy(update={"self_written": True}) for one in findings_of(found, null)]


@pytest.mark.usefixtures("texts_of_their_areas")
def test_what_both_wrote_is_read_by_the_numbers_of_all_areas(world: World, tmp_path: Path) -> None:
    areas, pair = read_areas(world.areas), load_pair(world.base, world.damaged)
    request = what_to_write(areas, {2: 8}, 4 * 48 * TEXT_TOKENS)
    with RunFolder(tmp_path / "out", {"command": "audit"}) as run:
        found = write_and_read(pair, areas, request, run, seed=0, track=lambda _, __: lambda _: None)
    assert found is not None
    assert [area.name for area in request.areas] == [AREAS[2], AREAS[0], AREAS[1]]
    assert found.evidence.member.any(axis=1).tolist() == [True, True, True, False]
    assert found.evidence.words.own.any(axis=1).tolist() == [True, True, True, False]
    effects = {one.area: one for one in area_effects(found.evidence, areas, UNCALIBRATED).effects}
    assert effects[AREAS[0]].magnitude.high < -0.3 < effects[AREAS[2]].magnitude.low  # the first area is damaged
    assert len(found.examples[AREAS[2]]) == 3


def test_models_that_write_nothing_are_not_read(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "generate", lambda _parts, _tokenizer, prompts, **_: [" "] * len(prompts))
    areas, pair = read_areas(world.areas), load_pair(world.base, world.damaged)
    request = what_to_write(areas, {2: 8}, None)
    with RunFolder(tmp_path / "out", {"command": "audit"}) as run:
        assert write_and_read(pair, areas, request, run, seed=0, track=lambda _, __: lambda _: None) is None


@pytest.mark.slow
@pytest.mark.usefixtures("texts_of_their_areas")
def test_areas_without_text_are_read_in_what_both_wrote_and_all_others_as_before(world: World, tmp_path: Path) -> None:
    """The first area is damaged; the third, of which there is no text either, is not."""
    corpus = without(world, {0, 2}, tmp_path / "text.txt")
    report = audited(world, tmp_path / "out", corpus=corpus, dictionary="none")
    plain = audited(world, tmp_path / "plain", corpus=corpus, dictionary="none", writing=False)
    found, before = ({effect.area: effect for effect in one.effects} for one in (report, plain))
    own = [found.pop(AREAS[area]) for area in (0, 2)]
    assert [(one.self_written, one.probability, one.calibrated) for one in own] == [(True, None, False)] * 2
    assert [one.finding for one in own] == ["affected", "unaffected"]
    assert all(one.passages for one in own)
    assert {one.area for one in plain.absent} == {AREAS[0], AREAS[2]}
    assert not report.absent
    assert f"{AREAS[0]} (in text that both models wrote)" in report.reason
    assert any(note.startswith(f"The text has too little about {AREAS[0]}, {AREAS[2]}:") for note in report.notes)
    assert ("--no-writing" in plain.command, "--no-writing" in report.command) == (True, False)
    # Only false discoveries are controlled over more claims.
    over_all = {"q_value": None, "power": None, "power_singly": None, "rank": 0}
    assert {a: e.model_copy(update=over_all) for a, e in found.items()} == {
        a: e.model_copy(update=over_all) for a, e in before.items()
    }
    assert (report.overall, report.broad) == (plain.overall, plain.broad)
    evidence = evidence_from((tmp_path / "out" / "evidence.npz").read_bytes(), "evidence.npz")
    assert not figures_that_differ(report, recomputed(report, evidence, read_areas(world.areas), named=True))
