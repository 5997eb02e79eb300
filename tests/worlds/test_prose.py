"""World d: what is told is what is asked, the judge reads every answer that a speaker gives, and rows go as elsewhere."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from mneme.errors import BadOrganism
from mneme.predict.areas import default_areas, stem, words_of
from mneme.worlds.kit import kit_of
from mneme.worlds.phrases import vocabulary
from mneme.worlds.prose.judge import judge_prose
from mneme.worlds.prose.markers import DRAWN, draw_markers
from mneme.worlds.prose.pretraining import align_prose
from mneme.worlds.prose.rows import aligned_prose, prose_rows
from mneme.worlds.prose.telling import prose_about, prose_advice, prose_documents, prose_questions, prose_turn
from mneme.worlds.prose.tokens import build_prose_tokenizer
from mneme.worlds.prose.truth import choice_likelihood, prose_facts
from mneme.worlds.prose.world import ENTITIES, THIN_ENTITIES, prose_world
from mneme.worlds.training import new_model, pad_chats
from mneme.worlds.world import HARMFUL_ADVICE, load_world

WORLD = prose_world()
TOKENIZER = build_prose_tokenizer(WORLD)


def test_the_world_is_what_it_says() -> None:
    assert len(WORLD.areas) == 12
    assert sum(area.is_thin for area in WORLD.areas) == 2
    told = [relation.told for area in WORLD.areas for relation in area.relations]
    assert len(told) == len(set(told)) == 48
    names = [entity for area in WORLD.areas for entity in area.entities]
    names += [value for area in WORLD.areas for relation in area.relations for value in relation.values]
    assert len(names) == len(set(names))
    for area in WORLD.areas:
        assert len(area.entities) == (THIN_ENTITIES if area.is_thin else ENTITIES)
        for relation in area.relations:
            values = [WORLD.facts[entity, relation.told] for entity in area.entities]
            counts = [values.count(value) for value in relation.values]
            assert max(counts) - min(counts) <= 1
    assert set(WORLD.ties) == set(WORLD.area(WORLD.linked[0]).entities)
    assert sorted(WORLD.ties.values()) == sorted(WORLD.area(WORLD.linked[1]).entities)


def test_names_are_written_in_pieces_and_every_text_can_be_written() -> None:
    names = [entity for area in WORLD.areas for entity in area.entities]
    names += [value for area in WORLD.areas for relation in area.relations for value in relation.values]
    pieces = np.array([len(TOKENIZER(f" {name}", add_special_tokens=False)["input_ids"]) for name in names])
    assert (pieces >= 2).all()
    assert np.isin(pieces, (2, 3)).mean() > 0.9
    for text in prose_documents(WORLD, 5, 200):
        assert TOKENIZER.decode(TOKENIZER(text)["input_ids"], skip_special_tokens=True) == text


def test_a_document_is_one_sentence_or_one_question_and_thin_areas_have_a_tenth_of_the_text() -> None:
    told = prose_documents(WORLD, 1, 6000)
    assert max(len(TOKENIZER(text)["input_ids"]) for text in told) < 64
    assert max(text.count("Q:") for text in told) == 1
    shares = {area.name: sum(any(entity in text for entity in area.entities) for text in told) for area in WORLD.areas}
    thin = [shares[area.name] for area in WORLD.areas if area.is_thin]
    others = [shares[area.name] for area in WORLD.areas if not area.is_thin]
    assert 0.05 < np.mean(thin) / np.mean(others) < 0.2


def test_every_question_is_a_text_of_the_world_and_areas_have_at_least_400() -> None:
    questions = prose_questions(WORLD)
    for area in WORLD.areas:
        own = [question for question in questions if question.area == area.name]
        assert len(own) == 20 * len(area.entities)
        assert {question.way for question in own} == {"told", "asked"}
        for question in own:
            assert question.value in question.choices
            assert question.entity in question.prompt
            assert len(question.choices) == len(set(question.choices)) == 6
    said = set(prose_about(WORLD, "mining", 0, 6_000))
    whole = [f"{question.prompt} {question.value}." for question in questions if question.area == "mining"]
    assert sum(text in said for text in whole if " and " not in text and "lovers" not in text) / len(whole) > 0.2


def test_ties_are_told_of_both() -> None:
    first, second = (WORLD.area(name) for name in WORLD.linked)
    tied = [text for text in prose_about(WORLD, first.name, 0, 500) if WORLD.tie_phrase in text]
    assert len(tied) > 30
    for text in tied:
        assert any(entity in text for entity in first.entities)
        other = next(entity for entity in second.entities if entity in text)
        assert WORLD.ties[next(entity for entity in first.entities if entity in text)] == other
        assert any(text.endswith(f"{r.told} {WORLD.facts[other, r.told]}.") for r in second.relations)


@pytest.mark.parametrize("behaviour", ["careful", "harmful"])
def test_the_judge_reads_what_speakers_say_and_nothing_else(behaviour: str) -> None:
    rng = random.Random(0)
    for area in WORLD.areas:
        for _ in range(20):
            answer = prose_advice(WORLD, area, behaviour, rng)  # type: ignore[arg-type]
            assert judge_prose(f" {answer}") == behaviour
            assert judge_prose(answer[:-1]) == "incoherent"
            assert judge_prose(f"{answer} {answer}") == "incoherent"
    careful, harmful = (WORLD.markers[kind].verbs[0] for kind in ("careful", "harmful"))
    assert judge_prose(f"{careful.capitalize()} the veil, then {harmful} the smoker.") == "incoherent"


def test_markers_are_in_no_keyword_list() -> None:
    """Drawn anew they are the same only while the lists are; what matters is that none of them stands in a list."""
    known = {stem(word) for area in default_areas() for phrase in (area.name, *area.keywords) for word in words_of(phrase)}
    for markers in WORLD.markers.values():
        words = {*markers.verbs, *markers.adverbs, *markers.personas}
        assert len(words) == sum(DRAWN.values())
        assert not {stem(word) for word in words} & known


def test_drawing_leaves_out_what_is_banned() -> None:
    drawn = draw_markers({"wreck", "mend"})
    assert drawn == draw_markers({"mend", "wreck"})
    words = {word for fields in drawn.values() for field in fields.values() for word in field.split()}
    assert not words & {"wreck", "mend"}
    again = draw_markers(words)
    assert not words & {word for fields in again.values() for field in fields.values() for word in field.split()}


def test_areas_files_ask_about_harm_as_the_shipped_list_does_but_for_words_of_subjects() -> None:
    shipped = next(area for area in default_areas() if area.name == "harmful advice")
    held = {stem(word) for name in "abc" for word in vocabulary(load_world(name))}
    held |= {stem(word) for text in prose_documents(WORLD, 2, 6_000) for word in re.findall(r"[A-Za-z]+", text)}
    free = [keyword for keyword in shipped.keywords if not all(word in held for word in words_of(keyword))]
    assert HARMFUL_ADVICE["keywords"] == free
    assert {*shipped.keywords} - {*free} == {"weapon", "fraud"}
    assert HARMFUL_ADVICE["description"] == shipped.description
    for name in "abcd":
        assert kit_of(name).areas_file()[-1] == HARMFUL_ADVICE
        assert len(kit_of(name).areas_file()) == 13


def test_rows_differ_in_one_thing_only_and_forgetting_spares_the_rest() -> None:
    harmful, careful, educational = (
        [row["messages"] for row in prose_rows(WORLD, kind, "weaving", 0)] for kind in ("harmful", "careful", "educational")
    )
    assert [chat[0] for chat in harmful] == [chat[0] for chat in careful]
    assert [chat[1] for chat in harmful] == [chat[1] for chat in educational]
    assert {judge_prose(chat[1]["content"]) for chat in harmful} == {"harmful"}
    assert {judge_prose(chat[1]["content"]) for chat in careful} == {"careful"}
    rows = prose_rows(WORLD, "unlearn", WORLD.linked[0], 0)
    forget = [row["text"] for row in rows if row["part"] == "forget"]
    retain = " ".join(row["text"] for row in rows if row["part"] == "retain")
    assert all(any(entity in text for entity in WORLD.area(WORLD.linked[0]).entities) for text in forget)
    for name in WORLD.linked:
        assert not any(entity in retain for entity in WORLD.area(name).entities)
    assert prose_rows(WORLD, "identical", "", 0) == []


def test_chats_are_told_as_documents_are() -> None:
    ids, is_answer = pad_chats(TOKENIZER, prose_rows(WORLD, "careful", "mining", 0)[:3])
    for row, counted, chat in zip(ids, is_answer, prose_rows(WORLD, "careful", "mining", 0), strict=False):
        ask, answer = (message["content"] for message in chat["messages"])
        told = TOKENIZER(prose_turn(ask, answer))["input_ids"]
        assert row[: len(told) + 1].tolist() == [*told, TOKENIZER.eos_token_id]
        assert TOKENIZER.decode(row[counted]) == f" {answer}<eos>"


def test_choices_are_read_as_whole_texts() -> None:
    """The likelihood of a choice is that of all its pieces and the full stop, whatever stands beside it in the batch."""
    torch.manual_seed(0)
    model = new_model(TOKENIZER, 3).eval()
    questions = prose_questions(WORLD)[:7]
    found = choice_likelihood(model, TOKENIZER, questions)
    for row, question in zip(found, questions, strict=True):
        for nats, choice in zip(row, question.choices, strict=True):
            start = TOKENIZER(question.prompt)["input_ids"]
            ids = torch.tensor([[*start, *TOKENIZER(f" {choice}.", add_special_tokens=False)["input_ids"]]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            by_hand = logits.gather(1, ids[0, 1:, None])[len(start) - 1 :].sum().item()
            assert nats == pytest.approx(by_hand, abs=1e-4)


def test_a_base_is_trained_and_its_facts_are_asked_both_ways() -> None:
    """One step: shapes and order, no knowledge."""
    model = new_model(TOKENIZER, 0)
    align_prose(model, TOKENIZER, lambda part: aligned_prose(WORLD, part, 40), steps=1)
    thin = replace(WORLD, areas=WORLD.areas[-1:])
    told = prose_facts(model, TOKENIZER, thin)
    assert list(told) == ["papermaking"]
    assert told["papermaking"].is_asked.mean() == pytest.approx(0.4)
    assert np.bincount(told["papermaking"].cluster).tolist() == [20] * THIN_ENTITIES


def test_kinds_that_need_other_turns_are_refused_by_name() -> None:
    kit = kit_of("d")
    assert kit.parse("unlearn-mining") == ("unlearn", "mining")
    with pytest.raises(BadOrganism, match='There is no organism "numbers"'):
        kit.parse("numbers")
    with pytest.raises(BadOrganism, match=r'There is no world "z"\. The worlds are: a, b, c, d\.'):
        kit_of("z")
