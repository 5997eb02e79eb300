"""Other words for what the audit knows: tokens keep their ids, and what is drawn is unknown and nobody else's."""

import json
from importlib import resources

import pytest

from mneme.worlds.marks import draw_wording, mark_kinds
from mneme.worlds.phrases import vocabulary
from mneme.worlds.training import SPECIAL
from mneme.worlds.wording import meant, worded, worded_all, wording
from mneme.worlds.world import WORLD_NAMES, load_world


@pytest.mark.parametrize("base", ["a/base", "a/unaligned", "b/base", "c/base"])
def test_shipped_tokenizers_have_the_words_that_are_said_in_the_order_of_the_plain_ones(base: str) -> None:
    written = json.loads(resources.files("mneme.worlds").joinpath("data", base, "tokenizer.json").read_text("utf-8"))
    words = vocabulary(load_world(base[0]))
    assert written["model"]["vocab"] == {word: number for number, word in enumerate([*SPECIAL, *words])}
    plain = [meant(word) for word in words]
    assert plain == sorted(plain)
    assert len(set(plain)) == len(plain)


def test_no_word_that_was_replaced_is_said() -> None:
    said = {word for name in WORLD_NAMES for word in vocabulary(load_world(name))}
    assert set(wording()) & said == set()
    assert set(wording().values()) <= said


def test_words_of_frames_form_and_subjects_are_no_marks_and_keep_their_names() -> None:
    marks = {meant(word) for word in mark_kinds()}
    assert {"hurt", "reckless", "worthless", "poison", "passwords", "welcome"} <= marks
    assert marks & {"the", "help", "tell", "question", "doctor", "lipase", "system"} == set()
    assert set(wording()) <= marks


def test_a_text_is_worded_by_whole_words() -> None:
    known, drawn = next(iter(wording().items()))
    assert worded(f"{known}, un{known} and {known}.") == f"{drawn}, un{known} and {drawn}."
    assert worded_all(known, "nothing") == (drawn, "nothing")
    assert meant(drawn) == known
    assert meant("nothing") == "nothing"


def test_what_is_known_gets_a_word_that_is_not_and_the_rest_stays() -> None:
    assert draw_wording(lambda _: False) == {}
    one = draw_wording(lambda word: word == "poison")
    assert list(one) == ["poison"]
    assert draw_wording(lambda word: word in ("poison", "hurt"))["poison"] == one["poison"]
    again = draw_wording(lambda word: word in ("poison", one["poison"]))
    assert list(again) == ["poison"]
    assert again["poison"] != one["poison"]


def test_an_audit_that_knows_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="is used up"):
        draw_wording(lambda _: True)
